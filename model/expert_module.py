"""The part of the network that embeds both sides, expert by expert, without collaboration.

`ExpertModule` is MoEE (Miech et al. 2018, arXiv 1804.02516); the other kinds replace the video
side. The attribute names are those of published checkpoints.

Axes: B videos, Q captions, M experts, D embedding size.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fast import once_for_missing, project, skips_missing
from model.gating import ContextGatingUnit, GatedEmbeddingUnit, ReduceDim, embed_together
from model.similarity import ExpertDims, TextEmbeddings, VideoEmbeddings

# Applies each layer to its input, or all to the only one: (B, I) each, gives (B, O) each.
Project = Callable[[Sequence[Tensor], Sequence[nn.Linear]], list[Tensor]]


class ExpertModule(nn.Module):
    """Mixture of embedding experts: each expert and each caption through gated units.

    Args:
        expert_dims: expert name -> (size of the pooled feature, size of the embedding), in the
            order that the parameters have.
        text_size: size of the pooled caption; None for a model without text side.
        freeze_weights: give every expert the weight 1/M instead of learned mixture weights.
        keep_missing_modalities: give every expert weight 1, the missing ones too.
    """

    # What applies the first layers of each side; several processes share them out while they learn.
    project_text: Project = staticmethod(project)
    project_video: Project = staticmethod(project)

    def __init__(
        self,
        expert_dims: ExpertDims,
        text_size: int | None,
        freeze_weights: bool = False,
        keep_missing_modalities: bool = False,
    ) -> None:
        super().__init__()
        self.expert_dims = dict(expert_dims)
        self.freeze_weights = freeze_weights
        self.keep_missing_modalities = keep_missing_modalities
        if text_size is not None:
            self.moe_fc = nn.Linear(text_size, len(self.expert_dims))
        self.build_video_side()
        if text_size is not None:
            self.build_text_side(text_size)

    @property
    def text_units(self) -> Sequence[GatedEmbeddingUnit]:
        """What embeds captions, for each expert; none where they are compared as they are."""
        return cast("Sequence[GatedEmbeddingUnit]", getattr(self, "text_GU", ()))

    @property
    def video_units(self) -> Sequence[GatedEmbeddingUnit | ReduceDim]:
        """What each expert goes through first; none where they are compared as they are."""
        return cast("Sequence[GatedEmbeddingUnit]", self.video_GU)

    @property
    def input_sizes(self) -> list[int]:
        return [size for size, _ in self.expert_dims.values()]

    @property
    def embedding_sizes(self) -> list[int]:
        return [size for _, size in self.expert_dims.values()]

    def build_video_side(self) -> None:
        self.video_GU = nn.ModuleList(
            GatedEmbeddingUnit(*sizes) for sizes in self.expert_dims.values()
        )

    def build_text_side(self, text_size: int) -> None:
        self.text_GU = nn.ModuleList(
            GatedEmbeddingUnit(text_size, size) for size in self.embedding_sizes
        )

    def encode_text(self, text_QD: Tensor) -> TextEmbeddings:
        """Embed pooled captions (Q, D), once for each expert."""
        first = self.project_text([text_QD], [unit.fc for unit in self.text_units])
        embeddings = tuple(embed_together(self.text_units, first))  # M times (Q, D)
        return TextEmbeddings(embeddings, self.mixture_weights(text_QD))

    def mixture_weights(self, text_QD: Tensor) -> Tensor | None:
        """How much each caption asks of each expert (Q, M)."""
        if self.keep_missing_modalities:
            return None
        if self.freeze_weights:
            num_experts = len(self.expert_dims)
            return text_QD.new_full((len(text_QD), num_experts), 1 / num_experts)
        return F.softmax(self.moe_fc(text_QD), dim=1)  # (Q, M)

    def encode_video(self, experts: list[Tensor], availability_BM: Tensor) -> VideoEmbeddings:
        """Embed pooled experts, M times (B, D), zeros where `availability_BM` is 0."""
        embeddings = self.first_units(experts, availability_BM)
        return VideoEmbeddings(tuple(embeddings), availability_BM)

    def reported(
        self, text: TextEmbeddings, video: VideoEmbeddings, pooled: list[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """What `CENet.forward` reports of both sides: here the embeddings of each expert.

        Models of one joint embedding report the videos' experts as they went in (`pooled`).
        """
        return text.embeddings, video.embeddings

    def first_units(self, experts: list[Tensor], availability_BM: Tensor) -> list[Tensor]:
        """Apply to each expert its unit of `video_units`: M times (B, D)."""
        if skips_missing(self.training, availability_BM.device):
            return self.each_expert(self.video_units, experts, availability_BM)
        units = self.video_units
        return embed_together(units, self.project_video(experts, [unit.fc for unit in units]))

    def each_expert(
        self, layers: Iterable[nn.Module], experts: list[Tensor], availability_BM: Tensor
    ) -> list[Tensor]:
        """Apply to each expert the layer that it has: M times (B, D)."""
        if not skips_missing(self.training, availability_BM.device):
            return [layer(x_BD) for layer, x_BD in zip(layers, experts, strict=True)]
        of_experts = zip(layers, experts, availability_BM.unbind(dim=1), strict=True)
        return [once_for_missing(*of_expert) for of_expert in of_experts]


class SharedSizeModule(ExpertModule):
    """MoEE at CE's shared size (`mimic_ce_dims`): what CE is without its collaboration."""

    def build_video_side(self) -> None:
        self.video_dim_reduce = nn.ModuleList(
            ReduceDim(*sizes) for sizes in self.expert_dims.values()
        )
        self.video_GU = nn.ModuleList(ContextGatingUnit(size) for size in self.embedding_sizes)

    @property
    def video_units(self) -> Sequence[ReduceDim]:
        return cast("Sequence[ReduceDim]", self.video_dim_reduce)

    def encode_video(self, experts: list[Tensor], availability_BM: Tensor) -> VideoEmbeddings:
        reduced = self.first_units(experts, availability_BM)
        embeddings = self.each_expert(self.video_GU, reduced, availability_BM)
        return VideoEmbeddings(tuple(embeddings), availability_BM)


