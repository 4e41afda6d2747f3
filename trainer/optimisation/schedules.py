"""Learning-rate schedules, and the table of those that a config may name."""

import math
import warnings
from collections import Counter
from typing import Any

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from trainer.optimisation.settings import build
from utils.errors import UserError


class WarmupCosineLR(lr_scheduler.LRScheduler):
    """Linear warm-up, then half a cosine (Loshchilov and Hutter 2017, eq. 5, without restarts).

    The only schedule that moves with every step, not with every epoch.

    Args:
        optimizer: whose learning rate it sets, after each step of the training.
        warmup: the share of the steps in which the rate rises from near 0 to its base.
        final: the share of its base that the rate ends with.
        steps: of the whole training; None: its epochs times their batches.
        last_epoch: the number of steps so far, less one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.1,
        final: float = 0.0,
        steps: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup < 1 or not 0 <= final <= 1:
            raise ValueError(
                f"The schedule needs 0 <= warmup < 1 and 0 <= final <= 1, not {warmup}, {final}."
            )
        if steps is not None and steps < 1:
            raise ValueError(f"The schedule needs at least one step, not {steps}.")
        self.warmup, self.final, self.steps = warmup, final, steps or 1
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates of the next step; after the last one they stay."""
        rising, step = self.warmup * self.steps, self.last_epoch
        if step < rising:
            share = (step + 1) / (math.floor(rising) + 1)
        else:
            way = min(1.0, (step - rising) / (self.steps - rising))
            share = self.final + (1 - self.final) * (1 + math.cos(math.pi * way)) / 2
        return [base * share for base in self.base_lrs]


class CosineAnnealingWithRestartsLR(lr_scheduler.LRScheduler):
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017, arXiv 1608.03983).

    The first cycle takes `T_max` epochs, each following one `T_mult` times as many (it need not be
    a whole number).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: float,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        T_mult: float = 1.0,
    ) -> None:
        if T_max <= 0 or T_mult < 1:
            raise ValueError(f"The schedule needs T_max > 0, T_mult >= 1, not {T_max}, {T_mult}.")
        self.T_max = T_max
        self.T_mult = T_mult
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        start, length = 0, self.T_max
        while self.last_epoch >= start + length:
            # A cycle begins at the first whole epoch after the end of the one before.
            start = math.ceil(start + length)
            length *= self.T_mult
        height = (1 + math.cos(math.pi * (self.last_epoch - start) / length)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]


class MultiStepLR(lr_scheduler.MultiStepLR):
    """Torch's schedule with a state of plain values, as checkpoints hold."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"milestones": dict(self.milestones)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"milestones": Counter(state_dict["milestones"])})


# What `lr_scheduler.type` of a config may name; to add one is to add a row.
SCHEDULES: dict[str, type[lr_scheduler.LRScheduler]] = {
    "StepLR": lr_scheduler.StepLR,
    "CosineAnnealingWithRestartsLR": CosineAnnealingWithRestartsLR,
    "ConstantLR": lr_scheduler.ConstantLR,
    "CosineAnnealingLR": lr_scheduler.CosineAnnealingLR,
    "CosineAnnealingWarmRestarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "CyclicLR": lr_scheduler.CyclicLR,
    "ExponentialLR": lr_scheduler.ExponentialLR,
    "LinearLR": lr_scheduler.LinearLR,
    "MultiStepLR": MultiStepLR,
    "OneCycleLR": lr_scheduler.OneCycleLR,
    "PolynomialLR": lr_scheduler.PolynomialLR,
    "ReduceLROnPlateau": lr_scheduler.ReduceLROnPlateau,
    "WarmupCosineLR": WarmupCosineLR,
}
# Args with which a schedule may be made to end with the training: then more epochs are another one.
SCHEDULE_LENGTHS = {
    "CosineAnnealingLR": ("T_max",),
    "OneCycleLR": ("total_steps", "epochs"),
    "PolynomialLR": ("total_iters",),
}
# Schedules that end with the training unless this arg says otherwise.
SCHEDULE_LENGTH_GIVEN = {"WarmupCosineLR": "steps"}
# Others of torch, and why no training here can use them.
_OF_SCHEDULES = "it is made of other schedules, which a config cannot give it"
_OF_FUNCTIONS = "it takes a Python function, which a config cannot give it"
REFUSED_SCHEDULES = {
    "ChainedScheduler": _OF_SCHEDULES,
    "LambdaLR": _OF_FUNCTIONS,
    "MultiplicativeLR": _OF_FUNCTIONS,
    "SequentialLR": _OF_SCHEDULES,
}


def build_schedule(
    kind: str,
    settings: dict[str, Any],
    optimiser: Optimizer,
    direction: str | None = None,
    steps: int = 1,
) -> lr_scheduler.LRScheduler:
    """Build the learning-rate schedule that a config names; `step_schedule` moves it on.

    Args:
        kind, settings: the type and the args of the config.
        optimiser: whose learning rate it sets.
        direction: "max" or "min", whether a larger or smaller value of the monitored metric is
            better; None where no metric is monitored.
        steps: of the whole training, for a schedule that moves with each of them.

    Raises:
        UserError: the settings do not fit, or the schedule follows a metric and there is none.
    """
    if kind == "ReduceLROnPlateau":
        if direction is None:
            raise UserError(
                f'lr_scheduler.type "{kind}" follows the monitored metric: set trainer.monitor to '
                '"max <metric>" or "min <metric>" instead of "off", or choose another schedule.'
            )
        settings = {"mode": direction} | settings
    if issubclass(SCHEDULES[kind], WarmupCosineLR):
        settings = {"steps": steps} | settings
    return build("lr_scheduler", kind, SCHEDULES[kind], optimiser, settings)


def step_schedule(schedule: lr_scheduler.LRScheduler, value: float | None) -> None:
    """Move a schedule on by one epoch, unless it moves with each step (`moves_by_step`).

    Args:
        schedule: of `build_schedule`.
        value: the monitored metric of the epoch's validation, None where there was none: then a
            schedule that follows the metric stays where it is.
    """
    if moves_by_step(schedule):
        return
    with warnings.catch_warnings():
        # A training that goes on at the end of an epoch has made its steps in another process.
        warnings.filterwarnings("ignore", "Detected call of", UserWarning)
        if not isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
            schedule.step()
        elif value is not None:
            schedule.step(value)


def moves_by_step(schedule: lr_scheduler.LRScheduler) -> bool:
    """Whether a schedule moves with each step of a training, by its own `step`."""
    return isinstance(schedule, WarmupCosineLR)
