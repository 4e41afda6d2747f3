"""Kills every program that writes at random moments, and looks whether anything is lost or left.

python3 -m tests.kill_campaign --kills 200 --seed 0 [--program train ...]

Each program first runs unbroken: that is what must come of it. Then it is killed at moments drawn
from the time that took, by SIGKILL (all of its processes, or the first alone) or by a signal that
asks for its end, and started again with the same command line, until it ends by itself. After that
its folder must hold the very same files, bit for bit (but for times), and nothing else: no
temporary file, no second run, no process.

This process has loaded what the programs need and forks one that runs, so that a kill costs a
fraction of a second. What a killed process leaves is made to look a minute old, as younger files
may belong to a writer that is about to lock them. Exit code 1: something differed.
"""

import argparse
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import numpy as np

from tests.fetch_server import serving
from tests.kill_programs import PROGRAMS, Program, archive
from utils.command_line import run_main

ASKING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
LONGEST = 300.0  # seconds after which a program counts as hanging
KILLS_IN_A_ROW = 3
_MINUTE = 60
_SHOWN_LINES = 30
# Processes may end while they are looked at.
_GONE = (ProcessLookupError, FileNotFoundError)


@dataclass(frozen=True)
class Kill:
    """A signal at a moment.

    Attributes:
        after: seconds from the start.
        number: the signal.
        everybody: whether it goes to all processes of the program, not to the first alone.
    """

    after: float
    number: signal.Signals
    everybody: bool

    @property
    def name(self) -> str:
        alone = self.number == signal.SIGKILL and not self.everybody
        return self.number.name + (", the first process alone" if alone else "")


@dataclass(frozen=True)
class End:
    """How a program ended.

    Attributes:
        code: as a shell has it, 128 + signal where that ended it.
        was_killed: whether the signal came before the end.
        output: all that it wrote.
        seconds: from the start.
    """

    code: int
    was_killed: bool
    output: str
    seconds: float


