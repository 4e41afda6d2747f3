"""Small messages of processes on one machine, through memory that they share.

A step of several processes is made of dozens of small exchanges, one after the other. On the CPU
gloo hands each from thread to thread, which takes 0.7 to 1.7 ms; writing it down where the others
look takes 0.05 ms.

Axes: P processes.
"""

import math
import mmap
import os
import platform
import secrets
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.processes.alone import Processes

# The longest message of a process; longer ones go another way.
LONGEST = 2**23
_LINE = 128  # bytes apart, so that no two counters are in one line of a cache
_TOKEN_BYTES = 16
# Looks before others may have the processor, and seconds before it is given up for a while.
_LOOKS, _SECONDS_OF_LOOKING, _PAUSE = 2000, 0.02, 0.0005
# Only these processors let others see stores in their order, whatever the language.
_MACHINES = ("x86_64", "AMD64")


class SharedMemory:
    """A memory that P processes have mapped: a counter and two places for a message for each.

    Whoever writes message n into its place of parity n has seen message n - 1 of all others, who
    had taken message n - 2 by then.

    Args:
        memory: `size_for(count)` bytes, zeros but for a token at their beginning.
        rank, count: which process this is, of how many.
    """

    def __init__(self, memory: mmap.mmap, rank: int, count: int) -> None:
        self._rank, self._turn = rank, 0
        lines = (slice(_LINE * (p + 1), _LINE * (p + 1) + 8) for p in range(count))
        self._counters = [memoryview(memory)[line].cast("q") for line in lines]
        places = torch.frombuffer(memory, dtype=torch.uint8, offset=_head(count))
        self._places = places.view(2, count, -1)  # (parity, P, bytes)

    @classmethod
    def of(cls, processes: Processes) -> "SharedMemory | None":
        """Map a memory together; None where not all of the processes are on one machine."""
        if not hasattr(os, "memfd_create") or platform.machine() not in _MACHINES:
            return None
        rank, count = processes.rank, processes.count
        file = -1
        try:
            if processes.is_first:
                token = secrets.token_bytes(_TOKEN_BYTES)
                file = os.memfd_create("messages")
                os.ftruncate(file, size_for(count))
                os.pwrite(file, token, 0)
                path, token = processes.from_first((f"/proc/{os.getpid()}/fd/{file}", token))
            else:
                path, token = processes.from_first(("", b""))
                file = _opened(path, token)
            if processes.largest(int(file < 0)):
                return None
            return cls(mmap.mmap(file, size_for(count)), rank, count)
        finally:
            if file >= 0:
                os.close(file)

    def gather(self, x: Tensor) -> Tensor:
        """Return x of every process, (P, *x.shape); all are of one shape and type."""
        places = self._write(x.nbytes, x.flatten())
        return places[:, : x.nbytes].view(x.dtype).reshape(len(places), *x.shape).clone()

    def exchange(self, x: Tensor, given: Sequence[int]) -> Tensor:
        """As `Processes.exchange`."""
        edges = torch.tensor([0, *given]).cumsum(0) * x.itemsize
        head = edges.nbytes
        places = self._write(x.nbytes + head, edges, x)
        parts = []
        for place in places:
            start, stop = place[:head].view(torch.int64)[self._rank : self._rank + 2].tolist()
            parts.append(place[head + start : head + stop].view(x.dtype))
        return torch.cat(parts)

    def _write(self, size: int, *parts: Tensor) -> Tensor:
        """Write a message, wait for those of the others, and return all (P, bytes)."""
        self._turn += 1
        places = self._places[self._turn % 2]
        start = 0
        for part in parts:
            places[self._rank, start : start + part.nbytes].view(part.dtype).copy_(part)
            start += part.nbytes
        assert start == size
        self._counters[self._rank][0] = self._turn
        for counter in self._counters:
            self._wait_for(counter)
        return places

    def _wait_for(self, counter: memoryview) -> None:
        looks, patience = 0, math.inf
        while counter[0] < self._turn:
            looks += 1
            if looks == _LOOKS:
                patience = time.monotonic() + _SECONDS_OF_LOOKING
            elif looks > _LOOKS and time.monotonic() < patience:
                os.sched_yield()
            elif looks > _LOOKS:
                time.sleep(_PAUSE)


def size_for(count: int) -> int:
    return _head(count) + 2 * count * (LONGEST + _LINE + 8 * count)


def _head(count: int) -> int:
    return _LINE * (count + 1)


def _opened(path: str, token: bytes) -> int:
    """Open the first process's memory; -1 where it is not to be had."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1
    if os.pread(file, len(token), 0) == token:
        return file
    os.close(file)
    return -1
