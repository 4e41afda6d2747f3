"""How far a training has come: what continuing it needs besides weights, and putting it back.

Checkpoints come from files: what is put back is first seen to be of the kind that belongs there.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from utils.errors import BadContent, short


@dataclass
class Progress:
    """How far a training has come: all of its state that is neither weights nor optimiser."""

    epoch: int = 0
    best_epoch: int = 0
    best_value: float | None = None
    validations_without_improvement: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Course:
    """The epoch that a training is in: how many steps it has made, and what they gave."""

    epoch: int
    lr: float
    losses: list[Tensor] = field(default_factory=list)
    distances: list[Tensor] = field(default_factory=list)  # from the teachers, for a student
    gradient_norm: Tensor | None = None  # of the last step of all
    seconds: float = 0.0  # of earlier parts, where it was interrupted
    random_state: dict[str, Tensor] | None = None  # at the end of the steps

    @property
    def steps(self) -> int:
        return len(self.losses)

    def state(self) -> dict[str, Any]:
        """Return what continuing this epoch needs, as plain values and tensors."""
        return {
            "epoch": self.epoch,
            "lr": self.lr,
            "steps": self.steps,
            "losses": torch.stack(self.losses),
            "distances": torch.stack(self.distances) if self.distances else None,
            "gradient_norm": self.gradient_norm,
            "seconds": self.seconds,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], device: torch.device) -> "Course":
        """Undo `state` (BadContent, ...: it was not made by it)."""
        losses, distances = state["losses"].to(device), state["distances"]
        norm = state.get("gradient_norm")
        if losses.shape != (state["steps"],) or type(state["epoch"]) is not int:
            raise BadContent("the epoch that was interrupted is damaged")
        return cls(
            state["epoch"],
            float(state["lr"]),
            list(losses.unbind()),
            [] if distances is None else list(distances.to(device).unbind()),
            None if norm is None else norm.to(device).reshape(()),
            float(state["seconds"]),
        )


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's own generators (noise of ablations; data have generators of their own)."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def progress_of(
    checkpoint: Mapping[str, Any], device: torch.device
) -> tuple[Progress, Course | None]:
    """Return how far the training of a checkpoint had come (BadContent, ...: it is damaged)."""
    made = Progress(**copy.deepcopy(checkpoint["progress"]))
    counts = (made.epoch, made.best_epoch, made.validations_without_improvement)
    best = made.best_value, checkpoint["monitor_best"]
    is_value = all(value is None or type(value) in (int, float) for value in best)
    if not is_value or any(type(count) is not int or count < 0 for count in counts):
        raise BadContent("its progress is damaged")
    if best[0] != best[1]:
        raise BadContent("its monitor_best is another than that of its progress")
    if len(made.history) != made.epoch or made.epoch != checkpoint["epoch"]:
        raise BadContent("its progress is of another epoch")
    for record in made.history:
        json.dumps(record, allow_nan=False)  # as it will be written (ValueError, TypeError)
        if not isinstance(record, dict):
            raise BadContent("its progress is damaged")
    if "epoch_in_course" not in checkpoint:
        return made, None
    course = Course.of_state(checkpoint["epoch_in_course"], device)
    if course.epoch != made.epoch + 1:
        raise BadContent("the epoch that was interrupted is another one")
    return made, course


def restore_optimiser(optimiser: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimiser's state (BadContent, ...: it is not of this optimiser)."""
    expected = optimiser.state_dict()["param_groups"]
    groups = state["param_groups"]
    if len(groups) != len(expected) or not all(isinstance(group, dict) for group in groups):
        raise BadContent("its optimizer has other groups of parameters")
    for own, group in zip(expected, groups, strict=True):
        _compare(own, {key: group.get(key) for key in own}, "its optimizer")
    optimiser.load_state_dict(dict(state))
    for parameter, entries in optimiser.state.items():
        for name, value in entries.items():
            shapes = (torch.Size(), torch.Size([1]), parameter.shape)
            is_number = value is None or isinstance(value, int | float)
            if not is_number and getattr(value, "shape", None) not in shapes:
                raise BadContent(f'the "{name}" of its optimizer has another shape')


def restore_schedule(schedule: LRScheduler, state: Mapping[str, Any]) -> None:
    """Load a schedule's state (BadContent, ...: it is not of this schedule)."""
    own = schedule.state_dict()
    if unknown := [key for key in state if key not in own]:
        raise BadContent(f'its schedule has an unknown value "{short(unknown[0])}"')
    _compare(own, {**own, **state}, "its schedule")
    schedule.load_state_dict(copy.deepcopy(dict(state)))


def _compare(own: Any, stored: Any, where: str) -> None:
    """Insist that stored settings are of the same kinds as our own."""
    if own is None or stored is None:
        return
    if isinstance(own, dict) and isinstance(stored, dict):
        for key in own.keys() & stored.keys():
            _compare(own[key], stored[key], f'{where}, "{key}",')
    elif isinstance(own, list | tuple) and isinstance(stored, list | tuple):
        if len(own) != len(stored):
            raise BadContent(f"{where} has {len(stored)} values instead of {len(own)}")
        for one, other in zip(own, stored, strict=True):
            _compare(one, other, where)
    else:
        numbers = (int, float, Tensor)
        both = isinstance(own, numbers) and isinstance(stored, numbers)
        if not both and type(own) is not type(stored):
            raise BadContent(f"{where} is of another kind than that of this config")
