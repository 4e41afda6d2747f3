"""One run from config to results: train with one seed, test a checkpoint."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.files import replacing
from data_loader.loader import ExpertDataLoader
from data_loader.retrieval_set import RetrievalSet
from logger.predictions import write_predictions
from logger.tensorboard import TensorBoardWriter
from trainer.build import (
    build_distillation,
    build_loader,
    build_loss,
    build_net,
    build_optimiser_of,
    build_schedule_of,
    build_visualizer,
    count_parameters,
)
from trainer.challenge import counts_of, predict, warn_of_other_counts
from trainer.checkpoint import LARGE_KEYS, load_checkpoint, load_weights
from trainer.evaluation import Evaluation, evaluate
from trainer.memory import keeping_freed_memory
from trainer.run_folder import RunFolder
from trainer.training import (
    MINI_TRAIN_BATCHES,
    Parts,
    Trainer,
    TrainingSettings,
    flat_metrics,
)
from trainer.visualizer import rankings_text
from utils.config import Config
from utils.seeds import seed_everything

_log = logging.getLogger(__name__)

RANKINGS_IN_TENSORBOARD = 5


@dataclass(frozen=True)
class Options:
    """What the command line adds to a config."""

    device: str
    mini_train: bool = False
    single_epoch: bool = False
    resume: Path | None = None

    @property
    def marks(self) -> dict[str, bool]:
        """What the results of a quick try carry, so that nobody takes them for those of a run."""
        return {"quick_try": True} if self.mini_train or self.single_epoch else {}

    def use_tensorboard(self, config: Config) -> bool:
        """Whether a training with this config writes curves; a quick try does not."""
        return config.get("trainer.tensorboard", True) and not self.mini_train


@dataclass(frozen=True)
class TestResult:
    """The outcome of a test, and where it was left.

    In challenge mode it is predictions, without metrics.
    """

    metrics: dict[str, dict[str, float]]
    split: str
    page: Path | None
    predictions: Path | None = None


def train_run(config: Config, seed: int, folder: RunFolder, options: Options) -> TestResult:
    """Train with one seed, then test the best model; all results go into the run's folder.

    Raises:
        UserError: something that the config names is not there or does not fit.
    """
    seed_everything(seed)
    _log.info("Setting experiment random seed to %d", seed)
    config.save(folder.config)
    loader = build_loader(config, seed, options.device)
    net = build_net(config, loader).to(options.device)
    _log.info("Trainable parameters: %d", count_parameters(net))
    optimiser = build_optimiser_of(config, net)
    parts = Parts(
        net=net,
        loss=build_loss(config),
        optimiser=optimiser,
        schedule=build_schedule_of(config, optimiser),
        train=loader.train,
        retrieval=loader.retrieval,
        metric_names=config["metrics"],
        device=torch.device(options.device),
        distillation=build_distillation(config, loader, seed, options.device),
        precision=config.get("precision", "float32"),
    )
    if config.get("compile", False):
        # On a GPU the kernels of a step are launched as one graph.
        on_gpu = torch.device(options.device).type == "cuda"
        net.compile(mode="reduce-overhead" if on_gpu else None)
    checkpoint = load_checkpoint(options.resume) if options.resume else None
    with TensorBoardWriter(
        folder.log / f"seed-{seed}",
        enabled=options.use_tensorboard(config),
        purge_step=checkpoint["epoch"] + 1 if checkpoint else None,
    ) as writer:
        trainer = Trainer(
            parts,
            _settings(config["trainer"], options),
            folder,
            header={
                "arch": type(net).__name__,
                "config": config.stored(),
                "seed": seed,
                **options.marks,
            },
            writer=writer,
            on_evaluation=_on_evaluation(config, folder, net, loader.retrieval, writer),
        )
        if checkpoint:
            trainer.resume(checkpoint, options.resume)
        started = time.perf_counter()
        progress = trainer.train()
    _log.info("Training took %.1f s.", time.perf_counter() - started)
    folder.write_metrics(
        folder.read_metrics()
        | {"name": config.name, "seed": seed, "parameters": count_parameters(net)}
        | options.marks
    )
    _log.info("The best performing ckpt can be found at %s", folder.best_checkpoint)
    _log.info("It is the model of epoch %d.", progress.best_epoch)
    return run_test(
        config.eval_config(), folder.best_checkpoint, folder, options.device, seed, is_final=True
    )


def config_of_checkpoint(checkpoint: Path, custom_args: str | None = None) -> Config:
    """The config of the training that wrote a checkpoint: the file beside it, or its own record.

    Raises:
        UserError: the checkpoint cannot be read, or its config is not valid.
    """
    beside = checkpoint.with_name("config.json")
    if beside.is_file():
        return Config.from_file(beside, custom_args)
    content = load_checkpoint(checkpoint, leave_out=LARGE_KEYS)
    return Config.from_dict(content["config"]).with_custom_args(custom_args)


def seed_of_run(checkpoint: Path) -> int:
    """The seed of the training that wrote a checkpoint."""
    content = load_checkpoint(checkpoint, leave_out=LARGE_KEYS)
    return int(content.get("seed", content["config"].get("seed", 0)))


def run_test(
    config: Config,
    checkpoint_path: Path,
    folder: RunFolder,
    device: str,
    seed: int = 0,
    is_final: bool = False,
) -> TestResult:
    """Evaluate a checkpoint on the retrieval set of a config; leave metrics, matrix and page.

    The metrics file lists every test under `tests`; `test` is the one that a training ended with
    (`is_final`), which no later test of another split or checkpoint replaces. In challenge mode
    there are predictions instead, listed under `predictions` by split.

    Raises:
        UserError: the checkpoint does not fit the config, or cannot be read.
    """
    checkpoint = load_checkpoint(checkpoint_path, leave_out=("optimizer",))
    loader = build_loader(config, seed, device)
    net = build_net(config, loader)
    load_weights(net, checkpoint["state_dict"], checkpoint_path)
    net.to(device)
    outcome = {
        "test_split": config.get("data_loader.args.split_name", ""),
        "test_videos": len(loader.retrieval),
        "test_epoch": checkpoint["epoch"],
        "checkpoint": checkpoint_path.name,
    }
    if config.get("challenge_mode", False):
        return _predict(net, loader, folder, outcome, device, is_final)
    with keeping_freed_memory(device == "cpu"):
        evaluation = evaluate(net, loader.retrieval, config["metrics"], torch.device(device))
    for name, value in flat_metrics("test", evaluation.metrics).items():
        _log.info(" %s: %s", name, value)
    _record_test(folder, {"test": evaluation.metrics} | outcome, is_final)
    _save_similarities(evaluation, folder.models / "test-similarities.npy")
    page = None
    visualizer = build_visualizer(config)
    if visualizer:
        title = f"{config.name}: rankings of the test on {outcome['test_split']}"
        page = visualizer.draw(net, evaluation, loader.retrieval, folder.web, title)
    return TestResult(evaluation.metrics, outcome["test_split"], page)


def _predict(
    net: torch.nn.Module,
    loader: ExpertDataLoader,
    folder: RunFolder,
    outcome: dict[str, Any],
    device: str,
    is_final: bool,
) -> TestResult:
    """Leave the predictions of a challenge in place of metrics."""
    split = outcome["test_split"]
    counts = counts_of(loader.retrieval)
    expected = loader.description.split(split).expected
    warn_of_other_counts(counts, expected, f"{loader.description.name} {split}")
    path = folder.predictions(split)
    write_predictions(path, predict(net, loader.retrieval, torch.device(device)))
    _log.info("Saved predictions of %d queries to %s", counts.queries, path)
    metrics = _with_final(folder.read_metrics(), outcome, is_final)
    others = [made for made in metrics.get("predictions", []) if made["test_split"] != split]
    made = outcome | {"test_queries": counts.queries, "file": path.name}
    folder.write_metrics(metrics | {"predictions": [*others, made]})
    return TestResult({}, split, page=None, predictions=path)


def _record_test(folder: RunFolder, outcome: dict[str, Any], is_final: bool) -> None:
    metrics = folder.read_metrics()
    others = [
        test
        for test in metrics.get("tests", [])
        if any(test[key] != outcome[key] for key in ("test_split", "checkpoint"))
    ]
    metrics = _with_final(metrics, outcome, is_final)
    folder.write_metrics(metrics | {"tests": [*others, outcome]})


def _with_final(metrics: dict[str, Any], outcome: dict[str, Any], is_final: bool) -> dict[str, Any]:
    """Note what a training ended with, or, where it has not been trained here, the first test."""
    if not is_final and ("test" in metrics or "predictions" in metrics):
        return metrics
    return metrics | {key: value for key, value in outcome.items() if key.startswith("test")}


def _settings(section: dict[str, Any], options: Options) -> TrainingSettings:
    known = {field.name for field in fields(TrainingSettings)}
    chosen = {key: value for key, value in section.items() if key in known and value is not None}
    if options.single_epoch:
        chosen["epochs"] = 1
    if options.mini_train:
        chosen["batches_per_epoch"] = section.get("mini_train_batches", MINI_TRAIN_BATCHES)
    return TrainingSettings(**chosen)


def _on_evaluation(
    config: Config,
    folder: RunFolder,
    net: torch.nn.Module,
    retrieval: RetrievalSet,
    writer: TensorBoardWriter,
) -> Callable[[int, Evaluation], None]:
    """What an evaluation leaves for the eye: ranks, some rankings, and now and then a page."""
    visualizer = build_visualizer(config)

    def show(epoch: int, evaluation: Evaluation) -> None:
        for direction in ("t2v", "v2t"):
            ranks = getattr(evaluation.ranks, direction).tolist()
            writer.histogram(f"val_{direction}_ranks", ranks, epoch)
        if visualizer and writer.is_enabled:
            sampled = visualizer.rankings(net, evaluation, retrieval, RANKINGS_IN_TENSORBOARD)
            writer.text("val_rankings", rankings_text(sampled), epoch)
        if visualizer and visualizer.is_due(epoch):
            title = f"{config.name}: rankings after epoch {epoch}"
            visualizer.draw(net, evaluation, retrieval, folder.web, title, epoch)

    return show


def _save_similarities(evaluation: Evaluation, path: Path) -> None:
    if evaluation.sims is None:
        return
    with replacing(path) as handle:
        np.save(handle, evaluation.sims.numpy())
    _log.info("Saved similarity matrix predictions to %s", path)