class Difference(Exception):
    """Something is not as after an unbroken run."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.kill_campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of all programs together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    names = [program.name for program in PROGRAMS]
    parser.add_argument("--program", nargs="+", choices=names, default=names, metavar="NAME")
    options = parser.parse_args(arguments)
    chosen = [program for program in PROGRAMS if program.name in options.program]
    total = sum(program.weight for program in chosen)
    differences = []
    rows = {}
    with tempfile.TemporaryDirectory(prefix="kill-campaign-") as name, served(Path(name)):
        for place, program in enumerate(chosen):
            rng = np.random.default_rng([options.seed, PROGRAMS.index(program)])
            # Rounded so that all come to the number that was asked for.
            shares = [sum(p.weight for p in chosen[:n]) * options.kills for n in (place, place + 1)]
            wanted = shares[1] // total - shares[0] // total
            campaign = Campaign(program, Path(name), rng)
            try:
                campaign.run(wanted)
            except Difference as error:
                differences.append(f"{program.name}: {error}")
            rows[program.name] = campaign.counts
            sys.stdout.write(f"{program.name}: {campaign.counts.total()} kills\n")
            sys.stdout.flush()
    sys.stdout.write(table(rows))
    sys.stdout.write("\n".join(differences) or "All ended as the unbroken runs did.")
    sys.stdout.write("\n")
    return 1 if differences else 0


class Campaign:
    """The kills of one program.

    Attributes:
        counts: kills by signal.
    """

    def __init__(self, program: Program, base: Path, rng: np.random.Generator) -> None:
        self.program, self.base, self.rng = program, base, rng
        self.counts: Counter[str] = Counter()

    def run(self, kills: int) -> None:
        """Kill it so often.

        Raises:
            Difference: something was lost or left.
        """
        expected, seconds = self.unbroken()
        number = 0
        while self.counts.total() < kills:
            number += 1
            row = min(int(self.rng.integers(1, KILLS_IN_A_ROW + 1)), kills - self.counts.total())
            self.round(self._prepare(f"round {number}"), row, seconds, expected)

    def unbroken(self) -> tuple[dict[str, str], float]:
        """Run it without a kill; returns what it leaves (see `Program.digests`), and seconds.

        Raises:
            Difference: it fails.
        """
        place = self._prepare("unbroken")
        end = start(self.program, place)
        if end.code:
            raise Difference(f"unbroken, it ended with {end.code}:\n{_last_lines(end.output)}")
        expected = self.program.digests(place)
        shutil.rmtree(place)
        return expected, end.seconds

    def _prepare(self, name: str) -> Path:
        place = self.base / f"{self.program.name}, {name}"
        place.mkdir()
        self.program.prepare(self.program, place)
        return place

    def round(self, place: Path, kills: int, seconds: float, expected: dict[str, str]) -> None:
        """Kill it so often in one place, let it end, and look at what it left.

        Args:
            place: where its input lies; removed if all is well.
            kills: at most; fewer where it ends before.
            seconds: that it takes unbroken.
            expected: what it leaves then.

        Raises:
            Difference: something was lost or left.
        """
        history = []
        for left in range(kills, -1, -1):
            kill = self._draw(seconds) if left else None
            end = start(self.program, place, kill)
            history.append(f"{kill.name} after {kill.after:.3f} s" if kill else "no signal")
            if "Traceback" in end.output or end.code not in self._codes(kill):
                raise Difference(f"{history} ended with {end.code}:\n{_last_lines(end.output)}")
            if end.was_killed:
                self.counts[kill.name] += 1
            if not end.code:
                break
            make_older(place)
        found = self.program.digests(place)
        others = [n for n in {*found, *expected} if found.get(n) != expected.get(n)]
        if others:
            said = {
                n: "is missing" if n not in found else "differs" if n in expected else "is left"
                for n in sorted(others)
            }
            raise Difference(f"{history}: {said}\n{_last_lines(end.output)}")
        shutil.rmtree(place)

    def _draw(self, seconds: float) -> Kill:
        after = float(self.rng.uniform(0, seconds))
        if self.rng.random() < 0.5:
            return Kill(after, signal.SIGKILL, everybody=bool(self.rng.random() < 0.7))
        return Kill(after, ASKING[int(self.rng.integers(len(ASKING)))], everybody=False)

    @staticmethod
    def _codes(kill: Kill | None) -> tuple[int, ...]:
        return (0,) if kill is None else (0, 128 + kill.number)


def start(program: Program, place: Path, kill: Kill | None = None) -> End:
    """Run a program in a place, and kill it on the way.

    Raises:
        Difference: it hangs, or a process of it outlives it.
    """
    output = place.parent / "output"
    output.write_text("")
    # As programs answer it before they have loaded.
    answer = signal.signal(signal.SIGINT, signal.SIG_DFL)
    began = time.monotonic()
    child = os.fork()
    if not child:
        _become(program, place, output)
    signal.signal(signal.SIGINT, answer)
    descriptor = os.pidfd_open(child)
    was_killed = False
    others = []
    if kill is not None and not _ends(descriptor, kill.after):
        others = [pidfd for pid in descendants(child) if (pidfd := _open(pid)) is not None]
        was_killed = True
        for target in (descriptor, *(others if kill.everybody else ())):
            with suppress(*_GONE):
                signal.pidfd_send_signal(target, kill.number)
    if not _ends(descriptor, LONGEST):
        os.kill(child, signal.SIGKILL)
        raise Difference(f"it hangs after {kill}:\n{output.read_text()}")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not all(_ends(other, LONGEST) for other in others):
        raise Difference(f"a process of it lives on after {kill}")
    for opened in (descriptor, *others):
        os.close(opened)
    text = output.read_text(errors="replace")
    return End(code if code >= 0 else 128 - code, was_killed, text, time.monotonic() - began)


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-_SHOWN_LINES:])


def _become(program: Program, place: Path, output: Path) -> None:
    """Be the program, in a fork: never returns."""
    code = 1
    try:
        os.chdir(place)
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.set_inheritable(1, True)
        code = run_main(program.main, program.flags)
        threading._shutdown()  # as the interpreter does before it ends
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ends(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    found = []
    with suppress(*_GONE):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def _open(process: int) -> int | None:
    with suppress(*_GONE):
        return os.pidfd_open(process)
    return None


def make_older(place: Path) -> None:
    """Let what is unfinished look as if it had been left a while ago."""
    for path in place.rglob(".*.tmp"):
        before = path.stat().st_mtime - _MINUTE
        os.utime(path, (before, before))


@contextmanager
def served(base: Path) -> Iterator[None]:
    """Make what several programs start from: a server, a trained run, a teacher of it."""
    receiver, sender = os.pipe()
    server = os.fork()
    if not server:
        with serving() as running:
            path, content = archive()
            running.files[path] = content
            os.write(sender, running.root.encode())
            signal.pause()
    try:
        (base / "server").write_bytes(os.read(receiver, 1000))
        for name, target in (("train", "trained"), ("teachers", "made")):
            [program] = [program for program in PROGRAMS if program.name == name]
            (base / target).mkdir()
            program.prepare(program, base / target)
            end = start(program, base / target)
            if end.code:
                raise SystemExit(f"{name} failed:\n{end.output}")
        shutil.move(base / "made" / "made" / "a.teacher", base)
        shutil.rmtree(base / "made")
        yield
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def table(rows: dict[str, Counter[str]]) -> str:
    """Lay out how often each program was killed by what."""
    heads = sorted({name for counts in rows.values() for name in counts})
    lines = [["program", *heads, "all"]]
    for name, counts in [*rows.items(), ("all", sum(rows.values(), Counter()))]:
        lines.append([name, *(str(counts[head]) for head in heads), str(counts.total())])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows_of_text = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n" + "\n".join(rows_of_text) + "\n\n"


if __name__ == "__main__":
    sys.exit(main())
