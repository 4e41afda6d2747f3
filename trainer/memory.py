"""Memory while a training or a test runs: kept on the CPU, told where a GPU has too little.

The C library gives large blocks back to the system as soon as they are freed: the gradients and
activations of each step are then mapped, zeroed and unmapped anew, a tenth of a step's time for a
model of 183 million parameters.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.errors import UserError

# Names and defaults as in glibc's malloc.h and mallopt(3).
_M_TRIM_THRESHOLD, _TRIM_AT = -1, 128 * 1024
_M_MMAP_MAX, _MMAPS = -4, 65536
_NEVER = -1  # mallopt(3): no trimming at all


@contextmanager
def keeping_freed_memory(enabled: bool = True) -> Iterator[None]:
    """Keep freed memory for the next allocation; at the end give back what is free.

    Without effect where the C library is another one than glibc.
    """
    if not enabled or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)  # mapped blocks go back at once, those of the heap can stay
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _MMAPS)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_AT)
        libc.malloc_trim(0)


@contextmanager
def told_if_full(what: str) -> Iterator[None]:
    """Say in one sentence where a GPU's memory does not suffice, and for what.

    Raises:
        UserError: it does not.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        raise UserError(
            f"The memory of the GPU does not suffice for {what}: {free:.1f} of its {total:.1f} GiB "
            "are free; make data_loader.args.batch_size or experts.ce_shared_dim smaller, or take "
            "another GPU (--device)."
        ) from error
