"""The trainings that a study needs: which are done, which go on from a checkpoint, which begin."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_loader.errors import UserError
from misc.tables.results import final_split
from misc.tables.runs import Run, differing_keys, last_checkpoints, runs_of
from utils.command_line import EXIT_INTERRUPTED, EXIT_WRONG_INPUT
from utils.config import Config

TRAIN = Path(__file__).resolve().parents[2] / "train.py"

LISTED_KEYS = 3
SECONDS_TO_STOP = 5


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

    def command(self, checkpoint: Path | None = None) -> list[str]:
        """Return the command line that trains it, or goes on from a checkpoint of it."""
        if checkpoint is not None:
            flags = ["--resume", str(checkpoint)]
        else:
            flags = ["--config", self.config_path, "--group_id", self.group_id]
            flags += ["--group_seed", str(self.seed)]
            flags += ["--custom_args", self.custom_args] if self.custom_args else []
        flags += ["--device", self.device] if self.device else []
        return [sys.executable, str(TRAIN), *flags]


@dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
        done: the run that has its final test (or predictions); None where there is none yet.
        checkpoint: of an interrupted run, to go on from.
        notes: what lies there but does not count, and why.
    """

    done: Run | None = None
    checkpoint: Path | None = None
    notes: Sequence[str] = field(default_factory=list)

    def describe(self) -> str:
        if self.done:
            return f"done: {self.done.log}"
        found = f"goes on from {self.checkpoint}" if self.checkpoint else "to be trained"
        return "; ".join([found, *self.notes])


def state_of(job: Job) -> State:
    """Look for the newest run of a job that was made with the values that its config has now.

    Raises:
        UserError: the config, or a file of its runs, cannot be read.
    """
    config = job.config
    split = final_split(config)
    notes: list[str] = []
    unfinished = []
    for run in reversed(runs_of(config)):
        if run.is_quick_try or run.seed not in (None, job.seed):
            continue
        others = differing_keys(run.config, config.values) if run.config else ["config"]
        if run.is_finished and run.seed == job.seed and not others:
            if run.ended_with(split):
                return State(done=run)
        elif others and run.seed == job.seed:
            notes.append(f"the run {run.log} was made with other values ({_listed(others)})")
        elif not others and not run.is_finished:
            unfinished.append(run)
    for run in unfinished:
        checkpoint = _checkpoint_of(run, job.seed, notes)
        if checkpoint is not None:
            return State(checkpoint=checkpoint, notes=notes)
    return State(notes=notes)


def _checkpoint_of(run: Run, seed: int, notes: list[str]) -> Path | None:
    """Find the newest whole checkpoint of an interrupted run with this seed."""
    # Loads torch, which a study of finished runs can do without.
    from trainer.checkpoint import LARGE_KEYS, load_checkpoint

    damage = []
    for path in last_checkpoints(run.folder.models) if run.folder else ():
        try:
            content = load_checkpoint(path, leave_out=LARGE_KEYS)
        except UserError as error:
            damage.append(str(error).rstrip("."))
            continue
        is_resumable = "progress" in content and not content.get("quick_try")
        if not is_resumable or content.get("seed") != seed:
            return None
        notes += damage
        return path
    notes += damage
    return None


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
    return ", ".join(keys[:LISTED_KEYS]) + more


def run_jobs(jobs: Sequence[Job]) -> Mapping[Job, int]:
    """Run what is not done yet, one after the other; a failure does not keep the others back.

    Returns:
        The exit code of each job that failed.

    Raises:
        KeyboardInterrupt: Ctrl-C; the training that was running has stopped too.
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
        code = 0 if state.done else run_uninterrupted(job.command(state.checkpoint))
        if code:
            failed[job] = code
            print(f"failed with exit code {code}: {job.config_path}, seed {job.seed}")
    return failed


def run_uninterrupted(command: Sequence[str]) -> int:
    """Run a program to its end and return its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C, here or there.
    """
    code = run_command(command)
    if code in (EXIT_INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    return code


def run_command(command: Sequence[str]) -> int:
    """Run a program to its end and return its exit code; Ctrl-C stops it, and waits for that."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A Ctrl-C on the terminal has reached the program too; any other has to be passed on.
            for stop in (lambda: process.send_signal(signal.SIGINT), process.kill):
                try:
                    process.wait(SECONDS_TO_STOP)
                    break
                except subprocess.TimeoutExpired:
                    stop()
            raise
