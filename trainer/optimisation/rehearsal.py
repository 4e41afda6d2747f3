"""Before a training begins: whether the settings of its optimiser and schedule last."""

import math
from typing import Any

import torch
from torch import nn

from trainer.optimisation.optimisers import build_optimiser
from trainer.optimisation.schedules import build_schedule, step_schedule
from trainer.optimisation.settings import NONSENSE, does_not_fit
from utils.errors import UserError

_STEPS = 2  # the second finds the state that the first has made
# More epochs tell nothing new, but for a schedule that says how many it has.
_EPOCHS = 1000
# Rounding takes schedules that end at 0 a little below.
_ROUNDING = 1e-9


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
