"""Progress bars for people, none in a log file."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

# What is done sooner needs no bar.
SECONDS_BEFORE_IT_SHOWS = 1.0


def progress(
    iterable: Iterable[Item] | None,
    total: int | None = None,
    description: str = "",
    unit: str = "it",
) -> "tqdm[Item]":
    """Iterate with a progress bar that shows on a terminal alone and vanishes when it is done.

    Args:
        iterable: what to iterate over; None for a bar that the caller moves with `update(n)`.
        total: number of items, where the iterable does not know its length.
        description: a word or two before the bar.
        unit: what an item is; bytes ("B") are shown as KiB, MiB and so on.
    """
    return tqdm(
        iterable,
        total=total,
        desc=description or None,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1024,
        leave=False,
        dynamic_ncols=True,
        delay=SECONDS_BEFORE_IT_SHOWS,
        disable=not sys.stderr.isatty(),
    )
