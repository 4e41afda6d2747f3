"""Collaborative gating with one partner only: the mean of all experts that are there.

Cheaper than pairs, and compared with them in Liu et al. 2019 (arXiv 1907.13487). The mean is taken
once, before any expert is gated.

Axes: B videos, M experts, D shared embedding size, R size of a reduced embedding.
"""

import torch
from torch import Tensor, nn

from model.collaborative_gating import CollaborativeGating, mean_over_partners

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
