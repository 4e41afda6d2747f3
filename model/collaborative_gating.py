"""Collaborative gating: each expert is modulated by what the others say of it.

Liu et al., "Use What You Have: Video Retrieval Using Representations From Collaborative Experts"
(BMVC 2019, arXiv 1907.13487), section 3.2.

Axes: B videos, M experts, P partners of an expert, D shared embedding size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.expert_module import ExpertModule
from model.gating import GatedEmbeddingUnitReasoning, GroupedBatchNorm1d, ReduceDim
from model.similarity import VideoEmbeddings

# Keeps the mean over partners finite where an expert has none.
_NO_PARTNER_EPSILON = 1e-11


class PairwiseGating(ExpertModule):
    """CE: gate each expert by the pairs that it forms with the others.

    For expert i and each partner j: g([x_i, x_j]), averaged over the partners for which both are
    there, then h, then the gate. Experts are gated one after the other, and the gated expert takes
    the place of the ungated one for those after it: the order of experts is part of the model.

    All partners of one expert go through g as one batch. The shared BatchNorm layers still see one
    batch of B videos for each pair, in the order of the partners (`GroupedBatchNorm1d`), and the
    first layer W [x_i; x_j] is split into W_a x_i + W_b x_j, so that no pair is ever concatenated.
    """

    def __init__(
        self,
        *args,
        include_self: bool = True,
        use_mish: bool = True,
        use_bn_reason: bool = True,
        num_g_layers: int = 3,
        num_h_layers: int = 0,
        **kwargs,
    ) -> None:
        self.include_self = include_self
        self.use_mish = use_mish
        self.use_bn_reason = use_bn_reason
        self.num_g_layers = num_g_layers
        self.num_h_layers = num_h_layers
        super().__init__(*args, **kwargs)

    def build_video_side(self) -> None:
        size = self.shared_size
        self.video_dim_reduce = nn.ModuleList(
            ReduceDim(*sizes) for sizes in self.expert_dims.values()
        )
        self.g_reason_1 = nn.Linear(2 * size, size)
        self.g_reason_shared = self._reasoning_layers(self.num_g_layers - 1)
        self.h_reason = self._reasoning_layers(self.num_h_layers)
        self.video_GU = nn.ModuleList(GatedEmbeddingUnitReasoning(size) for _ in self.expert_dims)

    @property
    def shared_size(self) -> int:
        sizes = set(self.embedding_sizes)
        if len(sizes) != 1:
            raise ValueError(
                "Collaborative gating needs one embedding size shared by all experts, "
                f"found {sorted(sizes)}."
            )
        return sizes.pop()

    def _reasoning_layers(self, count: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(count):
            if self.use_bn_reason:
                layers.append(GroupedBatchNorm1d(self.shared_size))
            layers.append(nn.Mish() if self.use_mish else nn.ReLU())
            layers.append(nn.Linear(self.shared_size, self.shared_size))
        return nn.Sequential(*layers)

    def encode_video(self, experts: list[Tensor], availability_BM: Tensor) -> VideoEmbeddings:
        reduced = zip(self.video_dim_reduce, experts, strict=True)
        embeddings = [reduce(x) for reduce, x in reduced]  # M times (B, D)
        weight_self, weight_partner = self.g_reason_1.weight.chunk(2, dim=1)  # (D, D) each
        as_partner = [F.linear(x, weight_partner) for x in embeddings]  # M times (B, D)
        num_experts = len(embeddings)
        for i in range(num_experts):
            partners = [j for j in range(num_experts) if self.include_self or j != i]
            mask_BD = embeddings[i].new_zeros(embeddings[i].shape)
            if partners:
                as_self = F.linear(embeddings[i], weight_self, self.g_reason_1.bias)
                pairs_BPD = as_self.unsqueeze(1) + torch.stack(
                    [as_partner[j] for j in partners], dim=1
                )
                both_BP = availability_BM[:, i : i + 1] * availability_BM[:, partners]
                mask_BD = self._mean_over_partners(self.g_reason_shared(pairs_BPD), both_BP)
            mask_BD = self.h_reason(mask_BD.unsqueeze(1)).squeeze(1)
            embeddings[i] = self.video_GU[i](embeddings[i], mask_BD)
            if i + 1 < num_experts:
                as_partner[i] = F.linear(embeddings[i], weight_partner)
        return VideoEmbeddings(tuple(embeddings), availability_BM)

    @staticmethod
    def _mean_over_partners(reasons_BPD: Tensor, both_BP: Tensor) -> Tensor:
        total_BD = torch.einsum("bpd,bp->bd", reasons_BPD, both_BP)
        return total_BD / (both_BP.sum(dim=1, keepdim=True) + _NO_PARTNER_EPSILON)
