"""One measurement: a piece of work done in a process of its own, its time and its memory.

A piece of work is a function of `workloads` or `growth` that prepares it (inputs, model, files: not
measured) and returns a `Job`; the process that prepared it then does it several times, each time
that it is told to. The process runs these benchmarks with the code of any checkout: all of them
take turns, as a machine is not equally fast at all times.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1  # prctl(2)
# All modules are those of the working directory, but for these benchmarks.
_PROGRAM = """
import sys, misc.benchmarks
misc.benchmarks.__path__ = [sys.argv[1]]
from misc.benchmarks.measure import answer
answer(*sys.argv[2:])
"""


@dataclass(frozen=True)
class Job:
    """Prepared work.

    Attributes:
        run: does it once. The first runs (`warmups`) are not counted.
        part: how much of the workload a run does, where all of it would take too long; times are
            extrapolated, and marked with "≈".
        in_children: whether a run starts processes, and the memory is that of the largest.
        during: a context in which all runs are done.
        undo: makes the next run a first one again; not measured.
        products: a context in which the first run is done, and in which its matrix products are
            noted (see `misc.benchmarks.peak`); None where a share of the peak would say nothing.
        facts: what else the reader of the figures wants to know.
    """

    run: Callable[[], object]
    repeats: int = 5
    warmups: int = 1
    part: float = 1.0
    in_children: bool = False
    during: AbstractContextManager = field(default_factory=nullcontext)
    undo: Callable[[], object] | None = None
    products: Any = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """What a job took, for the whole workload."""

    runs: list[float]  # seconds of processor time of all threads, of each run
    seconds: float  # that passed, the median
    peak_bytes: int  # resident at most while it ran
    held_bytes: int  # of those: there before it ran (libraries, inputs, model)
    part: float = 1.0
    products: float | None = None  # cpu-seconds of its matrix products alone, see `Job.products`
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(self.runs)


class WorkError(Exception):
    """A process came to an end without a result; the text says of what."""


def measured(job: Job) -> Iterator[Figures | None]:
    """Do a job run by run, each giving None, and at last its figures."""
    restart_peak()
    held, cpu_seconds, seconds = resident("VmRSS"), [], []
    with job.during:
        for number in range(job.warmups + job.repeats):
            with job.products if job.products and number == 0 else nullcontext():
                cpu, wall = _cpu_seconds(), time.perf_counter()
                job.run()
                seconds.append((time.perf_counter() - wall) / job.part)
                cpu_seconds.append((_cpu_seconds() - cpu) / job.part)
            if job.undo:
                job.undo()
            yield None
    largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    peak = largest_child if job.in_children else max(resident("VmHWM"), largest_child)
    yield Figures(
        runs=cpu_seconds[job.warmups :],
        seconds=statistics.median(seconds[job.warmups :]),
        peak_bytes=peak,
        held_bytes=0 if job.in_children else min(held, peak),
        part=job.part,
        products=job.products.seconds() if job.products else None,
        facts=job.facts,
    )


def measure(
    function: str, settings: dict[str, Any], folders: Sequence[Path] = (ROOT,), threads: int = 1
) -> list[Figures | WorkError]:
    """Do the same work with the code of several checkouts, which take turns.

    Args:
        function: "module.function" in this package, which returns the job.
        settings: its keyword arguments.
        folders: the checkouts.
        threads: of each process.
    """
    found: dict[int, Figures | WorkError] = {}
    with ExitStack() as stack:
        runs = [stack.enter_context(_worker(function, settings, f, threads)) for f in folders]
        while len(found) < len(runs):
            for number, run in enumerate(runs):
                if number not in found and (answer := run()):
                    found[number] = answer
    return [found[number] for number in range(len(runs))]


@contextmanager
def _worker(
    function: str, settings: dict[str, Any], folder: Path, threads: int
) -> Iterator[Callable[[], Figures | WorkError | None]]:
    """Give what does the next run, in a process that has prepared the job; the last gives figures.

    The process ends with the context.
    """
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, Path(__file__).parent, function, json.dumps(settings)],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=end_with_parent,
        ) as process,
    ):
        assert process.stdin and process.stdout
        told, answers = process.stdin, process.stdout

        def run() -> Figures | WorkError | None:
            with suppress(BrokenPipeError):  # it has ended; why, is told below
                told.write(b"\n")
                told.flush()
            if line := answers.readline():
                answer = json.loads(line)
                return Figures(**answer) if answer else None
            code = process.wait()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            why = "was there enough memory?" if code < 0 else said
            return WorkError(f"it ended with the code {code}: {why}")

        try:
            yield run
        finally:
            process.kill()
            process.communicate()


def end_with_parent() -> None:
    """Have the system end this process when the one that started it ends, however (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def restart_peak() -> None:
    """Let the largest resident set that the system notes begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(name: str) -> int:
    """Return a line of /proc/self/status in bytes: VmRSS is now, VmHWM the most there was."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines[name].split()[0]) * 1024


def _cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def answer(function: str, settings: str) -> None:
    """Prepare a job, and do the next run for each line of the input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the work itself prints
    module, _, name = function.rpartition(".")
    job = getattr(importlib.import_module(f"misc.benchmarks.{module}"), name)(
        **json.loads(settings)
    )
    for figures in measured(job):
        if not sys.stdin.readline():
            return
        print(json.dumps(figures.__dict__ if figures else None), file=answers, flush=True)
