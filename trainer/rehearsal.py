"""Before a training begins: whether it fits into memory, and whether its settings last."""

import math
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainer.optimisers import build_optimiser, build_schedule, step_schedule
from trainer.settings import NONSENSE, does_not_fit
from utils.errors import UserError

# Weights, gradients, and the two moments of an optimizer.
TRAINING_COPIES = 4

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")

_STEPS = 2  # the second finds the state that the first has made
# More epochs tell nothing new, but for a schedule that says how many it has.
_EPOCHS = 1000
# Rounding takes schedules that end at 0 a little below.
_ROUNDING = 1e-9


# --- Memory ---------------------------------------------------------------------------------------


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


# --- Settings -------------------------------------------------------------------------------------


def rehearse(
    optimiser: tuple[str, dict[str, Any]],
    schedule: tuple[str, dict[str, Any]],
    direction: str | None,
    epochs: int,
    device: torch.device | str = "cpu",
) -> None:
    """Take steps on a tiny model, then the schedule's steps of the epochs.

    Args:
        optimiser, schedule: type and args of either.
        direction: see `build_schedule`.
        epochs: of the whole training.
        device: where the training takes place, as not every setting is for every device.

    Raises:
        UserError: the settings do not fit, a step fails, or a learning rate makes no sense.
    """
    tiny = nn.ParameterDict({"weight": torch.ones(2, 2), "bias": torch.ones(2)}).to(device)
    on_trial = build_optimiser(*optimiser, tiny)
    moved = build_schedule(*schedule, on_trial, direction)
    try:
        for _ in range(_STEPS):
            for parameter in tiny.parameters():
                parameter.grad = torch.ones_like(parameter)
            on_trial.step()
    except NONSENSE as error:
        raise does_not_fit("optimizer", optimiser[0], error) from error
    if not all(p.isfinite().all() for p in tiny.parameters()):
        diverged = ValueError(f"with them a training has diverged after {_STEPS} steps")
        raise does_not_fit("optimizer", optimiser[0], diverged)
    total_steps = getattr(moved, "total_steps", epochs)
    if total_steps < epochs:
        raise UserError(
            f"lr_scheduler.args do not fit {schedule[0]}: it ends after {total_steps} steps, "
            f"one an epoch, but trainer.epochs is {epochs}."
        )
    largest = rate = float(on_trial.param_groups[0]["lr"])
    for epoch in range(1, min(epochs, _EPOCHS)):  # the rate after the last epoch is not used
        try:
            step_schedule(moved, 0.0)
            rate = float(on_trial.param_groups[0]["lr"])
            if not math.isfinite(rate) or rate < -_ROUNDING * largest:
                raise ValueError(f"the learning rate would be {rate:g}")
        except NONSENSE as error:
            when = f"after epoch {epoch} of {epochs}"
            raise does_not_fit("lr_scheduler", schedule[0], error, when) from error
        largest = max(largest, rate)
