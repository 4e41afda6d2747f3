"""A run is its folder: checkpoints and config, log and metrics, and the rankings page.

Each of a run's three folders carries a mark, a file that is written before anything else. Only
marked folders are ever written into, continued or removed, and the process that trains in one holds
it (a lock on its mark, which goes with the process).
"""

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

from utils.errors import UserError
from utils.files import make_folder, read_json, reason, temporary_name, write_json

MARK = "run.json"
BEST = "trained_model.pth"
LAST = "checkpoint-last.pth"

_FORMAT = "run of text-video retrieval, 1"
_KINDS = ("models", "log", "web")
# What a run that measured nothing may have left in its folders.
_OF_A_START = (MARK, "config.json", "info.log", "seed-*/events.out.tfevents.*", "seed-*")

# Who only asks whether a run is held has its lock for a moment.
_TRIES, _SECONDS_BETWEEN_TRIES = 5, 0.1
# A folder is made and marked in less.
_SECONDS_OF_A_START = 10.0
_STARTED = re.compile(
    r"\.[0-9]{4}(-[0-9]{2}){2}_[0-9]{2}(-[0-9]{2}){2}(_[0-9]+)?\.[0-9]+-[0-9a-f]{8}\.tmp"
)

_made: set[Path] = set()  # folders above those of runs, as far as this process made them

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """The three folders of one run, alike but for their first name.

    `<save_dir>/{models,log,web}/<experiment>/[<group_id>/][seed-<s>/]<timestamp>/`
    """

    models: Path
    log: Path
    web: Path

    @classmethod
    def create(
        cls,
        save_dir: Path,
        experiment: str,
        seed: int | None = None,
        group_id: str = "",
        facts: dict[str, Any] | None = None,
    ) -> "RunFolder":
        """Make the folders of a new run, named after this moment.

        Args:
            save_dir: where all runs lie.
            experiment: its name.
            seed, group_id: named where the run is one of several of the experiment.
            facts: what its mark tells besides (see `facts`).

        Raises:
            UserError: the folder cannot be written.
        """
        place = Path(experiment, group_id, "" if seed is None else f"seed-{seed}")
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        number = 1
        while True:
            name = stamp if number == 1 else f"{stamp}_{number}"
            mark = {"format": _FORMAT, "id": secrets.token_hex(16)}
            mark |= {"place": (place / name).as_posix(), **(facts or {})}
            folder = cls.at(save_dir, place / name)
            if folder._claim(mark):
                return folder
            number += 1

    def _claim(self, mark: dict[str, Any]) -> bool:
        """Make the three folders and mark them; False where one of them is there already."""
        made: list[Path] = []
        try:
            for folder in self._all():
                _make_marked(folder, mark)
                made.append(folder)
        except (OSError, UserError) as error:
            for other in made:
                _remove_start(other)
            if isinstance(error, UserError):
                raise
            if isinstance(error, FileExistsError) and folder.is_dir():
                return False
            raise UserError(f"Cannot create the folder {folder}: {reason(error)}.") from error
        return True

    @classmethod
    def of(cls, folder: Path) -> "RunFolder | None":
        """Find the run that one of three folders belongs to; None where it carries no mark of ours.

        A mark tells where its folder lies below `models`, `log` or `web`: one that was copied
        elsewhere alone is no run.
        """
        folder = _resolved(folder)
        mark = _read_mark(folder)
        if mark is None:
            return None
        place = Path(mark["place"])
        depth = len(place.parts)
        if place.is_absolute() or not 0 < depth < len(folder.parents):
            return None
        run = cls.at(folder.parents[depth], place)
        others = [_read_mark(other) for other in run._all() if other.exists()]
        is_whole = all(other is not None and other["id"] == mark["id"] for other in others)
        return run if folder in run._all() and is_whole else None

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder | None":
        """Find the run that a checkpoint belongs to; None where it lies in no marked folder."""
        folder = cls.of(_resolved(checkpoint).parent)
        return folder if folder and folder.models == _resolved(checkpoint).parent else None

    @classmethod
    def of_log(cls, log: Path) -> "RunFolder | None":
        """Find the folders beside those of a log, marked or not; None where it is no log's."""
        folder = _resolved(log)
        for ancestor in folder.parents:
            if ancestor.name == "log":
                return cls.at(ancestor.parent, folder.relative_to(ancestor))
        return None

    @classmethod
    def at(cls, save_dir: Path, place: Path) -> "RunFolder":
        return cls(*(save_dir / kind / place for kind in _KINDS))

    def _all(self) -> tuple[Path, Path, Path]:
        return self.models, self.log, self.web

    @property
    def facts(self) -> dict[str, Any]:
        """What the run's mark tells of it: `seed`, `group_id`, whether it is a quick try."""
        return _read_mark(self.models) or {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run, so that no other process continues or removes it; make what it lacks.

        Raises:
            UserError: a living process holds it, or its folders cannot be written.
        """
        with self._locked(self.models / MARK, tries=_TRIES) as is_mine:
            if not is_mine:
                raise UserError(
                    f"The run {self.models} is held by a process that is still running: wait for "
                    "its end, or stop it."
                )
            mark = _read_mark(self.models)
            for folder in self._all():
                if mark is not None and not folder.exists():
                    _make_marked(folder, mark)
            yield

    def is_held(self) -> bool:
        """Whether a living process trains in this run."""
        with self._locked(self.models / MARK, tries=1) as is_mine:
            return not is_mine

    @staticmethod
    @contextmanager
    def _locked(path: Path, tries: int | None = None) -> Iterator[bool]:
        """Lock a file; gives False where another process still has it after so many tries."""
        try:
            handle = path.open("r+b")
        except OSError as error:
            raise UserError(f"Cannot write the run's file {path}: {reason(error)}.") from error
        with handle:
            yield _is_locked(handle, tries)

    @contextmanager
    def removed_if_unused(self) -> Iterator[None]:
        """Remove this new run where a mistake of the user's ended it before any result.

        What a run has measured or saved, and what others put into its folders, is never removed.
        """
        try:
            yield
        except UserError:
            if not self.metrics.exists() and not any(self.models.glob("*.pth")):
                for folder in self._all():
                    _remove_start(folder)
            raise

    @property
    def experiment(self) -> str:
        """Name of the experiment: the folder next below `log`."""
        place = [parent.name for parent in (self.log, *self.log.parents)]
        return place[place.index("log", 1) - 1]

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

    def newest_checkpoint(self) -> Path | None:
        """The whole checkpoint from which its training goes on; None where there is none yet.

        Raises:
            UserError: there are checkpoints, but each of them is damaged.
        """
        from trainer.checkpoint import LARGE_KEYS, load_checkpoint, steps_done

        damage, found = [], []
        rolling = (self.last_checkpoint, self.best_checkpoint)
        for path in (*self.epoch_checkpoints(), *(p for p in rolling if p.is_file())):
            try:
                content = load_checkpoint(path, leave_out=LARGE_KEYS)
            except UserError as error:
                damage.append(str(error))
                continue
            if "progress" in content:
                found.append((steps_done(content), path))
        for sentence in damage if found else ():
            _log.warning("%s", sentence)
        if damage and not found:
            raise UserError(damage[0])
        return max(found)[1] if found else None

    @property
    def is_finished(self) -> bool:
        """Whether its training, if it has one, ended with a test (or predictions)."""
        metrics = self.read_metrics()
        has_test = "test" in metrics or "predictions" in metrics
        return has_test and ("seed" in metrics or "epochs" not in metrics)

    def read_metrics(self) -> dict[str, Any]:
        """Metrics written so far; empty for a new run."""
        return read_json(self.metrics, "metrics file") if self.metrics.is_file() else {}

    @contextmanager
    def changing_metrics(self) -> Iterator[dict[str, Any]]:
        """Give the metrics to be changed, and write them: one process at a time."""
        with self._locked(self.log / MARK):
            metrics = self.read_metrics()
            yield metrics
            write_json(self.metrics, metrics)


def find_checkpoint(path: Path, purpose: Literal["test", "continue"] = "test") -> Path:
    """Find the checkpoint that a user means by a checkpoint, a run folder or an experiment folder.

    Args:
        path: a file is what it is; of a run's folder it is the best model ("test") or the newest
            state of the training ("continue"); of an experiment's folder, that of its newest
            finished ("test") or unfinished ("continue") run.
        purpose: what it is wanted for.

    Raises:
        UserError: there is nothing there, or nothing of that kind.
    """
    if not _is_folder(path):
        return path
    runs = [run] if (run := RunFolder.of(path)) else runs_below(path)
    if runs and purpose == "continue":
        runs = runs if run else [r for r in runs if not r.is_finished and not r.is_held()]
        if not runs:
            raise UserError(f"All runs in {path} are finished or running: name one to continue.")
        found = runs[-1].newest_checkpoint()
        if found is None:
            raise UserError(f"The run {runs[-1].models} has no checkpoint yet: start it anew.")
    else:
        found = _best_of(path, runs, is_one=run is not None)
    if found != path:
        _log.info("Taking %s", found)
    return found


def _best_of(path: Path, runs: list[RunFolder], is_one: bool) -> Path:
    """Return the best model of the newest finished run; unmarked folders count by their files."""
    with_model = [r for r in runs if r.best_checkpoint.is_file()]
    finished = [r for r in with_model if is_one or r.is_finished]
    if finished:
        passed = [r for r in with_model if r.models.name > finished[-1].models.name]
        if passed:
            _log.info("%d newer runs in %s are not finished: passed over.", len(passed), path)
        return finished[-1].best_checkpoint
    marked = {r.best_checkpoint for r in runs}
    others = [p for p in path.rglob(BEST) if _resolved(p) not in marked]
    if others:  # of an earlier version, or published ones
        return max(others, key=lambda p: age_of(p.parent))
    if with_model:
        raise UserError(
            f"No run in {path} is finished: continue one (train.py --resume), or name its "
            f"checkpoint ({with_model[-1].best_checkpoint})."
        )
    raise UserError(f"There is no {BEST} of a training in {path}.")


def runs_below(folder: Path) -> list[RunFolder]:
    """Find the marked runs in an experiment's folder (of models or logs), oldest first."""
    found = (RunFolder.of(mark.parent) for mark in folder.rglob(MARK))
    runs = dict.fromkeys(run for run in found if run is not None)
    return sorted(runs, key=lambda run: age_of(run.models))


def age_of(folder: Path) -> tuple[str, int, str]:
    """Sort runs by their time; of those that began in the same second, by their number."""
    numbered = re.fullmatch(r"(.*?)_(\d{1,9})", folder.name, re.DOTALL)
    name, number = numbered.groups() if numbered else (folder.name, 1)
    return name, int(number), str(folder)


def test_label(split: str, checkpoint: Path) -> str:
    """Name a test in file names: its split, and the checkpoint where that is not the best model."""
    label = split if checkpoint.name == BEST else f"{split}-{checkpoint.stem}"
    return re.sub(r"[^A-Za-z0-9._-]", "_", label)[:100]


# No test, though its name begins like one.
test_label.__test__ = False  # type: ignore[attr-defined]  # functions take any attribute


def purge_experiment(save_dir: Path, experiment: str) -> None:
    """Remove every earlier run of an experiment that carries our mark: checkpoints, log and page.

    Raises:
        UserError: a living process holds one of them.
    """
    runs = runs_below(save_dir / "models" / experiment)
    held = [run for run in runs if run.is_held()]
    if held:
        raise UserError(
            f"--purge_exp_dir would remove the run {held[0].models}, in which a process is still "
            "running: wait for its end, or stop it."
        )
    for run in runs:
        for folder in run._all():
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # one that is not empty stays, and so do those above it
                while folder.name != experiment:
                    folder = folder.parent
                    folder.rmdir()
    left = save_dir / "models" / experiment
    if left.exists():
        _log.warning("--purge_exp_dir left what carries no mark of a run: %s", left)


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """Return a folder's mark; None where it has none, or one that is not ours."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(mark, dict) or mark.get("format") != _FORMAT:
        return None
    return mark if all(isinstance(mark.get(key), str) for key in ("id", "place")) else None


def _is_locked(handle: IO[bytes], tries: int | None) -> bool:
    """Lock an open file: at once, after some tries, or (None) whenever it can be had."""
    try:
        if tries is None:
            fcntl.flock(handle, fcntl.LOCK_EX)
            return True
        for number in range(tries):
            if number:
                time.sleep(_SECONDS_BETWEEN_TRIES)
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False
    except OSError as error:
        _log.warning("The run %s cannot be locked: %s.", Path(handle.name).parent, reason(error))
        return True


def _make_parents(folder: Path) -> None:
    """Make what a folder lies in, and remember what of that was not there."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    make_folder(folder.parent)
    _made.update(missing)


def _make_marked(folder: Path, mark: dict[str, Any]) -> None:
    """Make a folder that has its mark from the first: a kill leaves none that is nobody's.

    Raises:
        FileExistsError: it is there already.
    """
    _make_parents(folder)
    _remove_abandoned_starts(folder.parent)
    temporary = temporary_name(folder)
    temporary.mkdir()
    try:
        write_json(temporary / MARK, mark)
        if os.path.lexists(folder):  # empty, it would be replaced
            raise FileExistsError(errno.EEXIST, "", str(folder))
        temporary.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, "", str(folder)) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned_starts(parent: Path) -> None:
    """Remove what `_make_marked` left where it was killed some while ago."""
    for path in parent.glob(".*.tmp"):
        with suppress(OSError):
            is_old = time.time() - path.lstat().st_mtime >= _SECONDS_OF_A_START
            if path.is_symlink() or not is_old or not _STARTED.fullmatch(path.name):
                continue
            held = list(path.iterdir())
            if all(MARK in other.name for other in held):
                for other in held:
                    other.unlink()
                path.rmdir()


def _remove_start(folder: Path) -> None:
    """Remove a folder that this process made, if nothing but the start of a run is in it."""
    own = {path for pattern in _OF_A_START for path in folder.glob(pattern)}
    if own != set(folder.rglob("*")):
        return
    with suppress(OSError):
        for path in sorted(own, reverse=True):  # what lies in a folder before the folder
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.rmdir()
        for parent in folder.parents:
            if parent not in _made:
                break
            parent.rmdir()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))
