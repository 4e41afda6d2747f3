"""A run is its folder: checkpoints and config, log and metrics, and the rankings page.

Each of a run's three folders carries a mark, a file that is written before anything else. Only
marked folders are ever written into, continued or removed, and the process that trains in one holds
it (a lock on its mark, which goes with the process).
"""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from logger.results import write_epochs
from trainer.runs.marks import FORMAT, MARK, locked, make_marked, read_mark, remove_start
from utils.errors import UserError
from utils.files import read_json, safe_name, write_json
from utils.stopping import deferred

BEST = "trained_model.pth"
LAST = "checkpoint-last.pth"

_log = logging.getLogger(__name__)


def has_ended(metrics: Mapping[str, Any]) -> bool:
    """Whether a training ended with a test (or predictions), or there was but a test."""
    has_test = "test" in metrics or "predictions" in metrics
    return has_test and ("seed" in metrics or "epochs" not in metrics)


@dataclass(frozen=True)
class RunFolder:
    """The three folders of one run, alike but for their first name.

    `<save_dir>/{models,log,web}/<experiment>/[<group_id>/][seed-<s>/]<timestamp>/`

    Attributes:
        save_dir: where all runs lie.
        place: of this one below `models`, `log` or `web`.
    """

    save_dir: Path
    place: Path

    @classmethod
    @contextmanager
    def new(
        cls,
        save_dir: Path,
        experiment: str,
        seed: int | None = None,
        group_id: str = "",
        facts: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Iterator["RunFolder"]:
        """Make and hold the folders of a new run, named after this moment.

        They go again where a mistake of the user's, or a signal, ends the run before it has
        measured or saved anything and nobody else has put anything into them.

        Args:
            save_dir: where all runs lie.
            experiment: its name.
            seed, group_id: named where the run is one of several of the experiment.
            facts: what its mark tells besides (see `facts`).
            config: written beside the mark.

        Raises:
            UserError: the folders cannot be written.
        """
        above = Path(experiment, group_id, "" if seed is None else f"seed-{seed}")
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        with ExitStack() as stack:
            with deferred():
                number, held = 0, None
                while held is None:
                    number += 1
                    name = stamp if number == 1 else f"{stamp}_{number}"
                    run = cls(save_dir, above / name)
                    held = run._claimed(facts or {}, config)
                stack.enter_context(held)
                stack.enter_context(run._removed_if_unused())
            yield run

    def _claimed(
        self, facts: Mapping[str, Any], config: Mapping[str, Any] | None
    ) -> IO[bytes] | None:
        """Make the three folders; returns the lock, None where one of them is there already.

        A kill between them leaves a run that can be gone on with, as it has its config.
        """
        mark = {"format": FORMAT, "id": secrets.token_hex(16), "place": self.place.as_posix()}
        mark |= facts
        with ExitStack() as undo:
            for folder in self._all():
                is_first = folder == self.models
                handle = make_marked(folder, mark, config if is_first else None)
                if handle is None:
                    return None
                undo.enter_context(handle)
                undo.callback(remove_start, folder)
                if is_first:  # from its first moment, so that nobody else takes it
                    held = handle
                else:
                    handle.close()
            undo.pop_all()
        return held

    @classmethod
    def of(cls, folder: Path) -> "RunFolder | None":
        """Find the run that one of three folders belongs to; None where it carries no mark of ours.

        A mark tells where its folder lies below `models`, `log` or `web`: one that was copied
        elsewhere alone is no run.
        """
        folder = _resolved(folder)
        mark = read_mark(folder)
        if mark is None:
            return None
        place = Path(mark["place"])
        depth = len(place.parts)
        if place.is_absolute() or not 0 < depth < len(folder.parents):
            return None
        run = cls(folder.parents[depth], place)
        others = [read_mark(other) for other in run._all() if other.exists()]
        is_whole = all(other is not None and other["id"] == mark["id"] for other in others)
        return run if folder in run._all() and is_whole else None

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder | None":
        """Find the run that a checkpoint belongs to; None where it lies in no marked folder."""
        folder = _resolved(checkpoint).parent
        run = cls.of(folder)
        return run if run and run.models == folder else None

    @classmethod
    def of_log(cls, log: Path) -> "RunFolder | None":
        """Find the folders beside those of a log, marked or not; None where it is no log's."""
        folder = _resolved(log)
        for ancestor in folder.parents:
            if ancestor.name == "log":
                return cls(ancestor.parent, folder.relative_to(ancestor))
        return None

    @property
    def models(self) -> Path:
        return self.save_dir / "models" / self.place

    @property
    def log(self) -> Path:
        return self.save_dir / "log" / self.place

    @property
    def web(self) -> Path:
        return self.save_dir / "web" / self.place

    def _all(self) -> tuple[Path, Path, Path]:
        return self.models, self.log, self.web

    @property
    def facts(self) -> dict[str, Any]:
        """What the run's mark tells of it: `seed`, `group_id`, whether it is a quick try."""
        return read_mark(self.models) or {}

    @contextmanager
    def held(self, complete: bool = True) -> Iterator[None]:
        """Hold the run, so that no other process continues or removes it.

        Args:
            complete: make what it lacks of its three folders.

        Raises:
            UserError: a living process holds it, or its folders cannot be written.
        """
        with locked(self.models / MARK) as is_mine:
            if not is_mine:
                raise UserError(
                    f"The run {self.models} is held by a process that is still running: wait for "
                    "its end, or stop it."
                )
            for folder in (self.log, self.web) if complete else ():
                if handle := not folder.exists() and make_marked(folder, self.facts):
                    handle.close()
            yield

    def is_held(self) -> bool:
        """Whether a living process trains in this run."""
        with locked(self.models / MARK, tries=1) as is_mine:
            return not is_mine

    @contextmanager
    def _removed_if_unused(self) -> Iterator[None]:
        try:
            yield
        except (UserError, KeyboardInterrupt):
            if not self.metrics.exists() and not any(self.models.glob("*.pth")):
                for folder in (self.log, self.web, self.models):
                    remove_start(folder)
            raise

    @property
    def experiment(self) -> str:
        return self.place.parts[0]

    @property
    def config(self) -> Path:
        return self.models / "config.json"

    @property
    def best_checkpoint(self) -> Path:
        return self.models / BEST

    @property
    def last_checkpoint(self) -> Path:
        """State of a training that has not ended, between the checkpoints that it keeps."""
        return self.models / LAST

    @property
    def metrics(self) -> Path:
        return self.log / "metrics.json"

    def predictions(self, label: str) -> Path:
        """The predictions of a challenge in one test (see `test_label`)."""
        return self.log / f"predictions-{label}.csv"

    def similarities(self, label: str) -> Path:
        """The similarity matrix of one test (see `test_label`)."""
        return self.models / f"test-similarities-{label}.npy"

    def epoch_checkpoint(self, epoch: int) -> Path:
        return self.models / f"checkpoint-epoch{epoch}.pth"

    def epoch_checkpoints(self) -> list[Path]:
        """The checkpoints that are kept by epoch, oldest first."""
        found = self.models.glob("checkpoint-epoch*.pth")
        epochs = {path: path.stem.removeprefix("checkpoint-epoch") for path in found}
        numbered = [path for path, epoch in epochs.items() if re.fullmatch("[0-9]{1,9}", epoch)]
        return sorted(numbered, key=lambda path: int(epochs[path]))

    @property
    def is_finished(self) -> bool:
        """Whether its training, if it has one, ended with a test (or predictions)."""
        return has_ended(self.read_metrics())

    def read_metrics(self) -> dict[str, Any]:
        """Metrics written so far; empty for a new run.

        Raises:
            UserError: the file cannot be read, or holds something else.
        """
        metrics = read_json(self.metrics, "metrics file") if self.metrics.is_file() else {}
        lists = ("tests", "predictions", "epochs") if isinstance(metrics, dict) else ()
        rows = [metrics.get(key, []) for key in lists]
        is_whole = all(isinstance(r, list) and all(isinstance(e, dict) for e in r) for r in rows)
        if not lists or not is_whole:
            raise UserError(
                f"The metrics file {self.metrics} does not hold what trainings and tests write: "
                "remove it and test the run's checkpoint again (test.py --resume)."
            )
        return metrics

    @contextmanager
    def changing_metrics(self) -> Iterator[dict[str, Any]]:
        """Give the metrics to be changed, and write them: one process at a time."""
        with locked(self.log / MARK, tries=None):
            metrics = self.read_metrics()
            yield metrics
            write_json(self.metrics, metrics)
            write_epochs(self.metrics.with_suffix(".csv"), metrics.get("epochs", []))


def runs_below(folder: Path) -> list[RunFolder]:
    """Find the marked runs in an experiment's folder (of models or logs), oldest first."""
    found = (RunFolder.of(mark.parent) for mark in files_below(folder, MARK))
    runs = dict.fromkeys(run for run in found if run is not None)
    return sorted(runs, key=lambda run: age_of(run.models))


def files_below(folder: Path, name: str) -> Iterator[Path]:
    """Give the files of a name below a folder; what comes and goes meanwhile is no error."""
    for parent, _, names in os.walk(folder):
        if name in names:
            yield Path(parent, name)


def age_of(folder: Path) -> tuple[str, int, str]:
    """Sort runs by their time; of those that began in the same second, by their number."""
    numbered = re.fullmatch(r"(.*?)_(\d{1,9})", folder.name, re.DOTALL)
    name, number = numbered.groups() if numbered else (folder.name, 1)
    return name, int(number), str(folder)


def test_label(split: str, checkpoint: Path) -> str:
    """Name a test in file names: its split, and the checkpoint where that is not the best model."""
    return safe_name(split if checkpoint.name == BEST else f"{split}-{checkpoint.stem}", 100)


# No test, though its name begins like one.
test_label.__test__ = False  # type: ignore[attr-defined]  # functions take any attribute


def purge_experiment(save_dir: Path, experiment: str) -> None:
    """Remove every earlier run of an experiment that carries our mark: checkpoints, log and page.

    Raises:
        UserError: a living process holds one of them.
    """
    with ExitStack() as stack:
        runs = runs_below(save_dir / "models" / experiment)
        for run in runs:
            stack.enter_context(run.held(complete=False))
        for folder in (folder for run in runs for folder in run._all()):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # one that is not empty stays, and so do those above it
                while folder.name != experiment:
                    folder = folder.parent
                    folder.rmdir()
    left = save_dir / "models" / experiment
    if left.exists():
        _log.warning("--purge_exp_dir left what carries no mark of a run: %s", left)


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))
