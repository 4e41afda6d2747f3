"""One run from config to results: train with one seed, test a checkpoint."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.loader import ExpertDataLoader
from data_loader.retrieval_set import RetrievalSet
from logger.predictions import write_predictions
from logger.tensorboard import TensorBoardWriter
from model.fast import TORCH, choose_products
from model.similarity import RetrievalModel
from trainer.build import (
    build_distillation,
    build_loader,
    build_loss,
    build_net,
    build_optimiser_of,
    build_schedule_of,
    build_visualizer,
    check_training,
    count_parameters,
)
from trainer.checkpoint import LARGE_KEYS, load_checkpoint, load_weights, load_what_fits
from trainer.evaluation import (
    Evaluation,
    counts_of,
    evaluate,
    predict,
    warn_of_other_counts,
)
from trainer.finding import find_checkpoint
from trainer.memory import keeping_freed_memory, told_if_full
from trainer.resuming import as_begun, check_same_data, check_same_training, fingerprint
from trainer.run_folder import RunFolder, test_label
from trainer.training import (
    MINI_TRAIN_BATCHES,
    Parts,
    Restored,
    Trainer,
    TrainingSettings,
    flat_metrics,
    restore,
)
from trainer.visualizer import rankings_text
from utils.config import Config
from utils.errors import UserError
from utils.files import replacing
from utils.seeds import seed_everything
from utils.version import version

_log = logging.getLogger(__name__)

RANKINGS_IN_TENSORBOARD = 5


@dataclass(frozen=True)
class Options:
    """What the command line adds to a config."""

    device: str
    mini_train: bool = False
    single_epoch: bool = False

    @property
    def is_quick_try(self) -> bool:
        """Whether results are not those of a run, so that nobody may take them for such."""
        return self.mini_train or self.single_epoch

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


@dataclass(frozen=True)
class Training:
    """A training that is ready to begin: all that it needs was opened and fits together.

    Nothing has been written so far.
    """

    config: Config
    seed: int
    options: Options
    parts: Parts
    loader: ExpertDataLoader
    state: Restored | None  # of a training to be continued, and where it lies
    checkpoint_path: Path | None

    @classmethod
    def prepare(
        cls, config: Config, seed: int, options: Options, checkpoint_path: Path | None = None
    ) -> "Training":
        """Open the data of both sides, build the model, and see that everything fits.

        Args:
            config: what to train.
            seed: of initial weights, order and captions drawn.
            options: of the command line.
            checkpoint_path: the state to continue from.

        Raises:
            UserError: something that the config names is not there or does not fit.
        """
        checkpoint = None
        if checkpoint_path:
            checkpoint = load_checkpoint(checkpoint_path)
            check_same_training(checkpoint, checkpoint_path, config, options.is_quick_try)
            config = as_begun(config, checkpoint["config"])
        seed_everything(seed)
        _log.info("Setting experiment random seed to %d", seed)
        check_training(config, options.device)
        loader = build_loader(config, seed, options.device)
        if checkpoint and checkpoint_path:
            check_same_data(checkpoint, checkpoint_path, loader)
        net = build_net(config, loader, is_trained=True).to(options.device)
        recorded = checkpoint.get("products", TORCH) if checkpoint else None
        net.products = choose_products(net, recorded)
        _log.info("Trainable parameters: %d", count_parameters(net))
        check_test_side(config, net, seed)
        if config.get("init_from") and not checkpoint:
            source = find_checkpoint(Path(config["init_from"]))
            weights = load_checkpoint(source, ("optimizer",), needs_config=False)["state_dict"]
            _log.info("Weights of %s:\n%s", source, load_what_fits(net, weights, source))
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
        state = (
            restore(parts, checkpoint, checkpoint_path) if checkpoint and checkpoint_path else None
        )
        return cls(config, seed, options, parts, loader, state, checkpoint_path)

    def run(self, folder: RunFolder) -> TestResult:
        """Train, then test the best model; all results go into the run's folder.

        Raises:
            UserError: the training diverges, or something cannot be written.
            Stopped: a signal asked for the end.
        """
        config, seed, parts, options = self.config, self.seed, self.parts, self.options
        marks = {"quick_try": True} if options.is_quick_try else {}
        on_gpu = parts.device.type == "cuda"
        if config.get("compile", False):
            # On a GPU the kernels of forward and backward are launched as one graph each, one pair
            # for whole batches and one for an epoch's last, smaller one.
            parts.net.compile(mode="reduce-overhead" if on_gpu else None, dynamic=False)
        header = {
            "arch": type(parts.net).__name__,
            "version": version(),
            "config": config.stored(),
            "seed": seed,
            "data": fingerprint(self.loader),
            "products": parts.net.products,
            **marks,
        }
        with TensorBoardWriter(
            folder.log / f"seed-{seed}",
            enabled=options.use_tensorboard(config),
            purge_step=self.state[0].epoch + 1 if self.state else None,
        ) as writer:
            trainer = Trainer(
                parts,
                _settings(config["trainer"], options),
                folder,
                header,
                writer=writer,
                on_evaluation=_on_evaluation(config, folder, parts.net, parts.retrieval, writer),
            )
            if self.state and self.checkpoint_path:
                trainer.start_from(self.state, self.checkpoint_path)
            config.save(folder.config)
            _forget_end(folder)
            started = time.perf_counter()
            progress = trainer.train()
            with trainer.saved_if_stopped():
                writer.close()
                _log.info("Training took %.1f s.", time.perf_counter() - started)
                with folder.changing_metrics() as metrics:
                    metrics |= {"name": config.name, "seed": seed, "version": version(), **marks}
                    metrics["parameters"] = count_parameters(parts.net)
                _log.info("The best performing ckpt can be found at %s", folder.best_checkpoint)
                _log.info("It is the model of epoch %d.", progress.best_epoch)
                leave_device(parts)
                final = (config.eval_config(), folder.best_checkpoint, options.device, seed)
                result = Test.prepare(*final).run(folder, is_final=True)
        folder.last_checkpoint.unlink(missing_ok=True)
        return result


def leave_device(parts: Parts) -> None:
    """Free the GPU of a training that has ended: of its model, optimiser and compiled graphs.

    They stay on the host, from where the training can still be saved.
    """
    if parts.device.type != "cuda":
        return
    parts.optimiser.zero_grad(set_to_none=True)
    parts.net.cpu()
    for state in parts.optimiser.state.values():
        state |= {n: v.cpu() if isinstance(v, torch.Tensor) else v for n, v in state.items()}
    torch.compiler.reset()
    torch.cuda.empty_cache()


def check_test_side(config: Config, net: RetrievalModel, seed: int) -> None:
    """Open what the final test of a training needs, before it begins.

    Raises:
        UserError: a list, a caption or a feature of the test split is missing, or the trained model
            will not fit it.
    """
    eval_config = config.eval_config()
    if eval_config.values == config.values:
        return
    try:
        loader = build_loader(eval_config, seed)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            tested = build_net(eval_config, loader)
    except UserError as error:
        raise UserError(
            f"The test after the training (eval_settings) cannot run: {error}"
        ) from error
    shapes = [{n: v.shape for n, v in m.state_dict().items()} for m in (net, tested)]
    if shapes[0] != shapes[1]:
        raise UserError(
            "The test after the training (eval_settings) builds another model than the one that is "
            "trained: give it the same experts, text features and arch."
        )


def _forget_end(folder: RunFolder) -> None:
    """Take out of the metrics what says that a training has ended, as it goes on."""
    if folder.metrics.exists():
        with folder.changing_metrics() as metrics:
            for key in [k for k in metrics if k.startswith("test") and k != "tests"] + ["seed"]:
                metrics.pop(key, None)


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

    @classmethod
    def prepare(cls, config: Config, checkpoint_path: Path, device: str, seed: int = 0) -> "Test":
        """Build the model of a checkpoint and open the retrieval set of a config.

        Raises:
            UserError: the checkpoint does not fit the config, or cannot be read.
        """
        checkpoint = load_checkpoint(checkpoint_path, ("optimizer",), needs_config=False)
        loader = build_loader(config, seed, device)
        net = build_net(config, loader)
        load_weights(net, checkpoint["state_dict"], checkpoint_path)
        net.to(device).products = choose_products(net, checkpoint.get("products"))
        return cls(config, checkpoint_path, checkpoint["epoch"], net, loader, torch.device(device))

    @property
    def split(self) -> str:
        return self.config.get("data_loader.args.split_name", "")

    @property
    def label(self) -> str:
        """What tells this test's files from those of tests on other splits or checkpoints."""
        return test_label(self.split, self.checkpoint_path)

    def run(self, folder: RunFolder, is_final: bool = False) -> TestResult:
        """Evaluate; leave metrics, matrix and page in a run's folder.

        The metrics file lists every test under `tests`; `test` is the one that a training ended
        with (`is_final`), which no later test of another split or checkpoint replaces. In challenge
        mode there are predictions instead, listed under `predictions` by split.
        """
        outcome = {
            "test_split": self.split,
            "test_label": self.label,
            "test_videos": len(self.loader.retrieval),
            "test_epoch": self.epoch,
            "checkpoint": self.checkpoint_path.name,
            "version": version(),
        }
        if self.config.get("challenge_mode", False):
            return self._predict(folder, outcome, is_final)
        retrieval = self.loader.retrieval
        protocol = retrieval.protocol(self.net.test_caption_mode)
        outcome |= {"test_protocol": protocol.name, "test_queries": protocol.queries}
        outcome["test_captions"] = protocol.captions
        fits = told_if_full("embedding and comparing the retrieval set")
        with keeping_freed_memory(self.device.type == "cpu"), fits:
            evaluation = evaluate(self.net, retrieval, self.config["metrics"], self.device)
        _log.info("Test on the split %s: %s", self.split, protocol)
        for name, value in flat_metrics("test", evaluation.metrics).items():
            _log.info(" %s: %s", name, value)
        _save_similarities(evaluation, folder.similarities(self.label))
        page = None
        visualizer = build_visualizer(self.config)
        if visualizer:
            title = f"{self.config.name}: rankings of the test on {self.split}"
            label = None if is_final or _is_main(folder, self.label) else self.label
            page = visualizer.draw(self.net, evaluation, retrieval, folder.web, title, test=label)
        # Last, as it says that a training has ended: a kill before this leaves nothing out.
        _record_test(folder, {"test": evaluation.metrics} | outcome, is_final)
        return TestResult(evaluation.metrics, self.split, page)

    def _predict(self, folder: RunFolder, outcome: dict[str, Any], is_final: bool) -> TestResult:
        """Leave the predictions of a challenge in place of metrics."""
        split, loader = self.split, self.loader
        counts = counts_of(loader.retrieval)
        expected = loader.description.split(split).expected
        warn_of_other_counts(counts, expected, f"{loader.description.name} {split}")
        path = folder.predictions(self.label)
        write_predictions(path, predict(self.net, loader.retrieval, self.device))
        _log.info("Saved predictions of %d queries to %s", counts.queries, path)
        made = outcome | {"test_queries": counts.queries, "file": path.name}
        with folder.changing_metrics() as metrics:
            _note_final(metrics, outcome, is_final)
            metrics["predictions"] = _with_test(metrics.get("predictions", []), made)
        return TestResult({}, split, page=None, predictions=path)


def _is_main(folder: RunFolder, label: str) -> bool:
    """Whether a test is, or will be, the one that its run is known by."""
    metrics = folder.read_metrics()
    return metrics.get("test_label", label) == label


def _record_test(folder: RunFolder, outcome: dict[str, Any], is_final: bool) -> None:
    """Write the metrics of a test."""
    with folder.changing_metrics() as metrics:
        metrics["tests"] = _with_test(metrics.get("tests", []), outcome)
        _note_final(metrics, outcome, is_final)


def _with_test(tests: list[dict[str, Any]], made: dict[str, Any]) -> list[dict[str, Any]]:
    """Put a test among others, in the place of an earlier one of the same split and checkpoint."""
    same = ("test_split", "checkpoint")
    return [*(t for t in tests if any(t.get(key) != made[key] for key in same)), made]


def _note_final(metrics: dict[str, Any], outcome: dict[str, Any], is_final: bool) -> None:
    """Note what a training ended with, or, where it has not been trained here, the first test."""
    if is_final or not ("test" in metrics or "predictions" in metrics):
        metrics |= {key: value for key, value in outcome.items() if key.startswith("test")}


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
    net: RetrievalModel,
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
