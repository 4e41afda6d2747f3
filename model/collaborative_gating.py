"""Collaborative gating: each expert is modulated by what the others say of it.

Liu et al., "Use What You Have: Video Retrieval Using Representations From Collaborative Experts"
(BMVC 2019, arXiv 1907.13487), section 3.2.

Axes: B videos, M experts, P partners (or pairs of partners) of an expert, D shared embedding size.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch_norm import GroupedBatchNorm1d
from model.expert_module import ExpertModule
from model.fast import Mish, skips_missing
from model.gating import GatedEmbeddingUnitReasoning, ReduceDim
from model.similarity import VideoEmbeddings

# Keeps the mean over partners finite where an expert has none.
NO_PARTNER_EPSILON = 1e-11


class CollaborativeGating(ExpertModule, ABC):
    """What all kinds of collaborative gating share.

    Each expert is brought to the shared size. Then, one expert after the other: what the others say
    of it (`reason_about`), `num_h_layers` more layers, and the gate. A gated expert takes the place
    of the ungated one for those after it: the order of experts is part of the model.
    """

    def __init__(
        self,
        *args: Any,
        include_self: bool = True,
        use_mish: bool = True,
        use_bn_reason: bool = True,
        num_g_layers: int = 3,
        num_h_layers: int = 0,
        **kwargs: Any,
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

    @property
    def video_units(self) -> Sequence[ReduceDim]:
        return cast("Sequence[ReduceDim]", self.video_dim_reduce)

    @abstractmethod
    def build_first_layers(self) -> None:
        """Build the layers that see an expert and its partners before the shared ones."""

    def activation(self) -> nn.Module:
        return Mish() if self.use_mish else nn.ReLU()

    def _reasoning_layers(self, count: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(count):
            if self.use_bn_reason:
                layers.append(GroupedBatchNorm1d(self.shared_size))
            layers += [self.activation(), nn.Linear(self.shared_size, self.shared_size)]
        return nn.Sequential(*layers)

    def encode_video(self, experts: list[Tensor], availability_BM: Tensor) -> VideoEmbeddings:
        embeddings = self.first_units(experts, availability_BM)
        partners = self.prepare(embeddings, availability_BM)
        for i, gate in enumerate(self.video_GU):
            mask_BD = self.reason_about(i, embeddings[i], partners, availability_BM)
            mask_BD = self.h_reason(mask_BD.unsqueeze(1)).squeeze(1)
            embeddings[i] = gate(embeddings[i], mask_BD)
            if i + 1 < len(embeddings):
                self.replace(i, embeddings[i], partners)
        return VideoEmbeddings(tuple(embeddings), availability_BM)

    def prepare(self, embeddings: list[Tensor], availability_BM: Tensor) -> Any:
        """Compute once what the experts, still ungated, bring to their partners."""
        return list(embeddings)

    def replace(self, i: int, gated_BD: Tensor, partners: Any) -> None:
        """Let expert i, now gated, take its place among the partners of those after it."""

    @abstractmethod
    def reason_about(self, i: int, x_BD: Tensor, partners: Any, availability_BM: Tensor) -> Tensor:
        """What the others say of expert i: (B, D)."""

    def partners_of(self, i: int) -> list[int]:
        return [j for j in range(len(self.expert_dims)) if self.include_self or j != i]


def columns(x_BM: Tensor, chosen: list[int]) -> Tensor:
    """`x_BM[:, chosen]` without a tensor of indices, which the host would have to send."""
    every = x_BM.unbind(dim=1)
    return torch.stack([every[j] for j in chosen], dim=1)


def mean_over_partners(x_BPD: Tensor, present_BP: Tensor) -> Tensor:
    """Mean (B, D) over the partners that are there; zeros where there is none."""
    total_BD = (present_BP.unsqueeze(1) @ x_BPD).squeeze(1)
    return total_BD / (present_BP.sum(dim=1, keepdim=True) + NO_PARTNER_EPSILON)


def mean_of_reasons(layers: nn.Sequential, pairs_BPD: Tensor, present_BP: Tensor) -> Tensor:
    """Mean (B, D) of `layers(pairs)` over the partners that are there; zeros where there is none.

    The last layer is linear. It is applied to the mean, once for each video instead of once for
    each partner; its bias counts where there is a partner.
    """
    if not len(layers):
        return mean_over_partners(pairs_BPD, present_BP)
    if skips_missing(layers.training, pairs_BPD.device):
        mean_BD = _mean_of_present(layers[:-1], pairs_BPD, present_BP)
    else:
        mean_BD = mean_over_partners(layers[:-1](pairs_BPD), present_BP)
    has_partner_B1 = present_BP.amax(dim=1, keepdim=True)
    last = cast("nn.Linear", layers[-1])
    return F.linear(mean_BD, last.weight) + last.bias * has_partner_B1


def _mean_of_present(layers: nn.Module, pairs_BPD: Tensor, present_BP: Tensor) -> Tensor:
    """`mean_over_partners(layers(pairs))` without computing what does not count in it."""
    video_N, partner_N = present_BP.nonzero(as_tuple=True)
    chosen_ND = layers(pairs_BPD[video_N, partner_N].unsqueeze(1)).squeeze(1)
    weighted_ND = chosen_ND * present_BP[video_N, partner_N].unsqueeze(1)
    total_BD = torch.zeros_like(pairs_BPD[:, 0]).index_add_(0, video_N, weighted_ND)
    return total_BD / (present_BP.sum(dim=1, keepdim=True) + NO_PARTNER_EPSILON)


@dataclass
class _Pairs:
    """The first layer's two halves, applied to each expert: W [x_i; x_j] = W_a x_i + W_b x_j."""

    second_weight: Tensor  # W_b (D, D)
    as_first: tuple[Tensor, ...]  # M times (B, D): W_a x_i and the bias
    as_second: list[Tensor]  # M times (B, D): W_b x_j


