"""Finding the run or the checkpoint that a user, or a command line, means."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.runs.folder import BEST, RunFolder, age_of, files_below, runs_below
from utils.config import NAME_KEY, Config, differences
from utils.errors import UserError, listed
from utils.files import is_there, read_json

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a command line wants to train: how `--resume auto` knows its runs again.

    Attributes:
        config: the values and the name.
        seed: one seed.
        group_id: name of the group, "" for none.
        is_one_of_many: whether results lie in folders by seed, and finished seeds are done.
        quick_try: whether it is but a try (--mini_train, --train_single_epoch).
    """

    config: Config
    seed: int
    group_id: str = ""
    is_one_of_many: bool = False
    quick_try: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What the mark of a run tells of it."""
        return {"seed": self.seed, "group_id": self.group_id, "quick_try": self.quick_try}

    def runs(self) -> list[RunFolder]:
        """Return the runs that the same command line has made, newest first."""
        below = Path(self.config["trainer.save_dir"], "models", self.config.name)
        return [run for run in reversed(runs_below(below)) if self._is_of(run)]

    def new_run(self) -> AbstractContextManager[RunFolder]:
        """Make and hold a new run; it goes again where it ends without any result."""
        seed = self.seed if self.is_one_of_many else None
        place = (Path(self.config["trainer.save_dir"]), self.config.name, seed, self.group_id)
        return RunFolder.new(*place, self.facts, self.config.stored())

    def _is_of(self, run: RunFolder) -> bool:
        facts = run.facts
        if any(facts.get(key) != value for key, value in self.facts.items()):
            return False
        try:
            stored = read_json(run.config, "config")
        except UserError:
            return False
        stored = {k: v for k, v in stored.items() if k != NAME_KEY} if type(stored) is dict else {}
        return not differences(stored, self.config.values)


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
    if not is_there(path, Path.is_dir):
        return path
    runs = [run] if (run := RunFolder.of(path)) else runs_below(path)
    if runs and purpose == "continue":
        runs = runs if run else [r for r in runs if not r.is_finished and not r.is_held()]
        if not runs:
            raise UserError(f"All runs in {path} are finished or running: name one to continue.")
        found = next(filter(None, map(newest_checkpoint, reversed(runs))), None)
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
        passed = [r for r in with_model if age_of(r.models) > age_of(finished[-1].models)]
        if passed:
            names = listed(str(r.models) for r in passed)
            _log.info("Not finished, and so passed over: %s", names)
        return finished[-1].best_checkpoint
    marked = {r.best_checkpoint for r in runs}
    others = [p for p in files_below(path, BEST) if p.resolve() not in marked]
    if others:  # of an earlier version, or published ones
        return max(others, key=lambda p: age_of(p.parent))
    if with_model:
        raise UserError(
            f"No run in {path} is finished: continue one (train.py --resume), or name its "
            f"checkpoint ({with_model[-1].best_checkpoint})."
        )
    raise UserError(f"There is no {BEST} of a training in {path}.")


def config_of_checkpoint(checkpoint: Path, custom_args: str | None = None) -> Config:
    """The config of the training that wrote a checkpoint: the file beside it, or its own record.

    Raises:
        UserError: the checkpoint cannot be read, or its config is not valid.
    """
    from trainer.checkpoint import LARGE_KEYS, load_checkpoint

    beside = checkpoint.with_name("config.json")
    if beside.is_file():
        return Config.from_file(beside, custom_args)
    content = load_checkpoint(checkpoint, leave_out=LARGE_KEYS)
    return Config.from_dict(content["config"]).with_custom_args(custom_args)


def newest_checkpoint(run: RunFolder) -> Path | None:
    """The whole checkpoint from which its training goes on; None where there is none yet.

    Raises:
        UserError: there are checkpoints, but each of them is damaged.
    """
    from trainer.checkpoint import LARGE_KEYS, load_checkpoint, steps_done

    damage, found = [], []
    rolling = (run.last_checkpoint, run.best_checkpoint)
    for path in (*run.epoch_checkpoints(), *(p for p in rolling if p.is_file())):
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
