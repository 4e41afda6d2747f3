"""The training loop: epochs, validation, the best model, early stopping, exact resuming."""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data_loader.batches import TrainingSet
from data_loader.errors import UserError, did_you_mean
from data_loader.retrieval_set import RetrievalSet
from logger.progress import progress
from logger.tensorboard import TensorBoardWriter
from trainer.checkpoint import link_checkpoint, load_weights, save_checkpoint
from trainer.distillation import Distillation
from trainer.evaluation import Evaluation, evaluate
from trainer.memory import keeping_freed_memory
from trainer.precision import warn_if_slow
from trainer.run_folder import RunFolder
from trainer.step import TrainingStep, sum_of

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
    batches_per_epoch: int | None = None  # None: all


@dataclass(frozen=True)
class Parts:
    """What a training is put together from."""

    net: nn.Module
    loss: nn.Module
    optimiser: Optimizer
    schedule: LRScheduler
    train: TrainingSet
    retrieval: RetrievalSet
    metric_names: list[str]
    device: torch.device
    distillation: Distillation | None = None  # the teachers, for a student of TeachText
    precision: str = "float32"  # see `trainer.precision`


@dataclass
class Progress:
    """How far a training has come: all of its state that is neither weights nor optimiser."""

    epoch: int = 0
    best_epoch: int = 0
    best_value: float | None = None
    validations_without_improvement: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Monitor:
    """Says whether a validation is better than the best so far ("max <metric>", "min <metric>").

    With "off" every epoch is the best: the last model is the one that is kept.
    """

    def __init__(self, text: str) -> None:
        direction, _, self.metric = text.partition(" ")
        if (direction not in ("max", "min") or not self.metric) and text != "off":
            raise UserError(
                f'trainer.monitor "{text}" is not "max <metric>", "min <metric>" or "off".'
            )
        self.direction = direction

    def value(self, metrics: Mapping[str, float]) -> float | None:
        if self.direction == "off":
            return None
        if self.metric not in metrics:
            raise UserError(
                f'trainer.monitor names the metric "{self.metric}", which this training does not '
                f"measure{did_you_mean(self.metric, metrics)}."
            )
        return metrics[self.metric]

    def is_better(self, value: float | None, best: float | None) -> bool:
        if value is None or best is None:
            return True
        return value > best if self.direction == "max" else value < best