class PairwiseGating(CollaborativeGating):
    """CE: what is said of expert i is the mean over partners j of g([x_i, x_j]).

    Only pairs whose both experts are there count. All partners of an expert go through g as one
    batch. The shared BatchNorm layers still see one batch of B videos for each pair, in the order
    of the partners (`GroupedBatchNorm1d`), and the first layer is split (`_Pairs`), so that no pair
    is ever concatenated.
    """

    def build_first_layers(self) -> None:
        self.g_reason_1 = nn.Linear(2 * self.shared_size, self.shared_size)

    def prepare(self, embeddings: list[Tensor], availability_BM: Tensor) -> _Pairs:
        first, second = self.g_reason_1.weight.chunk(2, dim=1)
        x_MBD = torch.stack(embeddings)
        return _Pairs(
            second_weight=second,
            as_first=F.linear(x_MBD, first, self.g_reason_1.bias).unbind(),
            as_second=list(F.linear(x_MBD, second).unbind()),
        )

    def replace(self, i: int, gated_BD: Tensor, partners: _Pairs) -> None:
        partners.as_second[i] = F.linear(gated_BD, partners.second_weight)

    def reason_about(
        self, i: int, x_BD: Tensor, partners: _Pairs, availability_BM: Tensor
    ) -> Tensor:
        chosen = self.partners_of(i)
        if not chosen:
            return torch.zeros_like(x_BD)
        as_second_BPD = torch.stack([partners.as_second[j] for j in chosen], dim=1)
        pairs_BPD = partners.as_first[i].unsqueeze(1) + as_second_BPD
        both_BP = availability_BM[:, i : i + 1] * columns(availability_BM, chosen)
        return mean_of_reasons(self.g_reason_shared, pairs_BPD, both_BP)