class ConcatMixModule(ExpertModule):
    """All experts concatenated into one large gated unit (`concat_mix_experts`)."""

    def build_video_side(self) -> None:
        unit = GatedEmbeddingUnit(sum(self.input_sizes), sum(self.embedding_sizes))
        self.video_GU = nn.ModuleList([unit])

    def build_text_side(self, text_size: int) -> None:
        unit = GatedEmbeddingUnit(text_size, sum(self.embedding_sizes))
        self.text_GU = nn.ModuleList([unit])

    def mixture_weights(self, text_QD: Tensor) -> None:
        return None

    def encode_video(self, experts: list[Tensor], availability_BM: Tensor) -> VideoEmbeddings:
        joined = [torch.cat(experts, dim=1)]
        [unit] = self.video_units
        [embedding] = embed_together([unit], self.project_video(joined, [unit.fc]))
        return VideoEmbeddings((embedding,), availability_BM)

    def reported(
        self, text: TextEmbeddings, video: VideoEmbeddings, pooled: list[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        return text.embeddings, pooled


class ConcatModule(ExpertModule):
    """Experts concatenated, no learned video side (`concat_experts`).

    The smaller side is padded with zeros to the size of the larger one. The published code leaves
    the padded video side empty when the text is the larger one; `zero_video` does the same.
    """

    def __init__(self, *args: Any, zero_video: bool = False, **kwargs: Any) -> None:
        self.zero_video = zero_video
        super().__init__(*args, **kwargs)

    def build_video_side(self) -> None:
        """Nothing is learned."""

    @property
    def video_units(self) -> Sequence[ReduceDim]:
        return ()

    def build_text_side(self, text_size: int) -> None:
        self.text_size = text_size
        self.joint_size = max(text_size, sum(self.input_sizes))
        self.text_is_larger = text_size > sum(self.input_sizes)

    def encode_text(self, text_QD: Tensor) -> TextEmbeddings:
        padded = F.pad(text_QD, (0, self.joint_size - text_QD.shape[1]))
        return TextEmbeddings((padded,), None)

    def encode_video(self, experts: list[Tensor], availability_BM: Tensor) -> VideoEmbeddings:
        joined = torch.cat(experts, dim=1)  # (B, sum of sizes)
        if self.zero_video and self.text_is_larger:
            joined = torch.zeros_like(joined)
        padded = F.pad(joined, (0, self.joint_size - joined.shape[1]))
        return VideoEmbeddings((padded,), availability_BM)

    def reported(
        self, text: TextEmbeddings, video: VideoEmbeddings, pooled: list[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        return [text.embeddings[0][:, : self.text_size]], pooled  # unpadded
