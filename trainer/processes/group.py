"""The processes that torchrun, or `--device 0,1`, has started, and what they tell one another.

Plain values and what lies on the host travel by gloo, what lies on GPUs by NCCL; small tensors on
the host through shared memory, where all processes are on one machine.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.processes.alone import Processes, Value
from trainer.processes.shared_memory import LONGEST, SharedMemory
from utils.errors import UserError

# Its name from torch 2.13 on, and before.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Group(Processes):
    """The processes of one of torch's groups, by default of the one that holds all.

    Args:
        group: of torch.
        shares_memory: let small messages of the CPU go through memory, on one machine.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, shares_memory: bool = True) -> None:
        self._group, self._shares_memory = group, shares_memory
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)
        self._announced: tuple[Tensor, dist.Work] | None = None

    def from_first(self, value: Value) -> Value:
        values = [value]
        dist.broadcast_object_list(values, group=self._group, group_src=0)
        return values[0]

    @contextmanager
    def led(self, make: Callable[[], AbstractContextManager[Value]]) -> Iterator[Value]:
        if not self.is_first:
            yield self.from_first(None)  # type: ignore[misc]  # it is the first one's
            return
        with make() as value:
            yield self.from_first(value)

    def first_before_others(self, work: Callable[[], None]) -> None:
        if self.is_first:
            work()
        self.wait()
        if not self.is_first:
            work()

    def close(self) -> None:
        """Part from the others, who do so too."""
        dist.destroy_process_group(self._group)

    def own_device(self, text: str | None) -> str | None:
        """Return what --device says to this process.

        Raises:
            UserError: there are not as many devices as processes on this machine.
        """
        local, count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if text is None:
            gpus = torch.cuda.device_count()
            if 0 < gpus < count:
                raise UserError(
                    f"There are {count} processes on this machine, and torch sees {gpus} GPUs: "
                    f"start {gpus} (--nproc_per_node {gpus}), or give --device cpu."
                )
            return str(local) if gpus else None
        parts = [part.strip() for part in text.split(",")]
        if set(parts) == {"cpu"}:
            return "cpu"
        if len(parts) != count:
            raise UserError(
                f"--device {text} names {len(parts)} GPUs, and there are {count} processes on this "
                "machine: name one for each, or leave --device out."
            )
        return parts[local]

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

    @cached_property
    def _memory(self) -> SharedMemory | None:
        return SharedMemory.of(self) if self._shares_memory and self.count > 1 else None

    def _memory_for(self, x: Tensor, size: int) -> SharedMemory | None:
        """What passes on such a tensor, of which each process gives so many values at most."""
        is_small = x.device.type == "cpu" and size * x.itemsize <= LONGEST
        return self._memory if is_small else None

    def gather(self, x: Tensor) -> Tensor:
        if (memory := self._memory_for(x, x.numel())) is not None:
            return memory.gather(x)
        result = x.new_empty((self.count, *x.shape))
        _all_gather(result.view(-1), x.contiguous().view(-1), self._group)
        return result

    def sum(self, x: Tensor) -> Tensor:
        if (memory := self._memory_for(x, x.numel())) is not None:
            return memory.gather(x).sum(dim=0)
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

    def take_from(self, process: int, tensors: Sequence[Tensor]) -> None:
        for x in tensors:
            dist.broadcast(x, group=self._group, group_src=process)

    def exchange(self, x: Tensor, given: Sequence[int], taken: Sequence[int], most: int) -> Tensor:
        if (memory := self._memory_for(x, most)) is not None:
            return memory.exchange(x, given)
        result = x.new_empty(sum(taken))
        # As bytes: gloo does not know all types.
        size = x.itemsize
        dist.all_to_all_single(
            result.view(torch.uint8),
            x.contiguous().view(torch.uint8),
            [number * size for number in taken],
            [number * size for number in given],
            self._group,
        )
        return result

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
