"""What a program asks of the processes that it is one of; here, of a process that is alone.

Nothing is imported for it: a program of one process asks the same as one of several
(`trainer.processes.group`), and is answered at once.

Axes: P processes, b rows of this process, B rows of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")


class Processes:
    """This process and the others, of which there are none.

    Attributes:
        rank: the number of this process.
        count: of processes.
    """

    rank, count = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes."""
        return self.rank == 0

    def own_device(self, text: str | None) -> str | None:
        """Return what --device says to this process."""
        return text

    # ---- what they agree on ----

    def from_first(self, value: Value) -> Value:
        """Return the first process's value, a plain one; the others wait for it."""
        return value

    @contextmanager
    def led(self, make: Callable[[], AbstractContextManager[Value]]) -> Iterator[Value]:
        """Enter a context in the first process; the others get its value."""
        with make() as value:
            yield value

    def first_before_others(self, work: Callable[[], None]) -> None:
        """Do something in the first process, and then in the others, which find it done."""
        work()

    def largest(self, number: int) -> int:
        """Return the largest number that any process gives."""
        return number

    def announce(self, number: int) -> int:
        """Give a number; return the largest one that any process gave the time before.

        Nobody waits: what was given has arrived by now.
        """
        return number

    def wait(self) -> None:
        """Wait until every process is here."""

    # ---- tensors ----

    def gather(self, x: Tensor) -> Tensor:
        """Return x of every process, (P, *x.shape)."""
        return x.unsqueeze(0)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of x over the processes."""
        return x

    def sum_in_place(self, large: Sequence[Tensor], small: Sequence[Tensor]) -> None:
        """Put the sum over the processes into each tensor; the small ones travel together."""

    def take_from(self, process: int, tensors: Sequence[Tensor]) -> None:
        """Put the values of one process into each tensor."""

    def exchange(self, x: Tensor, given: Sequence[int], taken: Sequence[int], most: int) -> Tensor:
        """Give each process its part of x (sum of given,); return what all give to this one.

        Args:
            x: one part after the other.
            given, taken: how many values go to each process, and come from it.
            most: how many values any process gives at most.
        """
        return x

    def shares(self, size: int, block: int) -> list[slice]:
        """Share items out among the processes, in whole blocks: the last one may be smaller.

        Each block is computed as one process computes it, bit for bit; some may get none.
        """
        blocks = -(-size // block)
        edges = [min(size, blocks * p // self.count * block) for p in range(self.count + 1)]
        return [slice(*edge) for edge in pairwise(edges)]

    def gather_rows(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the rows (b, ...) of one process after the other, (B, ...).

        Args:
            x: those of this process.
            sizes: how many each process has.
        """
        return x

    def rows_to_first(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """As `gather_rows`, for the first process alone; the others keep their own."""
        return x

    def __deepcopy__(self, memo: dict[int, Any]) -> Processes:
        return self


ALONE = Processes()
