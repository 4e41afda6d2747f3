"""A learning rate that moves with every step: linear warm-up, then half a cosine."""

import math

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler


class WarmupCosineLR(lr_scheduler.LRScheduler):
    """Linear warm-up and cosine decay (Loshchilov and Hutter 2017, eq. 5, without restarts).

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
