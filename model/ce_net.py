"""CENet: text-video retrieval with collaborative experts (CE), or without collaboration (MoEE).

Axes: B videos, C captions per video, T tokens, M experts, D feature or embedding size.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.collaborative_gating import GATINGS
from model.expert_module import ConcatMixModule, ConcatModule, ExpertModule, SharedSizeModule
from model.fast import once_for_missing, side_by_side, skips_missing
from model.net_vlad import NetVLAD
from model.similarity import (
    ExpertDims,
    RetrievalModel,
    TextEmbeddings,
    VideoEmbeddings,
)

# Arguments in published configs that serve paths no published result uses. Accepted, no effect.
_WITHOUT_EFFECT = {"trn_config", "trn_cat", "num_classes", "disable_nan_checks", "ce_shared_dim"}


class CENet(RetrievalModel):
    """Joint embedding of captions and videos over pre-extracted experts.

    Args:
        expert_dims: expert name -> (size of the pooled feature, size of its embedding), as a
            mapping or as ordered pairs. The order fixes the order of parameters and of gating.
            A variable-length expert's pooled size is clusters * feature size; the embedding sizes
            of CE are all the shared size.
        text_dim: size of one word's feature.
        vlad_clusters: NetVLAD clusters by expert name, and for "text" (0: captions come as one
            vector).
        ghost_clusters: ghost clusters; only those of "text" take effect, as published.
        feat_aggregation: expert name -> settings; `temporal: vlad` marks a variable-length expert.
        use_ce: "" (MoEE) or the name of a collaborative gating.
        task: "retrieval", or "compute_video_embeddings" to get the video side alone.
        test_caption_mode: "indep" (each caption a query) or "avg" (mean over a video's captions;
            training does that too when C > 1).
        randomise_feats: comma-separated experts to replace by noise (an ablation).
        vlad_mask_padding: leave zero padding out of NetVLAD (the published model does not).
        concat_zero_video: repeat a fault of the published concat baseline (see `ConcatModule`).

    Raises:
        ValueError: sizes or names do not fit together, or a kind of model is not known.
    """

    def __init__(
        self,
        expert_dims: ExpertDims | Iterable[tuple[str, tuple[int, int]]],
        text_dim: int,
        vlad_clusters: Mapping[str, int],
        ghost_clusters: Mapping[str, int] | None = None,
        feat_aggregation: Mapping[str, Mapping[str, Any]] | None = None,
        use_ce: str = "",
        task: str = "retrieval",
        test_caption_mode: str = "indep",
        randomise_feats: str = "",
        vlad_mask_padding: bool = False,
        l2renorm: bool = False,
        **module_args: Any,
    ) -> None:
        super().__init__(expert_dims, task, test_caption_mode)
        if l2renorm:
            raise ValueError("l2renorm is true, but no published result uses it: set it to false.")
        if not self.expert_dims:
            raise ValueError("The model needs at least one expert.")
        self.randomised = [name for name in randomise_feats.split(",") if name]
        unknown = set(self.randomised) - set(self.expert_dims)
        if unknown:
            raise ValueError(f"randomise_feats names {sorted(unknown)}, not experts of this model.")

        self.pooling = self._expert_pooling(
            vlad_clusters, feat_aggregation or {}, vlad_mask_padding
        )
        text_clusters = vlad_clusters.get("text", 0)
        self.text_pooling: NetVLAD | None = None
        if task == "retrieval" and text_clusters:
            ghosts = (ghost_clusters or {}).get("text", 0)
            self.text_pooling = NetVLAD(text_clusters, text_dim, ghosts, vlad_mask_padding)
        text_size = self.text_pooling.output_size if self.text_pooling else text_dim
        self.ce = build_expert_module(
            self.expert_dims, text_size if task == "retrieval" else None, use_ce, **module_args
        )

    def _expert_pooling(
        self,
        vlad_clusters: Mapping[str, int],
        feat_aggregation: Mapping[str, Mapping[str, Any]],
        mask_padding: bool,
    ) -> nn.ModuleDict:
        pooling = nn.ModuleDict()
        for name, clusters in vlad_clusters.items():
            if name not in self.expert_dims:
                continue
            if feat_aggregation.get(name, {}).get("temporal") != "vlad":
                continue
            pooled_size = self.expert_dims[name][0]
            if clusters < 1 or pooled_size % clusters:
                raise ValueError(
                    f'Expert "{name}": pooled size {pooled_size} is not a multiple of its '
                    f"{clusters} NetVLAD clusters."
                )
            pooling[_module_name(name)] = NetVLAD(
                clusters, pooled_size // clusters, mask_padding=mask_padding
            )
        return pooling

    def encode_text(self, text_BCTD: Tensor, num_tokens_BC: Tensor | None = None) -> TextEmbeddings:
        """Embed captions (B, C, T, D): B * C queries, the captions of one video in a row.

        `num_tokens_BC` (B, C) says how many of the T tokens are words; it matters only with
        `vlad_mask_padding`. Padding that lacks is added (see `RetrievalModel.encode_text`).
        """
        tokens = text_BCTD.flatten(0, 1)  # (B C, T, D)
        if self.text_pooling is not None:
            num_tokens = tokens.new_full(tokens.shape[:1], tokens.shape[1])
            if num_tokens_BC is not None:
                num_tokens = num_tokens_BC.flatten()
            pooled_QD = self.text_pooling(self._padded(tokens), num_tokens)
        elif tokens.shape[1] != 1:
            raise ValueError(
                f"Captions of {tokens.shape[1]} tokens need text NetVLAD (vlad_clusters.text > 0) "
                "or text_agg avg."
            )
        else:
            pooled_QD = tokens.squeeze(1)
        if self.dropout is not None:
            pooled_QD = self.dropout("text", pooled_QD)
        return self.ce.encode_text(pooled_QD)

    def _padded(self, tokens_QTD: Tensor) -> Tensor:
        lacking = 0 if self.text_tokens is None else self.text_tokens - tokens_QTD.shape[1]
        if lacking < 0:
            raise ValueError(
                f"Captions of {tokens_QTD.shape[1]} tokens were given to a model of "
                f"{self.text_tokens}: cut them as its training did."
            )
        return functional.pad(tokens_QTD, (0, 0, 0, lacking)) if lacking else tokens_QTD

    def pool_experts(
        self, experts: Mapping[str, Tensor], ind: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Bring every expert to one vector per video.

        Args:
            experts: expert name -> (B, D), or (B, T, D) for variable length. What stands in the
                rows of missing experts does not matter (zeros or NaN).
            ind: expert name -> (B,), 1 where the expert is there.

        Returns:
            M pooled experts (B, D), and availability (B, M), both in the model's order.
        """
        pooled = []
        availability = []
        for name in self.expert_dims:
            x = experts[name]
            if name in self.randomised:
                x = torch.randn_like(x)
            present_B = ind[name].to(dtype=x.dtype, device=x.device)
            is_there = present_B.view(-1, *[1] * (x.dim() - 1)) > 0
            x = torch.where(is_there, x, 0.0)
            if _module_name(name) in self.pooling:
                pool = self.pooling[_module_name(name)]
                skips = skips_missing(self.training, x.device)
                x = once_for_missing(pool, x, present_B) if skips else pool(x)  # (B, D K)
            pooled.append(x if self.dropout is None else self.dropout(name, x))
            availability.append(present_B)
        return pooled, torch.stack(availability, dim=1)

    def encode_video(
        self, experts: Mapping[str, Tensor], ind: Mapping[str, Tensor]
    ) -> VideoEmbeddings:
        """Embed B videos; arguments as in `pool_experts`."""
        return self.ce.encode_video(*self.pool_experts(experts, ind))

    def forward(
        self,
        experts: Mapping[str, Tensor],
        ind: Mapping[str, Tensor],
        text: Tensor | None = None,
        raw_captions: Any = None,
        text_token_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Embed both sides and compare all captions with all videos.

        Args:
            experts, ind: as in `pool_experts`.
            text: captions (B, C, T, D).
            raw_captions: not used; here for callers of the published model.
            text_token_mask: number of words of each caption (B, C).

        Returns:
            `modalities` (names of the experts), `cross_view_conf_matrix` (Q, B), with Q = B * C, or
            Q = B where captions are averaged; `text_embds` name -> (B, C, D) and `vid_embds`
            name -> (B, D). For `compute_video_embeddings`: `modalities` and `embeddings`.
        """
        names = list(self.expert_dims)
        if self.task == "compute_video_embeddings":
            embeddings = dict(zip(names, self.encode_video(experts, ind).embeddings, strict=True))
            return {"modalities": names, "embeddings": embeddings}
        if text is None:
            raise ValueError("The task retrieval needs captions.")
        num_videos, num_captions = text.shape[:2]

        def of_videos() -> tuple[list[Tensor], VideoEmbeddings]:
            pooled, availability = self.pool_experts(experts, ind)
            return pooled, self.ce.encode_video(pooled, availability)

        text_side, (pooled, video_side) = side_by_side(
            lambda: self.encode_text(text, text_token_mask),
            of_videos,
            text.device,
            in_turn=self.gather is not None,
        )
        matrix = self.compare(text_side, video_side)  # (B C, B)
        if num_captions > 1 and (self.training or self.test_caption_mode == "avg"):
            matrix = matrix.view(num_videos, num_captions, -1).mean(dim=1)  # (B, B)
        text_embeddings, video_embeddings = self.ce.reported(text_side, video_side, pooled)
        return {
            "modalities": names,
            "cross_view_conf_matrix": matrix,
            "text_embds": {
                name: embedding.unflatten(0, (num_videos, num_captions))
                for name, embedding in zip(names, text_embeddings, strict=False)
            },
            "vid_embds": dict(zip(names, video_embeddings, strict=True)),
        }


def build_expert_module(
    expert_dims: ExpertDims,
    text_size: int | None,
    use_ce: str,
    *,
    include_self: bool | int = 1,
    use_mish: bool | int = 1,
    use_bn_reason: bool | int = 1,
    num_g_layers: int = 3,
    num_h_layers: int = 0,
    mimic_ce_dims: bool | int = 0,
    freeze_weights: bool = False,
    keep_missing_modalities: bool = False,
    concat_experts: bool = False,
    concat_mix_experts: bool = False,
    concat_zero_video: bool = False,
    **without_effect: Any,
) -> ExpertModule:
    """Choose the kind of model that the arguments describe; `text_size` None: no text side."""
    unknown = set(without_effect) - _WITHOUT_EFFECT
    if unknown:
        raise ValueError(f"CENet does not know the argument {sorted(unknown)[0]}.")
    shared: dict[str, Any] = {
        "expert_dims": expert_dims,
        "text_size": text_size,
        "freeze_weights": freeze_weights,
        "keep_missing_modalities": keep_missing_modalities,
    }
    if concat_experts:
        return ConcatModule(**shared, zero_video=concat_zero_video)
    if concat_mix_experts:
        return ConcatMixModule(**shared)
    if use_ce == "":
        return SharedSizeModule(**shared) if mimic_ce_dims else ExpertModule(**shared)
    if use_ce not in GATINGS:
        known = ", ".join(f'"{name}"' for name in GATINGS)
        raise ValueError(f'use_ce "{use_ce}" is not known; it may be "" (MoEE), {known}.')
    return GATINGS[use_ce](
        **shared,
        include_self=bool(include_self),
        use_mish=bool(use_mish),
        use_bn_reason=bool(use_bn_reason),
        num_g_layers=num_g_layers,
        num_h_layers=num_h_layers,
    )


def _module_name(expert: str) -> str:
    # Attribute names of modules cannot hold dots.
    return expert.replace(".", "_")
