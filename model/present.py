"""Leaving out, in evaluation, what is computed of videos that lack an expert."""

from collections.abc import Callable

import torch
from torch import Tensor


def skips_missing(training: bool, device: torch.device) -> bool:
    """Whether missing experts are left out: not in training, and only on the CPU.

    In training every row counts for the statistics of a batch; on a GPU the host would have to
    wait for the number of rows.
    """
    return not training and device.type == "cpu"


def once_for_missing(layer: Callable[[Tensor], Tensor], x_BD: Tensor, present_B: Tensor) -> Tensor:
    """Return `layer(x)` (B, ...) of a layer that takes one row of x (B, ...) like the other.

    The rows of x without the expert are all the same: one of them is computed for all.
    """
    is_there = present_B > 0
    missing = (~is_there).nonzero().squeeze(1)
    if len(missing) < 2:
        return layer(x_BD)
    rows = torch.cat([is_there.nonzero().squeeze(1), missing[:1]])
    place_B = torch.where(is_there, is_there.cumsum(0) - 1, len(rows) - 1)
    return layer(x_BD[rows])[place_B]
