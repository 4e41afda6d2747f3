"""What a training is put together from, how long it goes on, and by what it is judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data_loader.batches import TrainingSet
from data_loader.retrieval_set import RetrievalSet
from model.similarity import RetrievalModel
from trainer.distillation import Distillation
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.processes.alone import ALONE, Processes
from trainer.processes.batches import SharedBatches
from trainer.recipe.recipe import Recipe
from trainer.step import TrainingStep


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
    checkpoint_minutes: float = 10  # the most that a kill may cost, see `Saving`
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

    def training_step(self) -> TrainingStep:
        """Return what makes a step; several processes share each."""
        shared = None
        if self.processes is not ALONE:
            shared = SharedBatches(self.net, self.loss, self.processes, self.local_batch_norm)
        return TrainingStep(
            self.net,
            self.loss,
            self.optimiser,
            self.precision,
            self.distillation,
            self.recipe,
            shared,
        )

    def evaluate(self, net: RetrievalModel) -> Evaluation:
        """Evaluate a model on the retrieval set."""
        return evaluate(net, self.retrieval, self.metric_names, self.device, self.processes)


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