class Trainer:
    """Trains one model and keeps its run's folder up to date.

    Args:
        parts: model, loss, optimiser, schedule and data.
        settings: see `TrainingSettings`.
        folder: where checkpoints and metrics go.
        header: what every checkpoint carries besides its state ("arch", "config", "seed").
        writer: TensorBoard.
        on_evaluation: called with the epoch and its evaluation (draws the rankings page).
    """

    def __init__(
        self,
        parts: Parts,
        settings: TrainingSettings,
        folder: RunFolder,
        header: Mapping[str, Any],
        writer: TensorBoardWriter,
        on_evaluation: Callable[[int, Evaluation], None] | None = None,
    ) -> None:
        self.parts = parts
        self.settings = settings
        self.folder = folder
        self.header = dict(header)
        self.writer = writer
        self.on_evaluation = on_evaluation
        self.monitor = Monitor(settings.monitor)
        self.step = TrainingStep(
            parts.net, parts.loss, parts.optimiser, parts.precision, parts.distillation
        )
        warn_if_slow(parts.precision, parts.device)
        self.progress = Progress()

    def train(self) -> Progress:
        """Train to the last epoch, or until early stopping ends it.

        Raises:
            UserError: the training diverges, or a checkpoint cannot be written.
        """
        with keeping_freed_memory(self.parts.device.type == "cpu"):
            while self.progress.epoch < self.settings.epochs and not self._is_stopped():
                self._run_epoch(self.progress.epoch + 1)
        return self.progress

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
        started = time.perf_counter()
        record: dict[str, Any] = {"epoch": epoch, "lr": self.parts.optimiser.param_groups[0]["lr"]}
        record |= self._train_epoch(epoch)
        self.parts.schedule.step()
        self.progress.epoch = epoch
        is_best = False
        if epoch % self.settings.val_freq == 0 or epoch == self.settings.epochs:
            is_best = self._validate(epoch, record)
        record["seconds"] = time.perf_counter() - started
        self.progress.history.append(record)
        self._report(record, is_best)
        self._save(epoch, is_best)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        parts = self.parts
        parts.net.train()
        started = time.perf_counter()
        limit = self.settings.batches_per_epoch
        count = len(parts.train) if limit is None else min(limit, len(parts.train))
        losses, distances = [], []
        batches = parts.train.batches(epoch, limit=limit)
        for batch in progress(batches, total=count, description=f"epoch {epoch}"):
            loss, distance = self.step(batch.to(parts.device), epoch)
            losses.append(loss)
            if distance is not None:
                distances.append(distance)
        mean = sum_of(losses) / count
        if parts.distillation:
            parts.distillation.check()
        if not math.isfinite(mean):
            raise UserError(
                f"The training loss of epoch {epoch} is {mean}: the training has diverged. Lower "
                "optimizer.args.lr, or look for extreme values in the features."
            )
        record = {"loss": mean, "steps_per_second": count / (time.perf_counter() - started)}
        if parts.distillation:
            record["distil_loss"] = sum_of(distances) / count
        return record

    def _validate(self, epoch: int, record: dict[str, Any]) -> bool:
        parts = self.parts
        evaluation = evaluate(parts.net, parts.retrieval, parts.metric_names, parts.device)
        values = flat_metrics("val", evaluation.metrics)
        record |= values
        if self.on_evaluation:
            self.on_evaluation(epoch, evaluation)
        value = self.monitor.value(values)
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
        self.writer.scalars("", scalars, epoch)

    def _save(self, epoch: int, is_best: bool) -> None:
        """Write what this epoch has to leave on the disk; metrics first, as they say less."""
        settings = self.settings
        metrics = self.folder.read_metrics() | {
            "best_epoch": self.progress.best_epoch,
            "epochs": self.progress.history,
        }
        self.folder.write_metrics(metrics)
        path = None
        is_due = epoch % settings.save_period == 0 or epoch == settings.epochs
        if not settings.save_only_best and is_due and epoch > settings.skip_first_n_saves:
            path = self.folder.epoch_checkpoint(epoch)
            save_checkpoint(path, self.state())
            self._remove_old_checkpoints()
        if is_best:
            if path is None:
                save_checkpoint(self.folder.best_checkpoint, self.state())
            else:
                link_checkpoint(path, self.folder.best_checkpoint)

    def _remove_old_checkpoints(self) -> None:
        found = self.folder.models.glob("checkpoint-epoch*.pth")
        by_epoch = sorted(found, key=lambda path: int(path.stem.removeprefix("checkpoint-epoch")))
        for path in by_epoch[: -self.settings.keep_last]:
            path.unlink()

    def state(self) -> dict[str, Any]:
        """Everything that continuing this training exactly needs, under the published keys."""
        parts = self.parts
        return self.header | {
            "epoch": self.progress.epoch,
            "state_dict": parts.net.state_dict(),
            "monitor_best": self.progress.best_value,
            "optimizer": parts.optimiser.state_dict(),
            "lr_scheduler": parts.schedule.state_dict(),
            "progress": asdict(self.progress),
            "random_state": random_state(parts.device),
        }

    def resume(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Continue from a checkpoint as if the training had never stopped.

        Raises:
            UserError: the checkpoint is of another architecture, or lacks the training's state.
        """
        parts = self.parts
        load_weights(parts.net, checkpoint["state_dict"], path)
        try:
            parts.optimiser.load_state_dict(checkpoint["optimizer"])
            parts.schedule.load_state_dict(checkpoint["lr_scheduler"])
            self.progress = Progress(**copy.deepcopy(checkpoint["progress"]))
            restore_random_state(checkpoint["random_state"], parts.device)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The training in {path} cannot be continued: its optimizer, schedule or progress "
                f"is missing or does not fit this config ({error})."
            ) from error
        self._find_best_checkpoint(path)
        _log.info("Continuing after epoch %d of %s", self.progress.epoch, path)

    def _find_best_checkpoint(self, resumed: Path) -> None:
        """See to it that the run's best model is on the disk, or forget that there was one."""
        best = self.folder.best_checkpoint
        if self.progress.best_epoch == self.progress.epoch:
            # A kill may have struck between the checkpoint and its second name.
            if resumed.resolve() != best.resolve():
                link_checkpoint(resumed, best)
        elif not best.is_file():
            beside = resumed.with_name(best.name)
            if beside.is_file():
                link_checkpoint(beside, best)
                return
            _log.warning(
                "The best model so far (epoch %d) is not beside %s: looking for the best anew.",
                self.progress.best_epoch,
                resumed,
            )
            self.progress.best_value = None


def flat_metrics(stage: str, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Name metrics as in logs and monitors: `val_t2v_metrics_R1`."""
    return {
        f"{stage}_{name}_{key}": value
        for name, values in metrics.items()
        for key, value in values.items()
    }


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's own generators (noise of ablations; data have generators of their own)."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
