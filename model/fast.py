"""What torch does too, done faster on the CPU; to be deleted when torch catches up."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch_norm import exchange_eagerly

_log = logging.getLogger(__name__)

_First = TypeVar("_First")
_Second = TypeVar("_Second")

# Who multiplies matrices of float32 on the CPU: the library that torch takes (MKL in its wheels),
# or oneDNN, which the wheels bring as well.
TORCH, ONEDNN = "torch", "onednn"
# MKL has instructions of 512 bits for Intel's processors only: from this family on (Zen 5), AMD's
# work on 512 bits at once, and oneDNN reaches twice the speed there. Of those before, and with
# AVX2, both libraries reach the same.
_CPU_FACTS = Path("/proc/cpuinfo")
_AMD, _FAMILY_OF_512_BITS = "AuthenticAMD", 26
# Weights of fewer values are multiplied as quickly by MKL, which begins sooner.
_LARGE_WEIGHT = 2**14


def choose_products(net: nn.Module, recorded: object = None) -> str:
    """Choose who multiplies the matrices of a model; the same for it on each such processor.

    Args:
        net: the model, on its device.
        recorded: the choice with which it was trained, which is kept: numbers stay the same bit
            for bit. None: there is none.
    """
    weights = [p for p in net.parameters() if p.dim() == 2]
    if any(w.device.type != "cpu" for w in weights):
        return TORCH
    if recorded == ONEDNN and not onednn_is_exact():
        _log.warning(
            "This training multiplied matrices with oneDNN, which does not compute in float32 on "
            "this processor: MKL takes its place, and numbers may differ in their last digits."
        )
        return TORCH
    if recorded in (TORCH, ONEDNN):
        return str(recorded)
    in_large = sum(w.numel() for w in weights if w.numel() >= _LARGE_WEIGHT)
    is_large = 2 * in_large > sum(w.numel() for w in weights)
    return ONEDNN if is_large and _onednn_is_faster() and onednn_is_exact() else TORCH


@contextmanager
def products_by(kernel: str) -> Iterator[None]:
    """Context in which `kernel` (of `choose_products`) multiplies matrices of float32."""
    if kernel != ONEDNN:
        yield
        return
    settings = _settings()
    before = settings.fp32_precision
    # Torch hands products to oneDNN where it may round to bfloat16, which this processor's kernel
    # does not do: `onednn_is_exact` has seen to that.
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def float32_product(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b` in float32, forward and backward, also where a GPU may round to tf32."""
    if not torch.backends.cuda.matmul.allow_tf32:
        return a @ b
    return _eager_product(a, b)


def compile_model(net: Any, in_one_piece: bool = True) -> None:
    """Let torch compile a model's forward and backward pass (this loads the compiler).

    It compiles for the size of the first batch. One of another size, as the last of an epoch, would
    take as long to compile as all others together: it goes through the model as without compiling.

    Args:
        net: the model.
        in_one_piece: whether nothing interrupts a pass, as the exchange of several processes does.
    """
    global _eager_product
    # Compiled, the setting of the product would be that of the whole graph.
    _eager_product = torch.compiler.disable(_Float32Product.apply)
    if not in_one_piece:
        exchange_eagerly()
        net.compare = torch.compiler.disable(net.compare)
    net.compile(dynamic=False)
    compiled = net._compiled_call_impl
    stance = "default"

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal stance
        with torch.compiler.set_stance(stance):
            stance = "eager_on_recompile"
            return compiled(*args, **kwargs)

    net._compiled_call_impl = call


def side_by_side(
    first: Callable[[], _First],
    second: Callable[[], _Second],
    device: torch.device,
    in_turn: bool = False,
) -> tuple[_First, _Second]:
    """Return what two functions give that do not need one another.

    Where a graph of a GPU's kernels is being made, those of the two, and of their gradients, become
    branches of it that run at the same time: most are too small to keep a GPU busy. But `in_turn`
    where processes exchange something in both, which all have to do in one order.
    """
    is_eager = device.type != "cuda" or torch.compiler.is_compiling()
    if is_eager or in_turn or not torch.cuda.is_current_stream_capturing():
        return first(), second()
    main, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(main)
    with torch.cuda.stream(side):
        of_first = first()
    of_second = second()
    main.wait_stream(side)
    return of_first, of_second


@contextmanager
def rounding_to_tf32(is_allowed: bool) -> Iterator[None]:
    """Context in which a GPU may, or may not, round the inputs of float32 products to tf32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = is_allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class _Float32Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with rounding_to_tf32(False):
            return a @ b

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        with rounding_to_tf32(False):
            of_a = gradient @ b.t() if ctx.needs_input_grad[0] else None
            of_b = a.t() @ gradient if ctx.needs_input_grad[1] else None
        return of_a, of_b


_eager_product: Callable[[Tensor, Tensor], Tensor] = _Float32Product.apply


def _settings() -> Any:
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made at run time


def _by_onednn(dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16 or _settings().fp32_precision == "bf16"


@cache
def _onednn_is_faster() -> bool:
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    try:
        lines = _CPU_FACTS.read_text().partition("\n\n")[0].splitlines()
        facts = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        return facts["vendor_id"] == _AMD and int(facts["cpu family"]) >= _FAMILY_OF_512_BITS
    except (OSError, KeyError, ValueError):
        return False  # another system, or another kind of processor


@cache
def onednn_is_exact() -> bool:
    """Whether oneDNN multiplies in float32: a processor with AMX would round to bfloat16."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    fine = 1 + 2.0**-20  # float32 tells it from 1, bfloat16 does not
    with products_by(ONEDNN), torch.inference_mode():
        for rows, size in ((64, 64), (512, 768)):
            x = torch.full((rows, size), fine)
            one = torch.eye(size)
            if not (torch.equal(x @ one, x) and torch.equal(F.linear(x, one, x[0]), x + x)):
                return False
    return True


