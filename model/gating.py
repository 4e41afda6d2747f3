"""Layers that turn one feature vector into an embedding: projection, context gating."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.batch_norm import BatchNorm1d, normalised_together
from model.fast import unit_length


class ContextGating(nn.Module):
    """`x * sigmoid(BN(W x))` (Miech et al., "Learnable pooling with context gating", 2017)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)
        self.batch_norm = BatchNorm1d(size)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.batch_norm(self.fc(x)))  # (B, D)


class GatedEmbeddingUnit(nn.Module):
    """Linear layer, context gating, L2 norm (Miech et al. 2018, arXiv 1804.02516, eq. 2-4)."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(input_size, output_size)
        self.cg = ContextGating(output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.fc(x))  # (B, D)

    def embed(self, x: Tensor) -> Tensor:
        """What follows the linear layer (B, D)."""
        return unit_length(self.cg(x), dim=-1)


class ContextGatingUnit(nn.Module):
    """Context gating and L2 norm of a vector that already has the shared size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.cg = ContextGating(size)

    def forward(self, x: Tensor) -> Tensor:
        return unit_length(self.cg(x), dim=-1)  # (B, D)


class ContextGatingReasoning(nn.Module):
    """`x * sigmoid(BN(mask) + BN2(W x))`: the other experts speak through `mask`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)
        self.batch_norm = BatchNorm1d(size)
        self.batch_norm2 = BatchNorm1d(size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        layers = self.batch_norm, self.batch_norm2
        of_others, own = normalised_together(layers, (mask, self.fc(x)))
        return x * torch.sigmoid(of_others + own)  # (B, D)


class GatedEmbeddingUnitReasoning(nn.Module):
    """Gate one expert by what the others say of it, then L2 norm (Liu et al. 2019, eq. 3-4)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.cg = ContextGatingReasoning(size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return unit_length(self.cg(x, mask), dim=-1)  # (B, D)


class ReduceDim(nn.Module):
    """Project an expert to the shared size, L2 norm."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(input_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.fc(x))  # (B, D)

    def embed(self, x: Tensor) -> Tensor:
        """What follows the linear layer (B, D)."""
        return unit_length(x, dim=-1)


def embed_together(
    units: Sequence[GatedEmbeddingUnit | ReduceDim], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Return `unit.embed(x)` of each unit; processes that share a batch exchange once for all."""
    gated = [unit.cg for unit in units if isinstance(unit, GatedEmbeddingUnit)]
    if not gated or gated[0].batch_norm.exchange is None:
        return [unit.embed(x) for unit, x in zip(units, inputs, strict=True)]
    inner = [gating.fc(x) for gating, x in zip(gated, inputs, strict=True)]
    gates = normalised_together([gating.batch_norm for gating in gated], inner)
    return [unit_length(x * g.sigmoid(), dim=-1) for x, g in zip(inputs, gates, strict=True)]
