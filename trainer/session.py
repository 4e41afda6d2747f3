"""A training: all that it needs is opened and seen to fit, then it runs and is tested."""

import logging
import random
import time
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.loader import ExpertDataLoader
from logger.trackers import About, Trackers, check_trackers
from model.fast import TORCH, choose_products, compile_model
from model.similarity import RetrievalModel
from trainer.build import (
    build_distillation,
    build_loader,
    build_loss,
    build_net,
    build_optimiser_of,
    build_schedule_of,
    check_training,
    count_parameters,
)
from trainer.checkpoints.checkpoint import NOT_TESTED, load_checkpoint, load_what_fits
from trainer.evaluation.evaluate import flat_metrics
from trainer.memory import only_sizes
from trainer.parts import Parts, TrainingSettings
from trainer.processes.alone import ALONE, Processes
from trainer.recipe.recipe import Recipe
from trainer.runs.finding import find_checkpoint
from trainer.runs.folder import RunFolder
from trainer.runs.resuming import as_begun, check_same_data, check_same_training, fingerprint
from trainer.saving import Restored, Saving, restore
from trainer.showing import Showing
from trainer.testing import Test, TestResult
from trainer.training import MINI_TRAIN_BATCHES, Trainer
from utils.command_line import version
from utils.config import Config
from utils.errors import UserError
from utils.stopping import deferred

_log = logging.getLogger(__name__)

_SECONDS_TO_APPEAR = 60  # of a file that another machine has written


@dataclass(frozen=True)
class Options:
    """What the command line adds to a config."""

    device: str
    mini_train: bool = False
    single_epoch: bool = False
    processes: Processes = ALONE  # that train together

    @property
    def is_quick_try(self) -> bool:
        """Whether results are not those of a run, so that nobody may take them for such."""
        return self.mini_train or self.single_epoch

    def trackers(self, config: Config) -> list[str]:
        """Who is told how a training with this config goes, by its first process.

        Of a quick try, nobody is.
        """
        usual = ["tensorboard"] if config.get("trainer.tensorboard", True) else []
        is_told = self.processes.is_first and not self.mini_train
        return config.get("trainer.trackers", usual) if is_told else []

    def use_tensorboard(self, config: Config) -> bool:
        """Whether a training with this config writes curves for TensorBoard."""
        return "tensorboard" in self.trackers(config)


