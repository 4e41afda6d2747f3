"""What the hardware allows: the matrix products of a piece of work, each by the fastest kernel."""

import time
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.fast import ONEDNN, TORCH, onednn_is_exact, products_by
from trainer.memory import keeping_freed_memory

# Where the two factors stand in the arguments of an operation.
_FACTORS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "_linear_pointwise": 0}
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
        with keeping_freed_memory():
            return sum(count * _fastest(shape) for shape, count in self.shapes.items())


def _fastest(shape: Shape) -> float:
    rows, inner, columns, dtype = shape
    if not all(shape[:3]):
        return 0.0
    x_RI, y_CI = (torch.randn(n, inner).to(dtype) for n in (rows, columns))
    y_IC = y_CI.t().contiguous()
    # How the factors lie in memory, and which comes first, matters.
    ways = (lambda: x_RI @ y_CI.t()), (lambda: x_RI @ y_IC), (lambda: y_CI @ x_RI.t())
    repeats = min(20, 1 + int(1e8 / (rows * inner * columns)))  # a clock tells no microseconds
    libraries = (TORCH, ONEDNN) if onednn_is_exact() else (TORCH,)
    best = float("inf")
    for library, way in product(libraries, ways):
        with torch.inference_mode(), products_by(library):
            best = min(best, _seconds(way, 1))
            best = min(best, _seconds(way, repeats))
    return best


def _seconds(way: Callable[[], object], repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        way()
    return (time.process_time() - started) / repeats