# From here on mish(x) is x in float32, and exp(2 x) still far from its largest number.
_LINEAR_FROM = 20.0


class Mish(nn.Module):
    """As `nn.Mish`; numbers may differ from it in the last digit."""

    def forward(self, x: Tensor) -> Tensor:
        is_known = x.dtype in (torch.float32, torch.bfloat16)
        if x.device.type != "cpu" or not is_known or torch.compiler.is_compiling():
            return F.mish(x)
        return _MishByOneExponential.apply(x)


class _MishByOneExponential(torch.autograd.Function):
    """x tanh(softplus(x)) = x n / d with n = e (e + 2), d = n + 2, e = exp(x).

    The derivative is (n d + 4 x e (e + 1)) / d^2.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        e = x.float().clamp(max=_LINEAR_FROM).exp_()
        n = e.add(2).mul_(e)
        return n.div_(n + 2).mul_(x).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        e = x.float().clamp(max=_LINEAR_FROM).exp_()
        n = e.add(2).mul_(e)
        d = n + 2
        n.mul_(d).add_(e.addcmul_(e, e).mul_(x), alpha=4)
        return n.div_(d.mul_(d)).mul_(gradient).to(x.dtype)


# As in `F.normalize`: shorter vectors are divided by it.
_SHORTEST = 1e-12


def unit_length(x: Tensor, dim: int) -> Tensor:
    """Return x divided by its L2 norm along a dimension, as `F.normalize` does.

    The gradient, (g - y <g, y>) / |x| of y = x / |x|, is computed as it stands here; the general
    way divides three times as much, and is twice as many kernels on a GPU.
    """
    kind = x.device.type
    if torch.compiler.is_compiling() or kind not in ("cpu", "cuda"):
        return F.normalize(x, dim=dim)
    return F.normalize(x, dim=dim) if torch.is_autocast_enabled(kind) else _UnitLength.apply(x, dim)


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


# With MKL the input's gradient is made this many columns at a time, from all layers, while they are
# in the cache: a tenth less of the time of all three products of MSRVTT's text units on the CPU.
_COLUMNS = 1536
# With oneDNN few rows are multiplied from the side of the large weight, which it need not lay out
# anew then: a fifth less of the time.
_FEW_ROWS = 128


def fan_out(x_BD: Tensor, layers: Iterable[nn.Linear]) -> list[Tensor]:
    """Return `layer(x)` of each layer; all have a bias and may differ in output size.

    On the CPU the gradient of x is summed up in place, where the general way makes one of x's size
    for each layer.
    """
    layers = list(layers)
    is_plain = x_BD.device.type == "cpu" and x_BD.dtype == layers[0].weight.dtype
    if not is_plain or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return [layer(x_BD) for layer in layers]
    is_cast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if is_cast else x_BD.dtype
    parameters = (parameter for layer in layers for parameter in (layer.weight, layer.bias))
    with torch.autocast("cpu", enabled=False):
        return list(_FanOut.apply(x_BD, dtype, *parameters))


def project(inputs: Sequence[Tensor], layers: Sequence[nn.Linear]) -> list[Tensor]:
    """Return `layer(x)` of each layer and its input (B, D), or of each and the only input."""
    if len(inputs) == 1:
        return fan_out(inputs[0], layers)
    return [layer(x_BD) for layer, x_BD in zip(layers, inputs, strict=True)]


class _FanOut(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BD: Tensor, dtype: torch.dtype, *weights_and_biases: Tensor
    ) -> tuple[Tensor, ...]:
        x_BD = x_BD.to(dtype)
        few_rows = len(x_BD) <= _FEW_ROWS and _by_onednn(dtype)
        weights, outputs = [], []
        for weight, bias in zip(weights_and_biases[::2], weights_and_biases[1::2], strict=True):
            weight = weight.to(dtype)  # used while it is in the cache
            if few_rows:
                y = torch.mm(weight, x_BD.t()).t().contiguous().add_(bias)
            else:
                y = torch.addmm(bias.to(dtype), x_BD, weight.t())
            weights.append(weight)
            outputs.append(y)
        ctx.save_for_backward(x_BD, *weights)
        ctx.dtype = weights_and_biases[0].dtype
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BD, *weights = ctx.saved_tensors
        of_x = _of_input(x_BD, gradients, weights) if ctx.needs_input_grad[0] else None
        of_parameters: list[Tensor | None] = []
        for i, gradient in enumerate(gradients):
            of_weight, of_bias = ctx.needs_input_grad[2 + 2 * i : 4 + 2 * i]
            # As the parameters are, whatever the products: converted while in the cache.
            of_parameters.append((gradient.t() @ x_BD).to(ctx.dtype) if of_weight else None)
            of_parameters.append(gradient.sum(dim=0, dtype=ctx.dtype) if of_bias else None)
        return of_x, None, *of_parameters


def _of_input(x_BD: Tensor, gradients: tuple[Tensor, ...], weights: list[Tensor]) -> Tensor:
    if _by_onednn(x_BD.dtype):
        result_BD = gradients[0] @ weights[0]
        for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
            result_BD += gradient @ weight  # a little faster than in one
        return result_BD
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
