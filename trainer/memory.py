"""Freed memory stays with the process while a training or a test runs on the CPU.

The C library gives large blocks back to the system as soon as they are freed: the gradients and
activations of each step are then mapped, zeroed and unmapped anew, a tenth of a step's time for a
model of 183 million parameters.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

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
