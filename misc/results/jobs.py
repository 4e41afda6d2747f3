"""The trainings that a study needs: which are done, and how the others are run."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from misc.results.rows import final_split
from misc.results.runs import Run, runs_of
from trainer.runs.finding import Wanted
from trainer.runs.folder import RunFolder
from utils.command_line import EXIT_WRONG_INPUT
from utils.config import Config, differences
from utils.errors import UserError
from utils.stopping import Stopped, deferred

TRAIN = Path(__file__).resolve().parents[2] / "train.py"

LISTED_KEYS = 3
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Job:
    """One training: a config with one seed, as `train.py` is called for it."""

    label: str
    config_path: str
    seed: int
    group_id: str
    device: str | None = None
    custom_args: str | None = None

    @property
    def config(self) -> Config:
        return Config.from_file(self.config_path, self.custom_args)

    @property
    def flags(self) -> list[str]:
        """Return the flags of train.py that train it, or go on where that was interrupted."""
        flags = ["--config", self.config_path, "--group_id", self.group_id]
        flags += ["--group_seed", str(self.seed), "--resume", "auto"]
        flags += ["--custom_args", self.custom_args] if self.custom_args else []
        return flags + (["--device", self.device] if self.device else [])

    @property
    def command(self) -> list[str]:
        """Return the command line that trains it here."""
        return [sys.executable, str(TRAIN), *self.flags]

    @property
    def script(self) -> list[str]:
        """Return program and flags as seen from the working directory, for a job script."""
        return [os.path.relpath(TRAIN), *self.flags]


@dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
        done: the run that has its final test (or predictions); None where there is none yet.
        unfinished: the run with which the training goes on.
        notes: what lies there but does not count, and why.
    """

    done: Run | None = None
    unfinished: RunFolder | None = None
    notes: Sequence[str] = field(default_factory=list)

    def describe(self) -> str:
        if self.done:
            return f"done: {self.done.log}"
        found = f"goes on with {self.unfinished.models}" if self.unfinished else "to be trained"
        return "; ".join([found, *self.notes])


def state_of(job: Job) -> State:
    """Look for the newest run of a job that was made with the values that its config has now.

    Raises:
        UserError: the config, or a file of its runs, cannot be read.
    """
    config = job.config
    split = final_split(config)
    notes: list[str] = []
    for run in reversed(runs_of(config)):
        if run.is_quick_try or run.seed not in (None, job.seed):
            continue
        others = differences(run.config, config.values) if run.config else ["config"]
        if run.is_finished and run.seed == job.seed and not others:
            if run.ended_with(split):
                return State(done=run)
        elif others and run.seed == job.seed:
            notes.append(f"the run {run.log} was made with other values ({_listed(others)})")
    return State(unfinished=_unfinished(job, config), notes=notes)


def _unfinished(job: Job, config: Config) -> RunFolder | None:
    """Find the run that `train.py --resume auto` would go on with."""
    wanted = Wanted(config, job.seed, job.group_id, is_one_of_many=True)
    return next((run for run in wanted.runs() if not run.is_finished), None)


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
    return ", ".join(keys[:LISTED_KEYS]) + more


def run_jobs(jobs: Sequence[Job]) -> Mapping[Job, int]:
    """Run what is not done yet, one after the other; a failure does not keep the others back.

    Returns:
        The exit code of each job that failed.

    Raises:
        Stopped: a signal asked for the end; the training that was running has saved and ended.
    """
    failed = {}
    for number, job in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {job.label}, seed {job.seed}: ", end="")
        try:
            state = state_of(job)
        except UserError as error:
            print(f"failed: {error}")
            failed[job] = EXIT_WRONG_INPUT
            continue
        print(state.describe(), flush=True)
        code = 0 if state.done else run_uninterrupted(job.command)
        if code:
            failed[job] = code
            print(f"failed with exit code {code}: {job.config_path}, seed {job.seed}")
    return failed


def run_uninterrupted(command: Sequence[str]) -> int:
    """Run a program to its end and return its exit code.

    Raises:
        Stopped: a signal asked for the end, here or there.
    """
    code = run_command(command)
    for number in _STOPPING:
        if code in (-number, Stopped(number).exit_code):
            raise Stopped(number)
    return code


def run_command(command: Sequence[str]) -> int:
    """Run a program to its end and return its exit code.

    A signal that asks for the end is passed on, each time once: the program's process group is its
    own, so that a Ctrl-C on the terminal does not reach it besides.

    Raises:
        Stopped: a signal asked for the end; the program has ended too.
    """
    process = None
    stop = None
    while process is None or process.poll() is None:
        try:
            if process is None:
                with deferred():
                    process = subprocess.Popen(command, process_group=0)
            process.wait()
        except Stopped as asked:
            stop = asked
            if process is not None:
                process.send_signal(asked.signal_number)
    if stop:
        raise stop
    return process.returncode
