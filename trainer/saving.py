"""Saving a training and going on with it: all of its state, on the disk and back."""

import logging
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from trainer.checkpoints.checkpoint import (
    LARGE_KEYS,
    link_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from trainer.checkpoints.writer import CheckpointWriter
from trainer.parts import Parts, TrainingSettings
from trainer.recipe.averaging import BestWeights
from trainer.runs.folder import RunFolder
from trainer.runs.progress import (
    Course,
    Progress,
    progress_of,
    random_state,
    restore_optimiser,
    restore_random_state,
    restore_schedule,
)
from utils.errors import BadContent, UserError
from utils.stopping import Stopped, deferred, last_words, stop_behind

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Saving:
    """Knows how far a training has come, and keeps its checkpoints; the first process writes.

    Attributes:
        parts: model, loss, optimiser and schedule, whose state is saved.
        settings: which checkpoints are kept, see `TrainingSettings`.
        folder: where they go.
        header: what each of them carries besides the state ("arch", "config", "seed", ...).
        progress: the whole epochs so far.
        course: the epoch that the training is in.
        best_weights: those of the best epochs so far, where their mean is asked for.
    """

    parts: Parts
    settings: TrainingSettings
    folder: RunFolder
    header: dict[str, Any]
    progress: Progress = field(default_factory=Progress)
    course: Course | None = None

    def __post_init__(self) -> None:
        self.best_weights = BestWeights(self.parts.recipe.average_best)
        self._is_whole = True
        self._saved_at = time.monotonic()
        self._writer = CheckpointWriter(self.parts.device)

    def state(self) -> dict[str, Any]:
        """Everything that continuing this training exactly needs, under the published keys.

        Within an epoch `epoch` is the last whole one, and `epoch_in_course` tells of the steps
        since.
        """
        parts, course = self.parts, self.course
        state = self.header | {
            "epoch": self.progress.epoch,
            "state_dict": parts.evaluated.state_dict(),
            "monitor_best": self.progress.best_value,
            "optimizer": parts.optimiser.state_dict(),
            "lr_scheduler": parts.schedule.state_dict(),
            "progress": asdict(self.progress),
            "random_state": (course and course.random_state) or random_state(parts.device),
        }
        if parts.recipe.average:
            state["trained_weights"] = parts.net.state_dict()
            state["moving_average"] = parts.recipe.average.state()
        if learned_by_loss := parts.loss.state_dict():
            state["loss_state"] = learned_by_loss
        if self.best_weights.kept:
            state["best_weights"] = self.best_weights.kept
        if course is not None and course.steps:
            state["epoch_in_course"] = course.state()
        return state

    # ---- after an epoch, and at the end ----

    def save(self, is_best: bool) -> None:
        """Write what the last epoch has to leave on the disk; metrics first, as they say less.

        Where neither a checkpoint to be kept nor a best model has been written for a while
        (`checkpoint_minutes`), one is written that lasts until the end of the training.
        """
        if not self.parts.processes.is_first:
            return
        settings, epoch = self.settings, self.progress.epoch
        with self.folder.changing_metrics() as metrics:
            metrics["best_epoch"] = self.progress.best_epoch
            metrics["epochs"] = self.progress.history
        path: Path | None = None
        then: list[Callable[[], None]] = []  # once it is on the disk
        is_due = epoch % settings.save_period == 0 or epoch == settings.epochs
        if not settings.save_only_best and is_due and epoch > settings.skip_first_n_saves:
            path = self.folder.epoch_checkpoint(epoch)
            then.append(self._remove_old_checkpoints)
            if is_best:
                then.append(partial(link_checkpoint, path, self.folder.best_checkpoint))
        elif is_best:
            path = self.folder.best_checkpoint
        now = time.monotonic()
        if path is None and now - self._saved_at >= settings.checkpoint_minutes * 60:
            path = self.folder.last_checkpoint
        if path is not None:
            self._writer.write(path, self.state, then)
            self._saved_at = now

    def _remove_old_checkpoints(self) -> None:
        for path in self.folder.epoch_checkpoints()[: -self.settings.keep_last]:
            path.unlink()

    def save_mean(self, net: nn.Module, epochs: list[int]) -> None:
        """Make a model with the mean of some epochs' weights the best one on the disk."""
        if not self.parts.processes.is_first:
            return
        state = self.state() | {"state_dict": net.state_dict(), "averaged_epochs": epochs}
        state["trained_weights"] = self.parts.net.state_dict()
        save_checkpoint(self.folder.best_checkpoint, state)
        with self.folder.changing_metrics() as metrics:
            metrics |= {"best_epoch": self.progress.best_epoch, "averaged_epochs": epochs}

    def finish(self) -> None:
        """Wait until all checkpoints are on the disk.

        Raises:
            UserError: one could not be written.
        """
        self._writer.finish()

    @property
    def seconds(self) -> float:
        """For how long the training has stood still for its checkpoints."""
        return self._writer.seconds

    # ---- where a signal ends the training ----

    @contextmanager
    def uncut(self) -> Iterator[None]:
        """Let signals wait while the training is between two places from which it can go on."""
        with deferred():
            self._is_whole = False
            yield
            self._is_whole = True

    @contextmanager
    def saved_if_stopped(self) -> Iterator[None]:
        """Where a signal ends this block, save the training exactly as it stands."""
        try:
            yield
        except (KeyboardInterrupt, Exception) as error:
            stop = stop_behind(error)
            # Asked twice: what was cut in two is not saved.
            if not isinstance(stop, Stopped) or not self._is_whole:
                raise
            with last_words():
                if self.parts.processes.is_first:
                    save_checkpoint(self.folder.last_checkpoint, self.state())
                self.parts.processes.wait()
            stop.saved = (
                f"saved in {self.folder.last_checkpoint}; go on with: "
                f"python3 train.py --resume {shlex.quote(str(self.folder.models))}"
            )
            raise stop from None

    # ---- going on ----

    def start_from(self, restored: "Restored") -> None:
        """Continue from a checkpoint, whose state the parts have by now, as if nothing had been."""
        self.progress, self.course = restored.progress, restored.course
        self.best_weights = restored.best_weights
        if self.parts.processes.is_first:
            self._find_best_checkpoint(restored.path)
        self.progress = self.parts.processes.from_first(self.progress)
        within = f" and {self.course.steps} steps of the next" if self.course else ""
        _log.info("Continuing after epoch %d%s of %s", self.progress.epoch, within, restored.path)

    def _find_best_checkpoint(self, resumed: Path) -> None:
        """See to it that the run's best model is on the disk, or forget that there was one."""
        best = self.folder.best_checkpoint
        if self.course is None and self.progress.best_epoch == self.progress.epoch:
            # A kill may have struck between the checkpoint and its second name.
            if resumed.resolve() != best.resolve() and self.progress.epoch:
                link_checkpoint(resumed, best)
        elif self.progress.best_epoch and not self._will_come_to(best):
            _log.warning(
                "The best model so far (epoch %d) is not beside %s: looking for the best anew.",
                self.progress.best_epoch,
                resumed,
            )
            self.progress.best_value = None

    def _will_come_to(self, best: Path) -> bool:
        """Whether a best model is that of the progress, or of an epoch that is made once more."""
        if not best.is_file():
            return False
        epoch = load_checkpoint(best, leave_out=LARGE_KEYS)["epoch"]
        is_ahead = self.progress.epoch < epoch <= self.settings.epochs
        return epoch == self.progress.best_epoch or is_ahead


@dataclass(frozen=True)
class Restored:
    """How far the training of a checkpoint had come."""

    progress: Progress
    course: Course | None
    path: Path
    best_weights: BestWeights


def restore(parts: Parts, checkpoint: Mapping[str, Any], path: Path) -> Restored:
    """Give the parts of a training the state of a checkpoint, and return how far it had come.

    Raises:
        UserError: the checkpoint is of another architecture, or lacks the training's state.
    """
    load_weights(parts.net, checkpoint.get("trained_weights", checkpoint["state_dict"]), path)
    try:
        if parts.recipe.average:
            parts.recipe.average.restore(checkpoint["moving_average"])
        parts.loss.load_state_dict(checkpoint.get("loss_state", {}))
        restore_optimiser(parts.optimiser, checkpoint["optimizer"])
        restore_schedule(parts.schedule, checkpoint["lr_scheduler"])
        best_weights = BestWeights(parts.recipe.average_best)
        best_weights.restore(checkpoint.get("best_weights", []), parts.net)
        restored = Restored(*progress_of(checkpoint, parts.device), path, best_weights)
        restore_random_state(checkpoint["random_state"], parts.device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        fault = "its optimizer, schedule or progress is missing, damaged or of another config"
        fault = str(error) if isinstance(error, BadContent) else fault
        raise UserError(f"The training in {path} cannot be continued: {fault}.") from error
    return restored
