"""One measurement: a piece of work done in a process of its own, its time and its memory.

A workload names two ways of doing the same thing, ours and a plain one that anybody believes. Each
is a function that prepares the work (inputs, model, files: not measured) and returns a `Job`; the
child process that prepared it then does it several times.
"""

import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.errors import UserError

GEMM_SIZE = 2048


@dataclass(frozen=True)
class Job:
    """Prepared work.

    Attributes:
        run: does it once. The first runs (`warmups`) are not counted.
        flops: useful floating-point operations of one run (2 for a multiplication with an
            addition); None where a share of the machine's peak would say nothing.
        part: how much of the workload a run does, where all of it would take too long; times and
            operations are extrapolated, and marked with "≈".
        note: what is to be said of this measurement, below the table.
        needed: bytes that all of the workload would need, where a run does a part of it.
        memory: bytes at most resident where `run` starts a process of its own; None takes those of
            the measuring process.
        close: ends what preparing began, when all is measured.
        undo: makes the next run a first one again; not measured.
    """

    run: Callable[[], object]
    flops: float | None = None
    repeats: int = 5
    warmups: int = 1
    part: float = 1.0
    note: str = ""
    memory: Callable[[], int] | None = None
    needed: float | None = None
    undo: Callable[[], object] | None = None
    close: Callable[[], object] | None = None


# Takes the scale, 1 for the real sizes; smaller ones are quick tries. Defined at the top of a
# module (or a `functools.partial` of such a function), so that a child process finds it.
Prepare = Callable[[float], Job]


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str  # for `--only`
    title: str  # for the table
    ours: Prepare
    reference: Prepare | None = None


@dataclass(frozen=True)
class Figures:
    """What a job took: medians over its runs, for the whole workload."""

    cpu_seconds: float
    seconds: float
    peak_bytes: int  # resident at most while it ran
    held_bytes: int  # of those: there before it ran (libraries, inputs, model)
    needed: float | None
    flops: float | None
    machine_flops: float  # in a cpu-second, of a large matrix product in the same process
    part: float
    note: str


@dataclass
class Meter:
    """Measures workloads, each side once however many rows it stands in."""

    threads: int = 1
    scale: float = 1.0
    _known: dict[Any, Figures] = field(default_factory=dict)

    def figures(self, prepare: Prepare) -> Figures:
        """Measure a job in a process of its own.

        Raises:
            UserError: the process came to an end without a result.
        """
        key = _identity(prepare)
        if key not in self._known:
            self._known[key] = in_own_process(measure, prepare, self.scale, threads=self.threads)
        return self._known[key]


class MatrixProduct:
    """The product of two large square matrices, the work that runs at the machine's peak.

    It is measured between the runs of a job, in the same process: a machine is not equally fast at
    all times.
    """

    def __init__(self, scale: float) -> None:
        self._size = max(512, round(GEMM_SIZE * scale))
        self._a, self._b, self._out = (torch.randn(self._size, self._size) for _ in range(3))
        self._run()

    def _run(self) -> None:
        torch.mm(self._a, self._b, out=self._out)

    def flops(self) -> float:
        """Measure it: operations in a cpu-second."""
        before = _cpu_seconds()
        self._run()
        return 2.0 * self._size**3 / (_cpu_seconds() - before)


def count_flops(run: Callable[[], object]) -> float:
    """Count the operations of the matrix products that a run does."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def measure(prepare: Prepare, scale: float) -> Figures:
    """Prepare a job and do it, in this process."""
    job = prepare(scale)
    product = MatrixProduct(scale)
    restart_peak()
    held = resident("VmRSS")
    cpu_seconds, seconds = [], []
    machine_flops = [product.flops()]
    for _ in range(job.warmups + job.repeats):
        cpu, wall = _cpu_seconds(), time.perf_counter()
        job.run()
        seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(_cpu_seconds() - cpu)
        machine_flops.append(product.flops())
        if job.undo:
            job.undo()
    peak = job.memory() if job.memory else resident("VmHWM")
    if job.close:
        job.close()
    return Figures(
        cpu_seconds=statistics.median(cpu_seconds[job.warmups :]) / job.part,
        seconds=statistics.median(seconds[job.warmups :]) / job.part,
        peak_bytes=peak,
        held_bytes=0 if job.memory else min(held, peak),
        needed=job.needed,
        machine_flops=statistics.median(machine_flops),
        flops=None if job.flops is None else job.flops / job.part,
        part=job.part,
        note=job.note,
    )


def in_own_process(function: Callable, *arguments: Any, threads: int = 1) -> Any:
    """Call a function in a fresh process and return what it returns.

    Raises:
        UserError: the process came to an end without a result.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # Read when the child's libraries start, which is before any of our code runs there.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Inherited: a Ctrl-C on the terminal is the parent's to answer, which ends the child.
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = context.Process(target=_answer, args=(sender, threads, function, arguments))
        process.start()
    finally:
        signal.signal(signal.SIGINT, answer)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise UserError(
            f"A measurement ended with the code {process.exitcode} and no result"
            + (" (was there enough memory?)." if process.exitcode < 0 else ".")
        ) from None
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()


def _answer(sender: Connection, threads: int, function: Callable, arguments: tuple) -> None:
    # Ends as a program does, which removes its files.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    torch.set_num_threads(threads)
    sender.send(function(*arguments))


def restart_peak() -> None:
    """Let the largest resident set that the system notes begin anew, where it can (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(name: str) -> int:
    """Return a line of /proc/self/status in bytes: VmRSS is now, VmHWM the most there was."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines[name].split()[0]) * 1024


def _cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _identity(prepare: Prepare) -> Any:
    if hasattr(prepare, "func"):
        return prepare.func, prepare.args, tuple(sorted(prepare.keywords.items()))
    return prepare
