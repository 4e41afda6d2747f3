"""MNNet: the HowTo100M baseline. Captions and videos already lie in one space; nothing is learned.

Axes: B videos, C captions per video, D embedding size.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.similarity import (
    ExpertDims,
    RetrievalModel,
    TextEmbeddings,
    VideoEmbeddings,
)


class MNNet(RetrievalModel):
    """Inner products of given text and video embeddings (Miech et al. 2020, arXiv 1912.06430).

    Both come from the S3D network and the word model that were trained together on HowTo100M, 512
    numbers each. The one parameter stands for those of a model, so that the published configs,
    which train one epoch and test, run as any other; it has no influence on any output.

    Args:
        expert_dims: the one expert -> (size of its embedding, not used), as for `CENet`.
        text_dim: size of a caption's embedding, the same.
        task, test_caption_mode: as for `CENet`.
        without_effect: arguments of `CENet` that published configs of this model inherit.

    Raises:
        ValueError: there are several experts, or the sizes of the two sides differ.
    """

    def __init__(
        self,
        expert_dims: ExpertDims | Iterable[tuple[str, tuple[int, int]]],
        text_dim: int,
        task: str = "retrieval",
        test_caption_mode: str = "indep",
        **without_effect: Any,
    ) -> None:
        super().__init__(expert_dims, task, test_caption_mode)
        if len(self.expert_dims) != 1:
            raise ValueError(
                f"MNNet compares captions with one expert, not {len(self.expert_dims)}."
            )
        [(self.expert, (size, _))] = self.expert_dims.items()
        if size != text_dim:
            raise ValueError(
                f'MNNet needs text and video embeddings of one space, but "{self.expert}" has size '
                f"{size} and the text {text_dim}."
            )
        self.dummy_param = nn.Parameter(torch.zeros(1))

    def encode_text(self, text_BCTD: Tensor, num_tokens_BC: Tensor | None = None) -> TextEmbeddings:
        """Return captions (B, C, 1, D) as B * C queries."""
        tokens = text_BCTD.flatten(0, 1)  # (B C, T, D)
        if tokens.shape[1] != 1:
            raise ValueError(
                f"MNNet takes captions of one vector, not of {tokens.shape[1]} words: set "
                "experts.text_agg to avg."
            )
        return TextEmbeddings((tokens.squeeze(1),), None)

    def encode_video(
        self, experts: Mapping[str, Tensor], ind: Mapping[str, Tensor]
    ) -> VideoEmbeddings:
        """Return the videos (B, D); one whose expert is missing (NaN or zeros) is zeros."""
        x_BD = experts[self.expert]
        present_B = ind[self.expert].to(dtype=x_BD.dtype, device=x_BD.device)
        x_BD = torch.where(present_B.unsqueeze(1) > 0, x_BD, 0.0)
        return VideoEmbeddings((x_BD,), present_B.unsqueeze(1))

    def forward(
        self,
        experts: Mapping[str, Tensor],
        ind: Mapping[str, Tensor],
        text: Tensor | None = None,
        raw_captions: Any = None,
        text_token_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Compare all captions with all videos; arguments and result as those of `CENet`."""
        video_side = self.encode_video(experts, ind)
        if self.task == "compute_video_embeddings":
            [embedding] = video_side.embeddings
            return {"modalities": [self.expert], "embeddings": {self.expert: embedding}}
        if text is None:
            raise ValueError("The task retrieval needs captions.")
        num_videos, num_captions = text.shape[:2]
        text_side = self.encode_text(text)
        matrix = self.compare(text_side, video_side)  # (B C, B)
        if num_captions > 1 and (self.training or self.test_caption_mode == "avg"):
            matrix = matrix.view(num_videos, num_captions, -1).mean(dim=1)  # (B, B)
        if self.training:
            matrix = matrix + 0.0 * self.dummy_param  # a loss has to depend on some parameter
        [text_QD] = text_side.embeddings
        return {
            "modalities": [self.expert],
            "cross_view_conf_matrix": matrix,
            "text_embds": {self.expert: text_QD.unflatten(0, (num_videos, num_captions))},
            "vid_embds": {self.expert: video_side.embeddings[0]},
        }
