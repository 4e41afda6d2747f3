"""What torch does too, done faster on the CPU; to be deleted when torch catches up."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# From here on mish(x) is x in float32, and exp(2 x) still far from its largest number.
_LINEAR_FROM = 20.0


class Mish(nn.Module):
    """As `nn.Mish`; numbers may differ from it in the last digit."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
            return F.mish(x)
        return _MishByOneExponential.apply(x)


class _MishByOneExponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gate(x.clamp(max=_LINEAR_FROM).exp_()).mul_(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        e = x.clamp(max=_LINEAR_FROM).exp_()
        gate = _gate(e)  # t; the derivative is t + x (1 - t^2) sigmoid(x)
        slope = gate.square().neg_().add_(1).mul_(x)
        sigmoid = torch.div(e, e + 1)
        return gate.addcmul_(slope, sigmoid).mul_(gradient)


def _gate(e: Tensor) -> Tensor:
    """tanh(softplus(x)) of e = exp(x)."""
    n = e.add(2).mul_(e)
    return n.div_(n + 2)


# As in `F.normalize`: shorter vectors are divided by it.
_SHORTEST = 1e-12


def unit_length(x: Tensor, dim: int) -> Tensor:
    """Return x divided by its L2 norm along a dimension, as `F.normalize` does.

    On the CPU the gradient, (g - y <g, y>) / |x| of y = x / |x|, is computed as it stands here;
    the general way divides three times as much.
    """
    is_special = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    if x.device.type != "cpu" or is_special:
        return F.normalize(x, dim=dim)
    return _UnitLength.apply(x, dim)


class _UnitLength(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_(min=_SHORTEST)
        y = x / norm
        ctx.save_for_backward(y, norm)
        ctx.dim = dim
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        y, norm = ctx.saved_tensors
        along = (gradient * y).sum(dim=ctx.dim, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).div_(norm), None


# The input's gradient is made this many columns at a time, from all layers, while they are in the
# cache: a tenth less of the time of all three products of MSRVTT's text units on the CPU.
_COLUMNS = 1536


def fan_out(x_BD: Tensor, layers: Iterable[nn.Linear]) -> list[Tensor]:
    """Return `layer(x)` of each layer; all have a bias and may differ in output size.

    On the CPU the gradient of x is summed up in place, where the general way makes one of x's size
    for each layer.
    """
    layers = list(layers)
    x_is_plain = x_BD.device.type == "cpu" and x_BD.dtype == layers[0].weight.dtype
    is_special = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    if not x_is_plain or is_special or not torch.is_grad_enabled():
        return [layer(x_BD) for layer in layers]
    parameters = (parameter for layer in layers for parameter in (layer.weight, layer.bias))
    return list(_FanOut.apply(x_BD, *parameters))


class _FanOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, *weights_and_biases: Tensor) -> tuple[Tensor, ...]:
        weights, biases = weights_and_biases[::2], weights_and_biases[1::2]
        ctx.save_for_backward(x_BD, *weights)
        return tuple(torch.addmm(b, x_BD, w.t()) for w, b in zip(weights, biases, strict=True))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BD, *weights = ctx.saved_tensors
        of_x = _of_input(x_BD, gradients, weights) if ctx.needs_input_grad[0] else None
        of_parameters: list[Tensor | None] = []
        for i, gradient in enumerate(gradients):
            of_weight, of_bias = ctx.needs_input_grad[1 + 2 * i : 3 + 2 * i]
            of_parameters.append(gradient.t() @ x_BD if of_weight else None)
            of_parameters.append(gradient.sum(dim=0) if of_bias else None)
        return of_x, *of_parameters


def _of_input(x_BD: Tensor, gradients: tuple[Tensor, ...], weights: list[Tensor]) -> Tensor:
    result_BD = torch.zeros_like(x_BD)
    for start in range(0, x_BD.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        part = result_BD[:, columns]
        for gradient, weight in zip(gradients, weights, strict=True):
            torch.addmm(part, gradient, weight[:, columns], out=part)
    return result_BD


def skips_missing(training: bool, device: torch.device) -> bool:
    """Whether missing experts are left out: not in training, and only on the CPU.

    In training every row counts for the statistics of a batch; on a GPU the host would have to
    wait for the number of rows.
    """
    return not training and device.type == "cpu"


def once_for_missing(layer: Callable[[Tensor], Tensor], x_BD: Tensor, present_B: Tensor) -> Tensor:
    """Return `layer(x)` (B, ...) of a layer that takes one row of x (B, ...) like the other.

    The rows of x without the expert are all the same: one of them is computed for all.
    """
    is_there = present_B > 0
    missing = (~is_there).nonzero().squeeze(1)
    if len(missing) < 2:
        return layer(x_BD)
    rows = torch.cat([is_there.nonzero().squeeze(1), missing[:1]])
    place_B = torch.where(is_there, is_there.cumsum(0) - 1, len(rows) - 1)
    return layer(x_BD[rows])[place_B]
