"""Collaborative gating: each expert is modulated by what the others say of it.

Liu et al., "Use What You Have: Video Retrieval Using Representations From Collaborative Experts"
(BMVC 2019, arXiv 1907.13487), section 3.2.

Axes: B videos, M experts, P partners (or pairs of partners) of an expert, D shared embedding size.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.expert_module import ExpertModule
from model.gating import GatedEmbeddingUnitReasoning, GroupedBatchNorm1d, ReduceDim
from model.similarity import VideoEmbeddings

# Keeps the mean over partners finite where an expert has none.
NO_PARTNER_EPSILON = 1e-11


class CollaborativeGating(ExpertModule):
    """What all kinds of collaborative gating share.

    Each expert is brought to the shared size. Then, one expert after the other: what the others say
    of it (`reason_about`), `num_h_layers` more layers, and the gate. A gated expert takes the place
    of the ungated one for those after it: the order of experts is part of the model.
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

    @property
    def shared_size(self) -> int:
        sizes = set(self.embedding_sizes)
        if len(sizes) != 1:
            raise ValueError(
                "Collaborative gating needs one embedding size shared by all experts, "
                f"found {sorted(sizes)}."
            )
        return sizes.pop()

    def build_video_side(self) -> None:
        size = self.shared_size
        self.video_dim_reduce = nn.ModuleList(
            ReduceDim(*sizes) for sizes in self.expert_dims.values()
        )
        self.build_first_layers()
        self.g_reason_shared = self._reasoning_layers(self.num_g_layers - 1)
        self.h_reason = self._reasoning_layers(self.num_h_layers)
        self.video_GU = nn.ModuleList(GatedEmbeddingUnitReasoning(size) for _ in self.expert_dims)

    def build_first_layers(self) -> None:
        """Build the layers that see an expert and its partners before the shared ones."""
        raise TypeError(f"{type(self).__name__} has no first layers of its own.")

    def activation(self) -> nn.Module:
        return nn.Mish() if self.use_mish else nn.ReLU()

    def _reasoning_layers(self, count: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(count):
            if self.use_bn_reason:
                layers.append(GroupedBatchNorm1d(self.shared_size))
            layers += [self.activation(), nn.Linear(self.shared_size, self.shared_size)]
        return nn.Sequential(*layers)

    def encode_video(self, experts: list[Tensor], availability_BM: Tensor) -> VideoEmbeddings:
        reduced = zip(self.video_dim_reduce, experts, strict=True)
        embeddings = [reduce(x) for reduce, x in reduced]  # M times (B, D)
        partners = self.prepare(embeddings, availability_BM)
        for i, gate in enumerate(self.video_GU):
            mask_BD = self.reason_about(i, embeddings[i], partners, availability_BM)
            mask_BD = self.h_reason(mask_BD.unsqueeze(1)).squeeze(1)
            embeddings[i] = gate(embeddings[i], mask_BD)
            if i + 1 < len(embeddings):
                self.replace(i, embeddings[i], partners)
        return VideoEmbeddings(tuple(embeddings), availability_BM)

    def prepare(self, embeddings: list[Tensor], availability_BM: Tensor) -> list[Tensor]:
        """Compute once what the experts, still ungated, bring to their partners."""
        return list(embeddings)

    def replace(self, i: int, gated_BD: Tensor, partners: list[Tensor]) -> None:
        """Let expert i, now gated, take its place among the partners of those after it."""

    def reason_about(
        self, i: int, x_BD: Tensor, partners: list[Tensor], availability_BM: Tensor
    ) -> Tensor:
        """What the others say of expert i: (B, D)."""
        raise TypeError(f"{type(self).__name__} does not say what partners say.")

    def partners_of(self, i: int) -> list[int]:
        return [j for j in range(len(self.expert_dims)) if self.include_self or j != i]


def mean_over_partners(reasons_BPD: Tensor, present_BP: Tensor) -> Tensor:
    """Mean (B, D) over the partners that are there; zeros where there is none."""
    total_BD = torch.einsum("bpd,bp->bd", reasons_BPD, present_BP)
    return total_BD / (present_BP.sum(dim=1, keepdim=True) + NO_PARTNER_EPSILON)


class PairwiseGating(CollaborativeGating):
    """CE: what is said of expert i is the mean over partners j of g([x_i, x_j]).

    Only pairs whose both experts are there count. All partners of an expert go through g as one
    batch. The shared BatchNorm layers still see one batch of B videos for each pair, in the order
    of the partners (`GroupedBatchNorm1d`), and the first layer W [x_i; x_j] is split into
    W_a x_i + W_b x_j, so that no pair is ever concatenated.
    """

    def build_first_layers(self) -> None:
        self.g_reason_1 = nn.Linear(2 * self.shared_size, self.shared_size)

    def prepare(self, embeddings: list[Tensor], availability_BM: Tensor) -> list[Tensor]:
        return [self._as_partner(x) for x in embeddings]

    def replace(self, i: int, gated_BD: Tensor, partners: list[Tensor]) -> None:
        partners[i] = self._as_partner(gated_BD)

    def _as_partner(self, x_BD: Tensor) -> Tensor:
        return F.linear(x_BD, self.g_reason_1.weight[:, self.shared_size :])

    def reason_about(
        self, i: int, x_BD: Tensor, partners: list[Tensor], availability_BM: Tensor
    ) -> Tensor:
        chosen = self.partners_of(i)
        if not chosen:
            return torch.zeros_like(x_BD)
        weight, bias = self.g_reason_1.weight[:, : self.shared_size], self.g_reason_1.bias
        pairs_BPD = F.linear(x_BD, weight, bias).unsqueeze(1) + torch.stack(
            [partners[j] for j in chosen], dim=1
        )
        both_BP = availability_BM[:, i : i + 1] * availability_BM[:, chosen]
        return mean_over_partners(self.g_reason_shared(pairs_BPD), both_BP)


class TripletGating(CollaborativeGating):
    """The mean over ordered pairs of partners (j, k) of g([x_i, x_j, x_k])."""

    def build_first_layers(self) -> None:
        self.g_reason_1 = nn.Linear(3 * self.shared_size, self.shared_size)

    def replace(self, i: int, gated_BD: Tensor, partners: list[Tensor]) -> None:
        partners[i] = gated_BD

    def reason_about(
        self, i: int, x_BD: Tensor, partners: list[Tensor], availability_BM: Tensor
    ) -> Tensor:
        chosen = self.partners_of(i)
        if not chosen:
            return torch.zeros_like(x_BD)
        first, second, third = self.g_reason_1.weight.chunk(3, dim=1)  # (D, D) each
        as_second = [F.linear(partners[j], second) for j in chosen]
        as_third = [F.linear(partners[j], third) for j in chosen]
        pairs = list(product(range(len(chosen)), repeat=2))
        triplets_BPD = F.linear(x_BD, first, self.g_reason_1.bias).unsqueeze(1) + torch.stack(
            [as_second[j] + as_third[k] for j, k in pairs], dim=1
        )
        there_BJ = availability_BM[:, chosen]
        both_BP = (there_BJ.unsqueeze(2) * there_BJ.unsqueeze(1)).flatten(1)
        all_BP = availability_BM[:, i : i + 1] * both_BP
        return mean_over_partners(self.g_reason_shared(triplets_BPD), all_BP)