class TripletGating(CollaborativeGating):
    """The mean over ordered pairs of partners (j, k) of g([x_i, x_j, x_k]).

    With `include_self` all pairs of experts, i itself and equal ones included; without, pairs of
    two different experts, both other than i.
    """

    def build_first_layers(self) -> None:
        self.g_reason_1 = nn.Linear(3 * self.shared_size, self.shared_size)

    def replace(self, i: int, gated_BD: Tensor, partners: list[Tensor]) -> None:
        partners[i] = gated_BD

    def reason_about(
        self, i: int, x_BD: Tensor, partners: list[Tensor], availability_BM: Tensor
    ) -> Tensor:
        chosen = self.partners_of(i)
        places = range(len(chosen))
        pairs = list(product(places, repeat=2) if self.include_self else permutations(places, 2))
        if not pairs:
            return torch.zeros_like(x_BD)
        first, second, third = self.g_reason_1.weight.chunk(3, dim=1)  # (D, D) each
        as_second = [F.linear(partners[j], second) for j in chosen]
        as_third = [F.linear(partners[j], third) for j in chosen]
        triplets_BPD = F.linear(x_BD, first, self.g_reason_1.bias).unsqueeze(1) + torch.stack(
            [as_second[j] + as_third[k] for j, k in pairs], dim=1
        )
        one_BP = columns(availability_BM, [chosen[j] for j, _ in pairs])
        other_BP = columns(availability_BM, [chosen[k] for _, k in pairs])
        all_BP = availability_BM[:, i : i + 1] * one_BP * other_BP
        return mean_of_reasons(self.g_reason_shared, triplets_BPD, all_BP)


TENSOR_SIZE = 64


class StarGating(CollaborativeGating):
    """g([x_i, mean of the available experts])."""

    def build_first_layers(self) -> None:
        self.g_reason_1 = nn.Linear(2 * self.shared_size, self.shared_size)

    def prepare(self, embeddings: list[Tensor], availability_BM: Tensor) -> list[Tensor]:
        return [mean_over_partners(torch.stack(embeddings, dim=1), availability_BM)]

    def reason_about(
        self, i: int, x_BD: Tensor, partners: list[Tensor], availability_BM: Tensor
    ) -> Tensor:
        reason_BD = self.first_layers(i, x_BD, partners[0])
        reason_BD = self.g_reason_shared(reason_BD.unsqueeze(1)).squeeze(1)
        return reason_BD * availability_BM[:, i : i + 1]

    def first_layers(self, i: int, x_BD: Tensor, star_BD: Tensor) -> Tensor:
        return self.g_reason_1(torch.cat([x_BD, star_BD], dim=1))


class SpecificLayers(nn.Module):
    """The two layers that `StarSpecificGating` has for each expert."""

    def __init__(self, size: int, activation: nn.Module) -> None:
        super().__init__()
        self.g_reason_1_specific = nn.Linear(2 * size, size)
        self.g_reason_2_specific = nn.Linear(size, size)
        self.activation = activation

    def forward(self, pair: Tensor) -> Tensor:
        return self.g_reason_2_specific(self.activation(self.g_reason_1_specific(pair)))  # (B, D)


class StarSpecificGating(StarGating):
    """As `StarGating`, with first layers of its own for each expert."""

    def build_first_layers(self) -> None:
        self.g_reason_unshared_weights = nn.ModuleList(
            SpecificLayers(self.shared_size, self.activation()) for _ in self.expert_dims
        )

    def first_layers(self, i: int, x_BD: Tensor, star_BD: Tensor) -> Tensor:
        return self.g_reason_unshared_weights[i](torch.cat([x_BD, star_BD], dim=1))


class StarTensorGating(StarGating):
    """As `StarGating`, on the outer product of both sides reduced to 64 dimensions."""

    def build_first_layers(self) -> None:
        self.dim_reduce = nn.Linear(self.shared_size, TENSOR_SIZE)
        self.g_reason_1 = nn.Linear(TENSOR_SIZE**2, self.shared_size)

    def first_layers(self, i: int, x_BD: Tensor, star_BD: Tensor) -> Tensor:
        x_BR, star_BR = self.dim_reduce(x_BD), self.dim_reduce(star_BD)
        return self.g_reason_1(torch.einsum("br,bs->brs", x_BR, star_BR).flatten(1))


# What `arch.args.use_ce` of a config may name; to add a gating is to add a row.
GATINGS: dict[str, type[CollaborativeGating]] = {
    "pairwise": PairwiseGating,
    "triplet": TripletGating,
    "pairwise-star": StarGating,
    "pairwise-star-specific": StarSpecificGating,
    "pairwise-star-tensor": StarTensorGating,
}
