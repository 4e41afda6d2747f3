"""In which precision a training step computes."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

_log = logging.getLogger(__name__)

PRECISIONS = ("float32", "tf32", "bf16")

# Processors on which torch's matrix products of bfloat16 have no instructions to use.
_WITHOUT_BFLOAT16 = ("DEFAULT", "AVX2")


def computing_in(precision: str, device: torch.device) -> AbstractContextManager:
    """Context in which a training step runs the model forward: "float32", "tf32" or "bf16".

    Weights, statistics, similarities and losses are float32 in each case; with "bf16" the matrix
    products of the model are bfloat16. Evaluation always is float32: a checkpoint's metrics do not
    depend on how it was trained.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def matrix_products_in(precision: str) -> Iterator[None]:
    """Context of a whole step: with "tf32", float32 products keep 10 bits of the mantissa on a GPU.

    On the CPU "tf32" is float32.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def has_bfloat16() -> bool:
    """Whether this processor has instructions for matrix products of bfloat16."""
    return torch.backends.cpu.get_cpu_capability() not in _WITHOUT_BFLOAT16


def warn_if_slow(precision: str, device: torch.device) -> None:
    """Say so where a precision makes a training slower instead of faster."""
    if precision == "bf16" and device.type == "cpu" and not has_bfloat16():
        _log.warning(
            "precision bf16: this processor has no instructions for bfloat16, a step will take "
            "many times as long as with float32."
        )