def seed_everything(seed: int) -> None:
    """Seed the global random states, for a model's initial weights and for code of others.

    Our own draws do not use them: they come from generators of their own (`data_loader.batches`).

    Args:
        seed: from 0 to 2^32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # GPUs included


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
    test_loader: ExpertDataLoader  # of the test that the training ends with
    state: Restored | None  # of a training to be continued

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
        processes = options.processes
        check_training(config, options.device, processes.count)
        check_trackers(options.trackers(config))
        source = None
        if config.get("init_from") and not checkpoint:
            source = find_checkpoint(Path(config["init_from"]))
        loader = build_loader(config, seed, options.device)
        if processes is not ALONE:
            check_same_everywhere(config, loader, processes)
            loader.train.process, loader.train.processes = processes.rank, processes.count
            loader.train.parts = config.get("trainer.accumulate", 1)
        if checkpoint and checkpoint_path:
            check_same_data(checkpoint, checkpoint_path, loader)
        net = build_net(config, loader, trained_on=options.device).to(options.device)
        recorded = checkpoint.get("products", TORCH) if checkpoint else None
        recorded = processes.from_first(choose_products(net, recorded))
        net.products = choose_products(net, recorded)
        _log.info("Trainable parameters: %d", count_parameters(net))
        test_loader = open_test_side(config, loader, net, seed)
        if source:
            weights = load_checkpoint(source, NOT_TESTED, needs_config=False)["state_dict"]
            _log.info("Weights of %s:\n%s", source, load_what_fits(net, weights, source))
        loss = build_loss(config).to(options.device)
        # Whatever the machine that drew them: the same weights everywhere.
        processes.take_from(0, [*net.state_dict().values(), *loss.state_dict().values()])
        optimiser = build_optimiser_of(config, net, loss)
        parts = Parts(
            net=net,
            loss=loss,
            optimiser=optimiser,
            schedule=build_schedule_of(config, optimiser, len(loader.train)),
            train=loader.train,
            retrieval=loader.retrieval,
            metric_names=config["metrics"],
            device=torch.device(options.device),
            distillation=build_distillation(config, loader, seed, options.device),
            precision=config.get("precision", "float32"),
            recipe=Recipe.of(config["trainer"], net, seed),
            processes=processes,
            local_batch_norm=config.get("trainer.local_batch_norm", False),
        )
        state = None
        if checkpoint and checkpoint_path:
            state = restore(parts, checkpoint, checkpoint_path)
        return cls(config, seed, options, parts, loader, test_loader, state)

    def run(self, folder: RunFolder) -> TestResult:
        """Train, then test the best model; all results go into the run's folder.

        Raises:
            UserError: the training diverges, or something cannot be written.
            Stopped: a signal asked for the end.
        """
        config, seed, parts, options = self.config, self.seed, self.parts, self.options
        marks = {"quick_try": True} if options.is_quick_try else {}
        if config.get("compile", False):
            compile_model(parts.net, in_one_piece=parts.processes is ALONE)
        header = {
            "arch": type(parts.net).__name__,
            "version": version(),
            "config": config.stored(),
            "seed": seed,
            "data": fingerprint(self.loader),
            "products": parts.net.products,
            "text_encoder": self.loader.text_encoder,
            **marks,
        }
        is_first = parts.processes.is_first
        # Each signal reaches some process at some moment: all of them stop at one that they share.
        together = nullcontext() if parts.processes is ALONE else deferred()
        first = self.state.progress.epoch + 1 if self.state else None
        curves = folder.log / f"seed-{seed}"
        name = Path(*folder.place.parts[1:]).as_posix()
        about = About(folder.save_dir, curves, config.name, name, first)
        with together, Trackers(options.trackers(config), about) as writer:
            settings = _settings(config["trainer"], options)
            saving = Saving(parts, settings, folder, header)
            showing = Showing(config, folder, parts, writer)
            trainer = Trainer(parts, settings, saving, writer, showing.validation)
            if self.state:
                saving.start_from(self.state)
            if is_first:
                config.save(folder.config)
                _forget_end(folder)
            parts.processes.wait()
            insist_on_shared(folder.config, parts.processes)
            started = time.perf_counter()
            progress = trainer.train()
            with saving.saved_if_stopped():
                _log.info("Training took %.1f s.", time.perf_counter() - started)
                facts = {"name": config.name, "seed": seed, "version": version(), **marks}
                facts["parameters"] = count_parameters(parts.net)
                if is_first:
                    with folder.changing_metrics() as metrics:
                        metrics |= facts
                parts.processes.wait()  # for the best model
                _log.info("The best performing ckpt can be found at %s", folder.best_checkpoint)
                _log.info("It is the model of epoch %d.", progress.best_epoch)
                result = self._test_best(folder, showing)
                writer.end(config.values, flat_metrics("test", result.metrics))
        if is_first:
            folder.last_checkpoint.unlink(missing_ok=True)
        return result

    def _test_best(self, folder: RunFolder, showing: Showing) -> TestResult:
        """Test the best model of a training that has ended, in all processes."""
        config, parts = self.config, self.parts
        leave_device(parts)
        test = Test.prepare(
            config.eval_config(),
            folder.best_checkpoint,
            self.options.device,
            self.seed,
            loader=self.test_loader,
            validation=None if self.test_loader is self.loader else self.loader.retrieval,
            processes=parts.processes,
        )
        return test.run(folder, is_final=True, on_evaluation=showing.test)


def check_same_everywhere(config: Config, loader: ExpertDataLoader, processes: Processes) -> None:
    """Insist that all processes train the same model on the same data.

    Raises:
        UserError: this one would not train what the first one does.
    """
    found = [config.values, fingerprint(loader)]
    for name, own, other in zip(
        ("config", "data"), found, processes.from_first(found), strict=True
    ):
        if own != other:
            raise UserError(
                f"Process {processes.rank} has another {name} than the first one: all machines "
                "need the same files and the same command line."
            )


def insist_on_shared(path: Path, processes: Processes) -> None:
    """Insist that a file which the first process has written is there for this one.

    Raises:
        UserError: it is not, even after a while, as some file systems take.
    """
    for _ in range(_SECONDS_TO_APPEAR):
        if processes.is_first or path.is_file():
            return
        time.sleep(1)
    raise UserError(
        f"Process {processes.rank} does not find {path.absolute()}, which the first one has "
        "written: trainer.save_dir has to be on a file system that all machines share."
    )


def leave_device(parts: Parts) -> None:
    """Free the GPU of a training that has ended: of its model, optimiser and compiled graphs.

    They stay on the host, from where the training can still be saved.
    """
    if parts.device.type != "cuda":
        return
    parts.optimiser.zero_grad(set_to_none=True)
    for net in (parts.net, parts.evaluated):
        net.cpu()
    for state in parts.optimiser.state.values():
        state |= {n: v.cpu() if isinstance(v, torch.Tensor) else v for n, v in state.items()}
    torch.compiler.reset()
    torch.cuda.empty_cache()


def open_test_side(
    config: Config, loader: ExpertDataLoader, net: RetrievalModel, seed: int
) -> ExpertDataLoader:
    """Open what the final test of a training needs, before it begins; features stay in their files.

    Raises:
        UserError: a list, a caption or a feature of the test split is missing, or the trained model
            will not fit it.
    """
    eval_config = config.eval_config()
    if eval_config.values == config.values:
        return loader
    try:
        test_loader = build_loader(eval_config, seed)
        with only_sizes():
            tested = build_net(eval_config, test_loader)
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
    return test_loader


def _forget_end(folder: RunFolder) -> None:
    """Take out of the metrics what says that a training has ended, as it goes on."""
    if folder.metrics.exists():
        with folder.changing_metrics() as metrics:
            for key in [k for k in metrics if k.startswith("test") and k != "tests"] + ["seed"]:
                metrics.pop(key, None)


def _settings(section: dict[str, Any], options: Options) -> TrainingSettings:
    known = {field.name for field in fields(TrainingSettings)}
    chosen = {key: value for key, value in section.items() if key in known and value is not None}
    if options.single_epoch:
        chosen["epochs"] = 1
    if options.mini_train:
        chosen["batches_per_epoch"] = section.get("mini_train_batches", MINI_TRAIN_BATCHES)
    return TrainingSettings(**chosen)
