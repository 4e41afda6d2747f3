"""A few processes that are started once and run many cases together, as a training's would."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which an optimiser loads: once here, not in each process
import torch.distributed as dist

from trainer.processes.group import Group

PATIENCE = timedelta(minutes=5)


class ProcessPool:
    """Runs functions in the first 2, 3, ... of its processes.

    They are forked: what the parent has imported they have.
    """

    def __init__(self, count: int, folder: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._pipes, self._workers = [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            arguments = (rank, count, folder / "rendezvous", theirs)
            worker = context.Process(target=_work, args=arguments, daemon=True)
            worker.start()
            self._pipes.append(ours)
            self._workers.append(worker)

    def run(
        self,
        count: int,
        function: Callable[..., Any],
        *arguments: Any,
        shares_memory: bool = True,
    ) -> list[Any]:
        """Return what `function(processes, *arguments)` gives in each of `count` processes."""
        pipes = self._pipes[:count]
        for pipe in pipes:
            pipe.send((count, shares_memory, function, arguments))
        outcomes = [pipe.recv() for pipe in pipes]
        faults = "\n".join(fault for _, fault in outcomes)
        assert not faults.strip(), faults
        return [value for value, _ in outcomes]

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for worker in self._workers:
            worker.join()


def _work(rank: int, count: int, rendezvous: Path, pipe: Any) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{rendezvous}", rank=rank, world_size=count, timeout=PATIENCE
    )
    groups = {size: dist.new_group(list(range(size))) for size in range(1, count + 1)}
    while (task := pipe.recv()) is not None:
        size, shares_memory, function, arguments = task
        try:
            pipe.send((function(Group(groups[size], shares_memory), *arguments), ""))
        except Exception:  # noqa: BLE001 - the parent's test fails with it
            pipe.send((None, traceback.format_exc()))
            break
