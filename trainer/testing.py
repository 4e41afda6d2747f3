"""A test: a checkpoint's model on the retrieval set of a config, and what it leaves in a run."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.loader import ExpertDataLoader
from data_loader.retrieval_set import RetrievalSet
from logger.log_file import FILE_ALONE
from logger.predictions import write_predictions
from logger.results import CORRECTED, describe_run
from model.fast import choose_products
from model.metric import METRICS
from model.similarity import RetrievalModel
from trainer.build import build_loader, build_net, build_visualizer
from trainer.checkpoints.checkpoint import NOT_TESTED, load_checkpoint, load_weights
from trainer.evaluation.correction import CorrectionSettings, correct
from trainer.evaluation.evaluate import (
    Evaluation,
    counts_of,
    evaluate,
    flat_metrics,
    predict,
    warn_of_other_counts,
)
from trainer.memory import keeping_freed_memory, told_if_full
from trainer.processes.alone import ALONE, Processes
from trainer.rankings.about import curves_of, facts_of
from trainer.runs.folder import RunFolder, test_label
from utils.command_line import version
from utils.config import Config
from utils.files import replacing

_log = logging.getLogger(__name__)

PAGE_NOTE = (
    ". The bank is of training captions and videos, no other query of the test is used. Ranks and "
    "similarities below are the plain ones."
)


@dataclass(frozen=True)
class TestResult:
    """The outcome of a test, and where it was left.

    In challenge mode it is predictions, without metrics.
    """

    metrics: dict[str, dict[str, float]]
    split: str
    page: Path | None = None
    predictions: Path | None = None

    def describe(
        self, checkpoint: Path, log: Path, tensorboard: bool = False, note: str = ""
    ) -> str:
        """Tell how it went and how to look at it (see `describe_run`)."""
        where = (self.split, checkpoint, log, self.page)
        return describe_run(self.metrics, *where, tensorboard, self.predictions, note)


@dataclass(frozen=True)
class Test:
    """A test that is ready to run: the model has the checkpoint's weights, the data are open."""

    __test__ = False  # of a model, not of this program

    config: Config
    checkpoint_path: Path
    epoch: int | None
    net: RetrievalModel
    loader: ExpertDataLoader
    device: torch.device
    validation: RetrievalSet | None = None  # on which a correction is chosen
    processes: Processes = ALONE  # who shares the work; the first one writes

    @classmethod
    def prepare(
        cls,
        config: Config,
        checkpoint_path: Path,
        device: str,
        seed: int = 0,
        training: Config | None = None,
        loader: ExpertDataLoader | None = None,
        validation: RetrievalSet | None = None,
        processes: Processes = ALONE,
    ) -> "Test":
        """Build the model of a checkpoint and open the retrieval set of a config.

        Args:
            config: of the test.
            checkpoint_path: the weights.
            device: where to compute.
            seed: of the run.
            training: the config of the training, which has the validation split.
            loader: the data of the config, where they are open already.
            validation: the validation split, where it is open already and another one.
            processes: that share the test.

        Raises:
            UserError: the checkpoint does not fit the config, or cannot be read.
        """
        checkpoint = load_checkpoint(checkpoint_path, NOT_TESTED, needs_config=False)
        if loader is None:
            loader = build_loader(config, seed, device)
        elif loader.retrieval.device != torch.device(device):
            loader.move_to(device)
        net = build_net(config, loader)
        load_weights(net, checkpoint["state_dict"], checkpoint_path)
        net.to(device).products = choose_products(net, checkpoint.get("products"))
        if training and training.values != config.values and corrects(config):
            validation = build_loader(training, seed, device).retrieval
        epoch = checkpoint["epoch"]
        on = torch.device(device)
        return cls(config, checkpoint_path, epoch, net, loader, on, validation, processes)

    @property
    def split(self) -> str:
        return self.config.get("data_loader.args.split_name", "")

    @property
    def label(self) -> str:
        """What tells this test's files from those of tests on other splits or checkpoints."""
        return test_label(self.split, self.checkpoint_path)

    def run(
        self,
        folder: RunFolder,
        is_final: bool = False,
        on_evaluation: Callable[[int, Evaluation, RetrievalModel, RetrievalSet], None]
        | None = None,
    ) -> TestResult:
        """Evaluate; leave metrics, matrix and page in a run's folder.

        The metrics file lists every test under `tests`; `test` is the one that a training ended
        with (`is_final`), which no later test of another split or checkpoint replaces. In challenge
        mode there are predictions instead, listed under `predictions` by split. The first process
        calls `on_evaluation` with the model's epoch and what was evaluated.
        """
        processes = self.processes
        if self.config.get("challenge_mode", False):
            if not processes.is_first:
                return TestResult({}, self.split)
            return self._predict(folder, is_final)
        retrieval = self.loader.retrieval
        protocol = retrieval.protocol(self.net.test_caption_mode)
        fits = told_if_full("embedding and comparing the retrieval set")
        with keeping_freed_memory(self.device.type == "cpu"), fits:
            about = (self.net, retrieval, self.config["metrics"], self.device)
            evaluation = evaluate(*about, processes)
            if not processes.is_first:
                return TestResult(evaluation.metrics, self.split)
            corrected, rules = self._corrected(evaluation)
        metrics, note = evaluation.metrics | corrected, ""
        if rules:
            note = "Hubness correction, chosen {chosen}: t2v {t2v}, v2t {v2t}".format(**rules)
            _log.info("%s", note)
            note += PAGE_NOTE
        _log.info("Test on the split %s: %s", self.split, protocol)
        for name, value in flat_metrics("test", metrics).items():
            _log.info(" %s: %s", name, value, extra=FILE_ALONE)  # rounded in the table at the end
        if evaluation.sims is not None:
            path = folder.similarities(self.label)
            with replacing(path) as handle:
                np.save(handle, evaluation.sims.numpy())
            _log.info("Saved similarity matrix predictions to %s", path)
        if on_evaluation:
            on_evaluation(self.epoch or 0, evaluation, self.net, retrieval)
        page = None
        if visualizer := build_visualizer(self.config):
            title = f"{self.config.name}: rankings of the test on {self.split}"
            # The page without a label is that of the test by which the run is, or will be, known.
            is_main = is_final or folder.read_metrics().get("test_label") in (None, self.label)
            label = None if is_main else self.label
            shown = (self.net, evaluation, retrieval, folder.web, title)
            facts = facts_of(
                self.config, folder, self.net, retrieval, self.checkpoint_path, self.epoch
            )
            page = visualizer.draw(
                *shown,
                test=label,
                metrics=metrics,
                note=note,
                about=facts,
                curves=curves_of(folder),
            )
        found = {
            "test_protocol": protocol.name,
            "test_queries": protocol.queries,
            "test_captions": protocol.captions,
            "test": metrics,
        }
        if rules:
            found["test_correction"] = rules
        # Last, as it says that a training has ended: a kill before this leaves nothing out.
        self._record(folder, "tests", found, is_final)
        return TestResult(metrics, self.split, page)

    def _corrected(
        self, evaluation: Evaluation
    ) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
        """Return the metrics with hubs corrected, and the rules: none where none are asked for."""
        if not corrects(self.config):
            return {}, {}
        settings = CorrectionSettings(**self.config["correction"], seed=self.config.get("seed", 0))
        ranks, rules = correct(
            self.net, self.loader, self.validation, evaluation, settings, self.device
        )
        names = self.config["metrics"]
        return {name + CORRECTED: METRICS[name](ranks) for name in names}, rules

    def _predict(self, folder: RunFolder, is_final: bool) -> TestResult:
        """Leave the predictions of a challenge in place of metrics."""
        retrieval, description = self.loader.retrieval, self.loader.description
        counts = counts_of(retrieval)
        expected = description.split(self.split).expected
        warn_of_other_counts(counts, expected, f"{description.name} {self.split}")
        path = folder.predictions(self.label)
        write_predictions(path, predict(self.net, retrieval, self.device))
        _log.info("Saved predictions of %d queries to %s", counts.queries, path)
        found = {"test_queries": counts.queries, "file": path.name}
        self._record(folder, "predictions", found, is_final)
        return TestResult({}, self.split, predictions=path)

    def _record(
        self, folder: RunFolder, list_name: str, found: dict[str, Any], is_final: bool
    ) -> None:
        """Put this test in the metrics file, over an earlier one of its split and checkpoint."""
        made = {
            "test_split": self.split,
            "test_label": self.label,
            "test_videos": len(self.loader.retrieval),
            "test_epoch": self.epoch,
            "checkpoint": self.checkpoint_path.name,
            "version": version(),
        } | found
        same = ("test_split", "checkpoint")
        with folder.changing_metrics() as metrics:
            # What a training ended with or, where none has been made here, the first test.
            if is_final or not ("test" in metrics or "predictions" in metrics):
                metrics |= {key: value for key, value in made.items() if key.startswith("test")}
            others = [
                t for t in metrics.get(list_name, []) if any(t.get(k) != made[k] for k in same)
            ]
            metrics[list_name] = [*others, made]


def corrects(config: Config) -> bool:
    """Whether a test reports corrected metrics too."""
    return config.get("correction", False) is not False
