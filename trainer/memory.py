"""The memory of a training or a test: whether they fit, what they keep of it, when it is full."""

import ctypes
import os
import platform
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.errors import UserError

# Weights, gradients, and the two moments of an optimizer.
TRAINING_COPIES = 4

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")

# Names and defaults as in glibc's malloc.h and mallopt(3).
_M_TRIM_THRESHOLD, _TRIM_AT = -1, 128 * 1024
_M_MMAP_MAX, _MMAPS = -4, 65536
_NEVER = -1  # mallopt(3): no trimming at all


def check_fits(
    what: str, size: int, at_fault: Callable[[], str], device: torch.device | str = "cpu"
) -> None:
    """Refuse what is larger than all of a device's memory, before any of it is taken.

    Args:
        what: its name, the subject of the sentence.
        size: its bytes.
        at_fault: names the key of the config that makes it so large, and its value.
        device: where it is to lie.

    Raises:
        UserError: names all of these.
    """
    memory = memory_of(device)
    if size > memory:
        raise UserError(
            f"{what} would take {size / 2**30:,.1f} GiB of memory, and there are "
            f"{memory / 2**30:,.1f} GiB here: lower {at_fault()}."
        )


def memory_of(device: torch.device | str = "cpu") -> int:
    """Return the bytes of a GPU, or those of the host that this process may have."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits()])


def _limits() -> Iterator[int]:
    """Limits of this process and of its control groups, in bytes."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit
    for path in _limit_files():
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdecimal():  # "max": none
            yield int(text)


def _limit_files() -> Iterator[Path]:
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        root, name = _GROUPS, "memory.max"
        if controllers:
            root, name = _GROUPS / "memory", "memory.limit_in_bytes"
        if not controllers or "memory" in controllers.split(","):
            own = root / group.lstrip("/")
            above = [folder for folder in own.parents if folder.is_relative_to(root)]
            yield from (folder / name for folder in (own, *above))


@contextmanager
def only_sizes() -> Iterator[None]:
    """Let what is built here have sizes, but neither memory nor random numbers."""
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Leaves out draws and their scaling, which on meta load much of torch for seconds."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.mul, Tensor.__rmul__) and isinstance(args[1], int | float):
            return args[0]
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


@contextmanager
def keeping_freed_memory(enabled: bool = True) -> Iterator[None]:
    """Keep freed memory for the next allocation; at the end give back what is free.

    glibc gives large blocks back to the system as soon as they are freed: the gradients and
    activations of each step on the CPU are then mapped, zeroed and unmapped anew, a tenth of a
    step's time for a model of 183 million parameters. Other C libraries are left as they are.
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
