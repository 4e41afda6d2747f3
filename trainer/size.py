"""Whether a model and its batches fit into memory, asked before any of it is taken."""

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from utils.config import Config
from utils.errors import UserError

# Weights, gradients, and the two moments of an optimizer.
TRAINING_COPIES = 4

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def memory_of(device: torch.device | str = "cpu") -> int:
    """Return the bytes of a GPU, or those of the host that this process may have."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits()])


def check_fits(what: str, size: int, memory: int, at_fault: str) -> None:
    """Refuse what is larger than all of the memory.

    Args:
        what: its name, the subject of the sentence.
        size: its bytes.
        memory: see `memory_of`.
        at_fault: the key of the config that makes it so large, and its value.

    Raises:
        UserError: names all of these.
    """
    if size > memory:
        raise UserError(
            f"{what} would take {_gib(size)} of memory, and there are {_gib(memory)} here: lower "
            f"{at_fault}."
        )


def check_net(
    config: Config, copies: int, rough_bytes: int, bytes_of: Callable[[Config], int]
) -> None:
    """Refuse a model that is larger than the memory.

    Args:
        config: its config.
        copies: how often memory of the size of its weights is needed.
        rough_bytes: about the size of its weights, rather too large than too small.
        bytes_of: the exact size of the weights that a config makes.

    Raises:
        UserError: names both sizes, and the keys of the config that matter most.
    """
    memory = memory_of("cpu")
    # The exact number takes a second, as the first weights on meta load much of torch.
    if copies * rough_bytes < memory / 2:
        return
    size = copies * bytes_of(config)
    if size > memory:
        keys = _size_keys(config)
        without = {key: bytes_of(config.merged(_nested(key, 1))) for key in keys}
        first, *others = sorted(keys, key=without.__getitem__)
        named = [first, *(key for key in others if 2 * copies * without[key] < size)]
        text = " or ".join(f"{'.'.join(key)} ({keys[key]})" for key in named[:2])
        kind = "training of the model" if copies > 1 else "model"
        check_fits(f"The {kind} of this config", size, memory, text)


def _size_keys(config: Config) -> dict[tuple[str, ...], int]:
    """Return the keys that a model's size depends on, with their values."""
    args = config.get("arch.args", {})
    keys: dict[tuple[str, ...], Any] = {}
    keys |= {("arch", "args", name): args.get(name) for name in ("num_g_layers", "num_h_layers")}
    keys["experts", "ce_shared_dim"] = config.get("experts.ce_shared_dim")
    for name, clusters in args.get("vlad_clusters", {}).items():
        keys["arch", "args", "vlad_clusters", name] = clusters
    return {key: value for key, value in keys.items() if value}


def _nested(key: tuple[str, ...], value: Any) -> dict[str, Any]:
    for part in reversed(key):
        value = {part: value}
    return value


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


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
