"""Layers that turn one feature vector into an embedding: projection, context gating, BatchNorm."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fast import unit_length


class ContextGating(nn.Module):
    """`x * sigmoid(BN(W x))` (Miech et al., "Learnable pooling with context gating", 2017)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)
        self.batch_norm = nn.BatchNorm1d(size)

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
        self.batch_norm = nn.BatchNorm1d(size)
        self.batch_norm2 = nn.BatchNorm1d(size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * torch.sigmoid(self.batch_norm(mask) + self.batch_norm2(self.fc(x)))  # (B, D)


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
        return unit_length(self.fc(x), dim=-1)  # (B, D)


class GroupedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm1d that takes G batches at once and treats each as if it came alone, in order.

    Same parameters and buffers as `nn.BatchNorm1d`. Calling it on (B, G, D) gives what G calls on
    the (B, D) slices give one after the other: each group is normalised by its own mean and
    variance, and the running statistics are updated G times, group 0 first.
    """

    running_mean: Tensor  # none of them is ever None here
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float
    _shares_of: tuple[int, torch.device] | None = None  # how many groups, and where
    _shares_G: Tensor

    def forward(self, x_BGD: Tensor) -> Tensor:
        batch, groups, size = x_BGD.shape
        if not self.training:
            return super().forward(x_BGD.reshape(-1, size)).view(batch, groups, size)
        # As G * D channels; momentum 1 leaves this batch's own statistics in the two buffers.
        mean = torch.zeros(groups * size, device=x_BGD.device, dtype=self.running_mean.dtype)
        variance = torch.zeros_like(mean)
        normalised = F.batch_norm(
            x_BGD.reshape(batch, groups * size),
            mean,
            variance,
            self.weight.repeat(groups),
            self.bias.repeat(groups),
            training=True,
            momentum=1.0,
            eps=self.eps,
        )
        self._update_running_statistics(mean.view(groups, size), variance.view(groups, size))
        return normalised.view(batch, groups, size)

    @torch.no_grad()
    def _update_running_statistics(self, mean_GD: Tensor, variance_GD: Tensor) -> None:
        groups = len(mean_GD)
        kept = (1 - self.momentum) ** groups
        shares_G = self._shares(groups, mean_GD.device)
        self.running_mean.addmv_(mean_GD.t(), shares_G, beta=kept)
        self.running_var.addmv_(variance_GD.t(), shares_G, beta=kept)
        self.num_batches_tracked.add_(groups)

    def _shares(self, groups: int, device: torch.device) -> Tensor:
        """What each group counts in the running statistics, (G,): made once, not in each step."""
        if self._shares_of == (groups, device):
            return self._shares_G
        age_G = torch.arange(groups - 1, -1, -1, device=device, dtype=self.running_mean.dtype)
        shares_G = self.momentum * (1 - self.momentum) ** age_G
        if not torch.compiler.is_compiling():
            self._shares_of, self._shares_G = (groups, device), shares_G
        return shares_G
