"""The training loop: epochs, validation, the best model, early stopping, exact resuming."""

import copy
import logging
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data_loader.batches import TrainingSet
from data_loader.retrieval_set import RetrievalSet
from logger.progress import Waits, progress
from logger.trackers import Trackers
from model.similarity import RetrievalModel
from trainer.checkpoints.checkpoint import (
    LARGE_KEYS,
    link_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from trainer.checkpoints.writer import CheckpointWriter
from trainer.distillation import Distillation
from trainer.evaluation import Evaluation, evaluate, flat_metrics
from trainer.memory import keeping_freed_memory, told_if_full
from trainer.optimisation.schedules import moves_by_step, step_schedule
from trainer.processes.alone import ALONE, Processes
from trainer.processes.batches import SharedBatches
from trainer.recipe.averaging import BestWeights
from trainer.recipe.recipe import Recipe
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
from trainer.step import TrainingStep, sum_of, warn_if_slow
from utils.errors import BadContent, UserError
from utils.stopping import Stopped, deferred, last_words, requested, stop_behind

_log = logging.getLogger(__name__)

MINI_TRAIN_BATCHES = 3


@dataclass(frozen=True)
class TrainingSettings:
    """How long to train, what to watch, what to keep: the config's `trainer` section."""

    epochs: int
    monitor: str = "max val_t2v_metrics_geometric_mean_R1-R5-R10"
    early_stop: int | None = None  # epochs without improvement after which training ends
    val_freq: int = 1  # epochs between two validations
    save_only_best: bool = True
    save_period: int = 1  # epochs between two checkpoints (without save_only_best)
    skip_first_n_saves: int = 0
    keep_last: int = 3  # checkpoints kept (without save_only_best)
    checkpoint_minutes: float = 10  # the most that a kill may cost, see `_save`
    batches_per_epoch: int | None = None  # None: all
    log_every: int | None = None  # steps between two that are logged


@dataclass(frozen=True)
class Parts:
    """What a training is put together from."""

    net: RetrievalModel
    loss: nn.Module
    optimiser: Optimizer
    schedule: LRScheduler
    train: TrainingSet
    retrieval: RetrievalSet
    metric_names: list[str]
    device: torch.device
    distillation: Distillation | None = None  # the teachers, for a student of TeachText
    precision: str = "float32"  # one of `trainer.step.PRECISIONS`
    recipe: Recipe = field(default_factory=Recipe)
    processes: Processes = ALONE  # who shares the batches
    local_batch_norm: bool = False  # with the statistics of each process's part of a batch

    @property
    def evaluated(self) -> RetrievalModel:
        """The model that is evaluated and saved."""
        return self.recipe.evaluated(self.net)

    def evaluate(self, net: RetrievalModel) -> Evaluation:
        """Evaluate a model on the retrieval set."""
        return evaluate(net, self.retrieval, self.metric_names, self.device, self.processes)


def _shared_batches(parts: Parts) -> SharedBatches | None:
    if parts.processes is ALONE:
        return None
    return SharedBatches(parts.net, parts.loss, parts.processes, parts.local_batch_norm)


class Monitor:
    """What is watched: "max <metric>", "min <metric>", or "off".

    With "off" every epoch is the best: the last model is the one that is kept.

    Attributes:
        direction: "max" or "min", whether more or less of the metric is better; None: it is off.
        metric: as `flat_metrics` names it, "" where it is off.
    """

    def __init__(self, text: str) -> None:
        direction, _, self.metric = text.partition(" ")
        self.direction = None if direction == "off" else direction

    def value(self, record: Mapping[str, Any]) -> float | None:
        """Return the metric of an epoch; None where it was not validated, or nothing is watched."""
        return record.get(self.metric)

    def is_better(self, value: float | None, best: float | None) -> bool:
        if value is None or best is None:
            return True
        return value > best if self.direction == "max" else value < best


@dataclass(eq=False)
class Trainer:
    """Trains one model and keeps its run's folder up to date.

    Attributes:
        parts: model, loss, optimiser, schedule and data.
        settings: see `TrainingSettings`.
        folder: where checkpoints and metrics go.
        header: what every checkpoint carries besides its state ("arch", "config", "seed", ...).
        writer: who is told how it goes.
        on_evaluation: called with the epoch and its evaluation (draws the rankings page).
        progress: how far it has come.
    """

    parts: Parts
    settings: TrainingSettings
    folder: RunFolder
    header: dict[str, Any]
    writer: Trackers
    on_evaluation: Callable[[int, Evaluation], None] | None = None
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        parts = self.parts
        self.monitor = Monitor(self.settings.monitor)
        self.step = TrainingStep(
            parts.net,
            parts.loss,
            parts.optimiser,
            parts.precision,
            parts.distillation,
            parts.recipe,
            _shared_batches(parts),
        )
        self.best_weights = BestWeights(parts.recipe.average_best)
        warn_if_slow(parts.precision, parts.device)
        self._course: Course | None = None
        self._is_whole = True
        self._saved_at = time.monotonic()
        self._writer = CheckpointWriter(parts.device)
        self._recorded_at: float | None = None
        self._seconds: dict[str, float] = {}  # what an epoch's time went into

    def train(self) -> Progress:
        """Train to the last epoch, or until early stopping ends it.

        Raises:
            UserError: the training diverges, or a checkpoint cannot be written.
            Stopped: a signal asked for the end; the training is saved where it stood.
        """
        fits = told_if_full(f"a training in batches of {self.parts.train.batch_size} videos")
        with fits, keeping_freed_memory(self.parts.device.type == "cpu"), self.saved_if_stopped():
            try:
                while self.progress.epoch < self.settings.epochs and not self._is_stopped():
                    self._run_epoch(self.progress.epoch + 1)
            finally:
                self._writer.finish()
                self.step.forget_graphs()
            with self._uncut():
                self._average_best()
        _log.info("Checkpoints held it up for %.1f s.", self._writer.seconds)
        return self.progress

    def _average_best(self) -> None:
        """Let the mean of the best epochs' weights be the best model, where it is better."""
        if len(self.best_weights.kept) < 2:
            return
        parts, epochs = self.parts, self.best_weights.epochs
        net = copy.deepcopy(parts.evaluated)
        net.load_state_dict(self.best_weights.mean())
        evaluation = parts.evaluate(net)
        value = self.monitor.value(flat_metrics("val", evaluation.metrics))
        is_better = self.monitor.is_better(value, self.progress.best_value)
        what = "is the best model" if is_better else "is not better than the best"
        _log.info("The mean of the epochs %s %s.", ", ".join(map(str, epochs)), what)
        if is_better:
            self.progress.best_value, self.progress.best_epoch = value, self.progress.epoch
        if is_better and parts.processes.is_first:
            state = self.state() | {"state_dict": net.state_dict(), "averaged_epochs": epochs}
            state["trained_weights"] = parts.net.state_dict()
            save_checkpoint(self.folder.best_checkpoint, state)
            with self.folder.changing_metrics() as metrics:
                metrics |= {"best_epoch": self.progress.best_epoch, "averaged_epochs": epochs}

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

    @contextmanager
    def _uncut(self) -> Iterator[None]:
        """Let signals wait while the training is between two places from which it can go on."""
        with deferred():
            self._is_whole = False
            yield
            self._is_whole = True

    def stop_together(self) -> None:
        """Where signals wait for a good moment, as with several processes, this is one.

        Raises:
            Stopped: a signal has asked one of the processes for the end.
        """
        if number := self.parts.processes.largest(requested()):
            raise Stopped(number)

    def _is_stopped(self) -> bool:
        patience = self.settings.early_stop
        stale = self.progress.validations_without_improvement
        if not patience or stale < patience:
            return False
        _log.info(
            "Stopped early: %s has not improved for %d validations.", self.monitor.metric, stale
        )
        return True

    def _run_epoch(self, epoch: int) -> None:
        """Train, validate, save; a signal cuts neither a step nor what comes after validation."""
        started = time.perf_counter()
        if self._course is None:
            self._course = Course(epoch, self.parts.optimiser.param_groups[0]["lr"])
        course = self._course
        with self._uncut():
            steps_per_second = self._train_epoch(course, started)
        self.stop_together()
        record = self._record(course) | {"steps_per_second": steps_per_second}
        is_validated = epoch % self.settings.val_freq == 0 or epoch == self.settings.epochs
        if is_validated:
            self._validate(epoch, record)
        with self._uncut():
            self.progress.epoch = epoch
            is_best = is_validated and self._note_value(epoch, record)
            if is_validated:
                value = self.monitor.value(record)
                better = self.monitor.is_better
                self.best_weights.offer(epoch, value, better, self.parts.evaluated)
            step_schedule(self.parts.schedule, self.monitor.value(record))
            self._course = None
            # With what was left to do after the epoch before: its checkpoint.
            now = time.perf_counter()
            record["seconds"] = course.seconds + now - (self._recorded_at or started)
            self._recorded_at = now
            self.progress.history.append(record)
            self._report(record, is_best)
            if self.parts.processes.is_first:
                self._save(epoch, is_best)
        self.stop_together()

    def _train_epoch(self, course: Course, started: float) -> float:
        """Make the steps of an epoch that are still to be made; returns the steps per second.

        It ends before its time, between two steps, where a signal asks for it.
        """
        parts = self.parts
        parts.net.train()
        limit = self.settings.batches_per_epoch
        count = len(parts.train) if limit is None else min(limit, len(parts.train))
        first = course.steps
        waits = Waits()
        batches = waits.over(parts.train.batches(course.epoch, limit=limit, start=first))
        shown = progress(batches, total=count - first, description=f"epoch {course.epoch}")
        with self.step.divided(parts.train.batch_size, parts.train.captions_per_video):
            for batch in shown:
                loss, distance = self.step(batch.to(parts.device), course.epoch)
                course.losses.append(loss)
                if distance is not None:
                    course.distances.append(distance)
                if moves_by_step(parts.schedule):
                    parts.schedule.step()
                self._log_step((course.epoch - 1) * len(parts.train) + course.steps, loss, distance)
                if parts.processes.announce(requested()):
                    course.seconds += time.perf_counter() - started
                    break
        # Validation may draw random numbers; who continues after it must find these.
        course.random_state = random_state(parts.device)
        seconds = time.perf_counter() - started
        self._seconds = {"seconds_data": waits.seconds, "seconds_step": seconds - waits.seconds}
        return (course.steps - first) / seconds

    def _log_step(self, number: int, loss: Tensor, distance: Tensor | None) -> None:
        """Log every so many steps; for these alone the host waits for the device."""
        if not self.settings.log_every or number % self.settings.log_every:
            return
        values = {"loss": loss.item(), "lr": self.parts.optimiser.param_groups[0]["lr"]}
        if distance is not None:
            values["distil_loss"] = distance.item()
        if self.parts.recipe.gradient_norm is not None:
            values["gradient_norm"] = self.parts.recipe.gradient_norm.item()
        _log.info("step %d: %s", number, "  ".join(f"{k} {v:.4g}" for k, v in values.items()))
        self.writer.scalars("step", values, number)

    def _record(self, course: Course) -> dict[str, Any]:
        """Return what the steps of an epoch amount to; here the host waits for the device."""
        mean = sum_of(course.losses) / course.steps
        if self.parts.distillation:
            self.parts.distillation.check()
        if not math.isfinite(mean):
            raise UserError(
                f"The training loss of epoch {course.epoch} is {mean}: the training has diverged. "
                "Lower optimizer.args.lr, or look for extreme values in the features."
            )
        record = {"epoch": course.epoch, "lr": course.lr, "loss": mean}
        if course.distances:
            record["distil_loss"] = sum_of(course.distances) / course.steps
        return record

    def _validate(self, epoch: int, record: dict[str, Any]) -> None:
        started = time.perf_counter()
        evaluation = self.parts.evaluate(self.parts.evaluated)
        self._seconds["seconds_evaluation"] = time.perf_counter() - started
        record |= flat_metrics("val", evaluation.metrics)
        if self.on_evaluation and self.parts.processes.is_first:
            self.on_evaluation(epoch, evaluation)

    def _note_value(self, epoch: int, record: Mapping[str, Any]) -> bool:
        """Take down how good a validated epoch is; returns whether it is the best so far."""
        value = self.monitor.value(record)
        if not self.monitor.is_better(value, self.progress.best_value):
            self.progress.validations_without_improvement += 1
            return False
        self.progress.validations_without_improvement = 0
        self.progress.best_value = value
        self.progress.best_epoch = epoch
        return True

    def _report(self, record: Mapping[str, Any], is_best: bool) -> None:
        epoch = record["epoch"]
        shown = f"loss {record['loss']:.4f}"
        if "distil_loss" in record:
            shown += f" (from teachers {record['distil_loss']:.4f})"
        shown += f"  lr {record['lr']:.2g}"
        for direction in ("t2v", "v2t"):
            recalls = [record.get(f"val_{direction}_metrics_R{k}") for k in (1, 5, 10)]
            if None not in recalls:
                shown += f"  {direction} R@1/5/10 " + "/".join(f"{value:.1f}" for value in recalls)
        mark = "  best so far" if is_best else ""
        _log.info("epoch %d: %s  %.1f s%s", epoch, shown, record["seconds"], mark)
        scalars = {name: value for name, value in record.items() if name != "epoch"}
        scalars |= self._seconds
        if self.parts.recipe.gradient_norm is not None:
            scalars["gradient_norm"] = self.parts.recipe.gradient_norm.item()
        self.writer.scalars("", scalars, epoch)

    def _save(self, epoch: int, is_best: bool) -> None:
        """Write what this epoch has to leave on the disk; metrics first, as they say less.

        Where neither a checkpoint to be kept nor a best model has been written for a while
        (`checkpoint_minutes`), one is written that lasts until the end of the training.
        """
        settings = self.settings
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

    def state(self) -> dict[str, Any]:
        """Everything that continuing this training exactly needs, under the published keys.

        Within an epoch `epoch` is the last whole one, and `epoch_in_course` tells of the steps
        since.
        """
        parts, course = self.parts, self._course
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

    def start_from(self, state: "Restored") -> None:
        """Continue from a checkpoint, whose state the parts have by now, as if nothing had been."""
        self.progress, self._course = state.progress, state.course
        self.best_weights = state.best_weights
        if self.parts.processes.is_first:
            self._find_best_checkpoint(state.path)
        self.progress = self.parts.processes.from_first(self.progress)
        within = f" and {self._course.steps} steps of the next" if self._course else ""
        _log.info("Continuing after epoch %d%s of %s", self.progress.epoch, within, state.path)

    def _find_best_checkpoint(self, resumed: Path) -> None:
        """See to it that the run's best model is on the disk, or forget that there was one."""
        best = self.folder.best_checkpoint
        if self._course is None and self.progress.best_epoch == self.progress.epoch:
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
