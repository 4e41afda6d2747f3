"""Batch normalisation by the statistics of a whole batch, also where several processes share it.

Axes: B rows of a batch (videos, captions or tokens), G batches at once, D features, P processes.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Exchange(Protocol):
    """How the processes that share a batch tell one another of it, all in the same order."""

    def gather(self, x: Tensor) -> Tensor:
        """Return x of every process, (P, *x.shape)."""

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of x over the processes."""


class BatchNorm1d(nn.BatchNorm1d):
    """As `nn.BatchNorm1d` of (B, D); where an `exchange` is set, of the rows of all processes.

    Attributes:
        exchange: None: the statistics are those of this process's own rows.
    """

    running_mean: Tensor  # none of them is ever None here
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float
    exchange: Exchange | None = None

    def forward(self, x_BD: Tensor) -> Tensor:
        if not self.training or (self.exchange is None and len(x_BD)):
            return super().forward(x_BD)
        if self.exchange is None:  # nothing to learn statistics from
            return self._by_running_statistics(x_BD)
        normalised, mean_D, variance_D = _by_all(
            x_BD, self.weight, self.bias, self.eps, self.exchange
        )
        self.take_in(mean_D, variance_D)
        return normalised

    @torch.no_grad()
    def take_in(self, mean_D: Tensor, variance_D: Tensor) -> None:
        """Let the statistics of a batch move the running ones."""
        self.running_mean.lerp_(mean_D, self.momentum)
        self.running_var.lerp_(variance_D, self.momentum)
        self.num_batches_tracked.add_(1)

    def _by_running_statistics(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, training=False, eps=self.eps)


def normalised_together(layers: Sequence[BatchNorm1d], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return `layer(x)` (B, D) of each layer and its input; the processes exchange them at once."""
    exchange, eps = layers[0].exchange, layers[0].eps
    if exchange is None or not layers[0].training:
        return [layer(x_BD) for layer, x_BD in zip(layers, inputs, strict=True)]
    sizes = [x_BD.shape[1] for x_BD in inputs]
    weight, bias = (
        torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias")
    )
    normalised, mean, variance = _by_all(
        torch.cat(list(inputs), dim=1), weight, bias, eps, exchange
    )
    for layer, mean_D, variance_D in zip(
        layers, mean.split(sizes), variance.split(sizes), strict=True
    ):
        layer.take_in(mean_D, variance_D)
    return list(normalised.split(sizes, dim=1))


class GroupedBatchNorm1d(BatchNorm1d):
    """BatchNorm1d that takes G batches at once and treats each as if it came alone, in order.

    Same parameters and buffers as `nn.BatchNorm1d`. Calling it on (B, G, D) gives what G calls on
    the (B, D) slices give one after the other: each group is normalised by its own mean and
    variance, and the running statistics are updated G times, group 0 first.
    """

    _shares_of: tuple[int, torch.device] | None = None  # how many groups, and where
    _shares_G: Tensor

    def forward(self, x_BGD: Tensor) -> Tensor:
        batch, groups, size = x_BGD.shape
        if not self.training or (self.exchange is None and not batch):
            flat = self._by_running_statistics(x_BGD.reshape(batch * groups, size))
            return flat.view(batch, groups, size)
        # As G * D channels.
        x, weight, bias = x_BGD.flatten(1), self.weight.repeat(groups), self.bias.repeat(groups)
        if self.exchange is not None:
            normalised, mean, variance = _by_all(x, weight, bias, self.eps, self.exchange)
        else:
            # Momentum 1 leaves this batch's own statistics in the two buffers.
            mean = torch.zeros(groups * size, device=x.device, dtype=self.running_mean.dtype)
            variance = torch.zeros_like(mean)
            normalised = F.batch_norm(
                x, mean, variance, weight, bias, training=True, momentum=1.0, eps=self.eps
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


def _normalised_by_all(
    x_BD: Tensor, weight_D: Tensor, bias_D: Tensor, eps: float, exchange: Exchange
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise the rows of this process by the statistics of all; any process may have none.

    Returns:
        The rows (B, D), and the mean and the unbiased variance (D,) of the rows of all processes.
    """
    with torch.autocast(x_BD.device.type, enabled=False):
        return _BatchNormOfAll.apply(x_BD, weight_D, bias_D, eps, exchange)


_by_all = _normalised_by_all


def exchange_eagerly() -> None:
    """Keep the exchange out of all that is compiled from now on (this loads the compiler)."""
    global _by_all
    _by_all = torch.compiler.disable(_normalised_by_all)


def _statistics(x_BD: Tensor, like_D: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (D,) of some rows; zeros of none."""
    if not len(x_BD):
        return torch.zeros_like(like_D), torch.zeros_like(like_D)
    if x_BD.device.type == "cpu":  # what batch normalisation itself uses, 20 times as fast there
        return torch.batch_norm_update_stats(x_BD, None, None, 0.0)
    variance_D, mean_D = torch.var_mean(x_BD, dim=0, correction=0)
    return mean_D, variance_D


class _BatchNormOfAll(torch.autograd.Function):
    """Count, mean and sum of squared deviations of each process, joined as by Chan et al. (1979).

    Squares of deviations from a mean are summed, never squares of values: those would lose all
    digits where the mean is large. The gradients of weight and bias are those of the own rows: what
    adds up gradients over the processes adds them up.
    """

    @staticmethod
    def forward(
        ctx: Any, x_BD: Tensor, weight_D: Tensor, bias_D: Tensor, eps: float, exchange: Exchange
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x_BD.to(weight_D.dtype)
        own_mean_D, own_variance_D = _statistics(x, weight_D)
        own_count = torch.full_like(weight_D[:1], len(x))
        facts_PF = exchange.gather(torch.cat([own_mean_D, own_variance_D, own_count]))
        size = x.shape[1]
        means_PD, variances_PD, counts_P1 = facts_PF.split((size, size, 1), dim=1)
        total = counts_P1.sum()
        shares_P1 = counts_P1 / total
        mean_D = (shares_P1 * means_PD).sum(dim=0)
        variance_D = (shares_P1 * (variances_PD + (means_PD - mean_D).square())).sum(dim=0)
        normalised = F.batch_norm(x, mean_D, variance_D, weight_D, bias_D, training=False, eps=eps)
        ctx.save_for_backward(x, weight_D, mean_D, (variance_D + eps).rsqrt(), total)
        ctx.exchange, ctx.dtype = exchange, x_BD.dtype
        unbiased_D = variance_D * (total / (total - 1))
        ctx.mark_non_differentiable(mean_D, unbiased_D)
        return normalised.to(x_BD.dtype), mean_D, unbiased_D

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BD: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_D, mean_D, scale_D, total = ctx.saved_tensors
        gradient_BD = gradient_BD.to(weight_D.dtype)
        standard_BD = (x - mean_D) * scale_D
        of_bias_D = gradient_BD.sum(dim=0)
        of_weight_D = (gradient_BD * standard_BD).sum(dim=0)
        of_x = None
        if ctx.needs_input_grad[0]:
            mean_D, slope_D = (ctx.exchange.sum(torch.cat([of_bias_D, of_weight_D])) / total).chunk(
                2
            )
            of_x = torch.addcmul(gradient_BD - mean_D, standard_BD, slope_D, value=-1)
            of_x = of_x.mul_(weight_D * scale_D).to(ctx.dtype)
        return of_x, of_weight_D, of_bias_D, None, None
