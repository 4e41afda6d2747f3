"""Progress bars for people, none in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

# What is done sooner needs no bar.
SECONDS_BEFORE_IT_SHOWS = 1.0

_is_hidden = False


def hide_progress() -> None:
    """Show no bars from now on: another process of this training shows them."""
    global _is_hidden
    _is_hidden = True


class Waits:
    """Measures how long somebody waits for the next item.

    Attributes:
        seconds: in all so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, iterable: Iterable[Item]) -> Iterator[Item]:
        """Give the items of an iterable."""
        items = iter(iterable)
        while True:
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - started
            yield item


class PackingBar:
    """A bar for each thing that is packed, moved by whoever watches over it.

    It is called with what it is, the bytes that are done, and their number (0: not known yet).
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def __call__(self, name: str, done: int, total: int) -> None:
        if self._bar is None and 0 < done < total:
            name = name.rsplit("/", 1)[-1]
            self._bar = progress(None, total=total, description=f"packing {name}", unit="B")
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.close()
                self._bar = None


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
        disable=_is_hidden or not sys.stderr.isatty(),
    )
