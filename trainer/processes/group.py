"""The processes of a training or a test, and what they tell one another.

`ALONE` is a training of one process: everything that is asked of the others is answered at once. A
`Group` is what torchrun, or `--device 0,1`, has started.

Axes: P processes, b rows of this process, B rows of all.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
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

    def shares(self, size: int, block: int) -> list[slice]:
        """Share items out among the processes, in whole blocks: the last one may be smaller.

        Each block is computed as one process computes it, bit for bit; some may get none.
        """
        blocks = -(-size // block)
        edges = [min(size, blocks * p // self.count * block) for p in range(self.count + 1)]
        return [slice(*edge) for edge in pairwise(edges)]

    def from_first(self, value: Value) -> Value:
        """Return the first process's value, a plain one; the others wait for it."""
        return value

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

    def gather(self, x: Tensor) -> Tensor:
        """Return x of every process, (P, *x.shape)."""
        return x.unsqueeze(0)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of x over the processes."""
        return x

    def sum_in_place(self, large: Sequence[Tensor], small: Sequence[Tensor]) -> None:
        """Put the sum over the processes into each tensor; the small ones travel together."""

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

    def __deepcopy__(self, memo: dict[int, Any]) -> "Processes":
        return self


ALONE = Processes()


class Group(Processes):
    """The processes of one of torch's groups, by default of the one that holds all."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)
        self._announced: tuple[Tensor, dist.Work] | None = None

    def from_first(self, value: Value) -> Value:
        values = [value]
        dist.broadcast_object_list(values, group=self._group, group_src=0)
        return values[0]

    def largest(self, number: int) -> int:
        given = torch.tensor(number)
        dist.all_reduce(given, dist.ReduceOp.MAX, self._group)
        return int(given)

    def announce(self, number: int) -> int:
        before, given = self._announced, torch.tensor(number)
        work = dist.all_reduce(given, dist.ReduceOp.MAX, self._group, async_op=True)
        self._announced = given, work
        if before is None:
            return 0
        before[1].wait()
        return int(before[0])

    def wait(self) -> None:
        self.largest(0)

    def gather(self, x: Tensor) -> Tensor:
        result = x.new_empty((self.count, *x.shape))
        dist.all_gather_into_tensor(result.view(-1), x.contiguous().view(-1), self._group)
        return result

    def sum(self, x: Tensor) -> Tensor:
        result = x.clone()
        dist.all_reduce(result, group=self._group)
        return result

    def sum_in_place(self, large: Sequence[Tensor], small: Sequence[Tensor]) -> None:
        works = [dist.all_reduce(x, group=self._group, async_op=True) for x in large]
        if small:
            flat = torch.cat([x.flatten() for x in small])
            dist.all_reduce(flat, group=self._group)
            parts = flat.split([x.numel() for x in small])
            shaped = [part.view_as(x) for part, x in zip(parts, small, strict=True)]
            torch._foreach_copy_(list(small), shaped)
        for work in works:
            work.wait()

    def gather_rows(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        most = max(sizes)
        if len(x) < most:  # each has to give as many
            x = torch.cat([x, x.new_zeros((most - len(x), *x.shape[1:]))])
        every = self.gather(x)  # (P, most, ...)
        if min(sizes) == most:
            return every.flatten(0, 1)
        return torch.cat([rows[:size] for rows, size in zip(every, sizes, strict=True)])

    def rows_to_first(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        if not self.is_first:
            if len(x):
                dist.send(x.contiguous(), group=self._group, group_dst=0)
            return x
        result = x.new_empty((sum(sizes), *x.shape[1:]))
        result[: sizes[0]] = x
        start = sizes[0]
        for process, size in enumerate(sizes[1:], start=1):
            if size:
                dist.recv(result[start : start + size], group=self._group, group_src=process)
            start += size
        return result
