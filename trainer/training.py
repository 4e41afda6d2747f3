"""The training loop: epochs, validation, the best model, early stopping."""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from data_loader.batches import Batch
from logger.progress import Waits, progress
from logger.trackers import Trackers
from trainer.evaluation.evaluate import Evaluation, flat_metrics
from trainer.memory import keeping_freed_memory, told_if_full
from trainer.optimisation.schedules import moves_by_step, step_schedule
from trainer.parts import Monitor, Parts, TrainingSettings
from trainer.runs.progress import Course, Progress, random_state
from trainer.saving import Saving
from trainer.step import sum_of, warn_if_slow
from utils.errors import UserError
from utils.stopping import Stopped, requested

_log = logging.getLogger(__name__)

MINI_TRAIN_BATCHES = 3


@dataclass(eq=False)
class Trainer:
    """Trains one model: epoch by epoch its steps, a validation, and what is to be told and saved.

    Attributes:
        parts: model, loss, optimiser, schedule and data.
        settings: see `TrainingSettings`.
        saving: how far the training has come, and its checkpoints.
        writer: who is told how it goes.
        on_evaluation: called with the epoch and its evaluation (draws the rankings page).
    """

    parts: Parts
    settings: TrainingSettings
    saving: Saving
    writer: Trackers
    on_evaluation: Callable[[int, Evaluation], None] | None = None

    def __post_init__(self) -> None:
        parts = self.parts
        self.monitor = Monitor(self.settings.monitor)
        self.step = parts.training_step()
        warn_if_slow(parts.precision, parts.device)
        self._recorded_at: float | None = None
        self._seconds: dict[str, float] = {}  # what an epoch's time went into

    def train(self) -> Progress:
        """Train to the last epoch, or until early stopping ends it.

        Raises:
            UserError: the training diverges, or a checkpoint cannot be written.
            Stopped: a signal asked for the end; the training is saved where it stood.
        """
        saving = self.saving
        fits = told_if_full(f"a training in batches of {self.parts.train.batch_size} videos")
        is_on_cpu = self.parts.device.type == "cpu"
        with fits, keeping_freed_memory(is_on_cpu), saving.saved_if_stopped():
            try:
                while self.progress.epoch < self.settings.epochs and not self._is_stopped():
                    self._run_epoch(self.progress.epoch + 1)
            finally:
                saving.finish()
                self.step.free()
            with saving.uncut():
                self._average_best()
        _log.info("Checkpoints held it up for %.1f s.", saving.seconds)
        return self.progress

    @property
    def progress(self) -> Progress:
        """How far the training has come."""
        return self.saving.progress

    def _average_best(self) -> None:
        """Let the mean of the best epochs' weights be the best model, where it is better."""
        best, progress = self.saving.best_weights, self.progress
        if len(best.kept) < 2:
            return
        net = copy.deepcopy(self.parts.evaluated)
        net.load_state_dict(best.mean())
        evaluation = self.parts.evaluate(net)
        value = self.monitor.value(flat_metrics("val", evaluation.metrics))
        is_better = self.monitor.is_better(value, progress.best_value)
        what = "is the best model" if is_better else "is not better than the best"
        _log.info("The mean of the epochs %s %s.", ", ".join(map(str, best.epochs)), what)
        if is_better:
            progress.best_value, progress.best_epoch = value, progress.epoch
            self.saving.save_mean(net, best.epochs)

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
        started, saving = time.perf_counter(), self.saving
        if saving.course is None:
            saving.course = Course(epoch, self.parts.optimiser.param_groups[0]["lr"])
        course = saving.course
        with saving.uncut():
            steps_per_second = self._train_epoch(course, started)
        self.stop_together()
        record = self._record(course) | {"steps_per_second": steps_per_second}
        is_validated = epoch % self.settings.val_freq == 0 or epoch == self.settings.epochs
        if is_validated:
            self._validate(epoch, record)
        with saving.uncut():
            self.progress.epoch = epoch
            is_best = is_validated and self._note_value(epoch, record)
            step_schedule(self.parts.schedule, self.monitor.value(record))
            saving.course = None
            # With what was left to do after the epoch before: its checkpoint.
            now = time.perf_counter()
            record["seconds"] = course.seconds + now - (self._recorded_at or started)
            self._recorded_at = now
            self.progress.history.append(record)
            self._report(record, is_best)
            saving.save(is_best)
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
                self._make_step(batch, course, is_last=course.steps + 1 == count)
                if parts.processes.announce(requested()):
                    course.seconds += time.perf_counter() - started
                    break
        # Validation may draw random numbers; who continues after it must find these.
        course.random_state = random_state(parts.device)
        seconds = time.perf_counter() - started
        self._seconds = {"seconds_data": waits.seconds, "seconds_step": seconds - waits.seconds}
        return (course.steps - first) / seconds

    def _make_step(self, batch: Batch, course: Course, is_last: bool) -> None:
        parts = self.parts
        number = (course.epoch - 1) * len(parts.train) + course.steps + 1
        is_logged = self._is_logged(number)
        parts.recipe.measures_gradients = is_last or is_logged
        loss, distance = self.step(batch.to(parts.device), course.epoch)
        course.losses.append(loss)
        if distance is not None:
            course.distances.append(distance)
        if moves_by_step(parts.schedule):
            parts.schedule.step()
        if is_last:
            course.gradient_norm = parts.recipe.gradient_norm
        if is_logged:
            self._log_step(number, loss, distance)

    def _is_logged(self, number: int) -> bool:
        """Whether a step is one of every so many; for these alone the host waits for the device."""
        every = self.settings.log_every
        return every is not None and number % every == 0

    def _log_step(self, number: int, loss: Tensor, distance: Tensor | None) -> None:
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
        if course.gradient_norm is not None and course.gradient_norm.isfinite():
            record["gradient_norm"] = course.gradient_norm.item()
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
        value, progress = self.monitor.value(record), self.progress
        self.saving.best_weights.offer(epoch, value, self.monitor.is_better, self.parts.evaluated)
        if not self.monitor.is_better(value, progress.best_value):
            progress.validations_without_improvement += 1
            return False
        progress.validations_without_improvement = 0
        progress.best_value, progress.best_epoch = value, epoch
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
        self.writer.scalars("", scalars, epoch)
