"""What the hardware allows: the matrix products of a piece of work, each by the fastest kernel."""

import time
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Where the two factors stand in the arguments of an operation.
_FACTORS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "_linear_pointwise": 0}
_TRIES = 3

Shape = tuple[int, int, int, torch.dtype]


class Products(TorchDispatchMode):
    """Notes the matrix products that are done in it, forward and backward.

    Attributes:
        shapes: (rows, inner size, columns, type) -> how many.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[Shape] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._overloadpacket.__name__
        if name in _FACTORS:
            x, y = args[_FACTORS[name] :][:2]
            columns = y.shape[0] if name == "_linear_pointwise" else y.shape[-1]
            batch = len(x) if name in ("bmm", "baddbmm") else 1
            rows = x.numel() // x.shape[-1] // batch
            self.shapes[rows, x.shape[-1], columns, x.dtype] += batch
        else:  # in inference mode an operation arrives before it is taken apart
            with self:
                parts = func.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        return func(*args, **(kwargs or {}))

    def seconds(self) -> float:
        """Measure them: seconds of processor time by the faster of MKL's and oneDNN's kernels."""
        return sum(count * _fastest(shape) for shape, count in self.shapes.items())


def _fastest(shape: Shape) -> float:
    rows, inner, columns, dtype = shape
    if not all(shape[:3]):
        return 0.0
    x, weight = (torch.randn(n, inner).to(dtype) for n in (rows, columns))
    return min(_seconds(kernel, x, weight) for kernel in _kernels())


def _kernels() -> list[Any]:
    def by_onednn(x: Tensor, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    return [F.linear, *([by_onednn] if hasattr(torch.ops.mkldnn, "_linear_pointwise") else [])]


@torch.inference_mode()
def _seconds(kernel: Any, x: Tensor, weight: Tensor) -> float:
    count = min(50, 1 + int(1e8 / (len(x) * weight.numel())))  # a clock tells no microseconds
    best = float("inf")
    for _ in range(_TRIES):
        started = time.process_time()
        for _ in range(count):
            kernel(x, weight)
        best = min(best, (time.process_time() - started) / count)
    return best
