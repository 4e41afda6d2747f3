"""From a config to the parts that it names. Only what stands in these tables can be built."""

import inspect
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data_loader.formats.apart import watched
from data_loader.loader import ExpertDataLoader
from data_loader.sets.declared import (
    LacksTokens,
    LoaderSettings,
    ModelInputs,
    declared_inputs,
    modalities_of,
)
from data_loader.sets.description import find_description
from data_loader.teachers.teacher import Teacher
from logger.progress import PackingBar
from model import CENet, MNNet
from model.collaborative_gating import GATINGS
from model.fast import choose_products
from model.hubness import KINDS
from model.loss import AGGREGATES, LOSSES
from model.metric import METRICS, REFUSED_METRICS
from model.ranks import Ranks
from model.similarity import RetrievalModel
from trainer.distillation import Distillation
from trainer.evaluation.evaluate import VIDEOS_PER_BLOCK
from trainer.memory import TRAINING_COPIES, check_fits, only_sizes
from trainer.optimisation.optimisers import OPTIMISERS, REFUSED_OPTIMISERS, build_optimiser
from trainer.optimisation.rehearsal import rehearse
from trainer.optimisation.schedules import REFUSED_SCHEDULES, SCHEDULES, build_schedule
from trainer.optimisation.settings import check_settings, does_not_fit
from trainer.parts import Monitor, TrainingSettings
from trainer.rankings.closeup import Visualizer
from trainer.step import PRECISIONS, check_precision
from utils.config import Config
from utils.config_kinds import AUTO, Choice, Kind, ListOf
from utils.config_schema import LOADER_KEYS, TRAINING_KEYS
from utils.errors import UserError, did_you_mean

ARCHITECTURES: dict[str, type[RetrievalModel]] = {"CENet": CENet, "MNNet": MNNet}
LOADERS = {"ExpertDataLoader": ExpertDataLoader}
# What is proposed where a config has none.
USUAL_CLUSTERS = 8
VISUALIZERS = {"Visualizer": Visualizer}


def check_names(config: Config) -> None:
    """Refuse a config that names something which is in no table.

    Raises:
        UserError: tells the key, what may stand there, and which of it is nearest.
    """
    choices: dict[str, Kind] = {
        "arch.type": Choice(*ARCHITECTURES),
        "arch.args.use_ce": Choice("", *GATINGS),
        "data_loader.type": Choice(*LOADERS),
        "loss.type": Choice(*LOSSES),
        "distil_params.aggregate": Choice(*AGGREGATES),
        "optimizer.type": Choice(*OPTIMISERS, refused=REFUSED_OPTIMISERS),
        "lr_scheduler.type": Choice(*SCHEDULES, refused=REFUSED_SCHEDULES),
        "metrics": ListOf(Choice(*METRICS, refused=REFUSED_METRICS)),
        "visualizer.type": Choice(*VISUALIZERS),
        "precision": Choice(*PRECISIONS),
        "correction.kinds": ListOf(Choice(*KINDS)),
    }
    config.check(choices)


def build_loader(config: Config, seed: int, device: str = "cpu") -> ExpertDataLoader:
    """Open the data set of a config for a device; `seed` fixes order and captions drawn."""
    settings = _loader_settings(config)
    check_names(config)
    try:
        with watched(PackingBar()) if sys.stderr.isatty() else nullcontext():
            loader = LOADERS[config["data_loader.type"]](settings, seed, device)
    except LacksTokens as error:
        clusters = _without_clusters(config, error.proposed)
        if not clusters:
            raise
        raise UserError(f"{str(error).removesuffix('.')} and {_lines_of(clusters)}.") from error
    _check_batches(loader)
    return loader


def _without_clusters(config: Config, names: Iterable[str]) -> list[str]:
    """Return what varies in length and has no clusters in the config."""
    clusters = config.get("arch.args.vlad_clusters", {})
    takes_words = config["arch.type"] != "MNNet"
    return [n for n in names if not clusters.get(n) and (n != "text" or takes_words)]


def _lines_of(names: Iterable[str]) -> str:
    """Return what to paste into a config for what has no clusters."""
    clusters = json.dumps(dict.fromkeys(names, USUAL_CLUSTERS))
    return f'{{"arch": {{"args": {{"vlad_clusters": {clusters}}}}}}}'


def inputs_of(config: Config) -> ModelInputs:
    """Return what a config and the description of its data set say of the data, without its files.

    Raises:
        UserError: a name or a value cannot be used, or a size is declared nowhere.
    """
    return declared_inputs(_loader_settings(config))


def _loader_settings(config: Config) -> LoaderSettings:
    """Take from a config what a loader uses; keys without effect end here."""
    config.require(LOADER_KEYS)
    given = config.values | config["experts"] | config["data_loader.args"]
    names = [field.name for field in fields(LoaderSettings) if field.name in given]
    if given["modalities"] == AUTO:
        description = find_description(given["dataset_name"], given.get("data_dir"))
        given["modalities"] = modalities_of(AUTO, description)
    return LoaderSettings(**{name: given[name] for name in names})


def build_net(
    config: Config, data: ModelInputs, trained_on: torch.device | str | None = None
) -> RetrievalModel:
    """Build the model of a config for the experts and captions of a data set.

    Args:
        config: the config.
        data: the loader of the data set, or what `inputs_of` says of it.
        trained_on: the device that needs memory for gradients and an optimizer as well, if any.

    Raises:
        UserError: a variable-length expert or captions of words have no clusters, the arguments
            do not fit together, or the model is larger than the memory.
    """
    check_names(config)
    if torch.get_default_device().type != "meta":

        def size_of(config: Config) -> int:
            with only_sizes():
                return sum(p.nbytes for p in _make_net(config, data).parameters())

        size, at_fault = size_of(config), lambda: _largest_keys(config, size_of)
        check_fits("The model of this config", size, at_fault)
        if trained_on is not None:
            what = "The training of the model of this config"
            check_fits(what, TRAINING_COPIES * size, at_fault, trained_on)
    net = _make_net(config, data)
    net.products = choose_products(net)  # whoever has a checkpoint keeps what it records
    net.text_tokens = data.max_text_tokens
    return net


def _largest_keys(config: Config, size_of: Callable[[Config], int]) -> str:
    """Name what makes a model large: the key that matters most, and the next if it does as well."""
    args = config.get("arch.args", {})
    keys: dict[tuple[str, ...], Any] = {}
    keys["experts", "ce_shared_dim"] = config.get("experts.ce_shared_dim")
    keys |= {("arch", "args", name): args.get(name) for name in ("num_g_layers", "num_h_layers")}
    for name, clusters in args.get("vlad_clusters", {}).items():
        keys["arch", "args", "vlad_clusters", name] = clusters
    without = {}
    for key, value in keys.items():
        if value:
            smaller: Any = 1
            for part in reversed(key):
                smaller = {part: smaller}
            without[key] = size_of(config.merged(smaller))
    first, *others = sorted(without, key=without.__getitem__) or [()]
    named = [first, *(key for key in others if 2 * without[key] < size_of(config))]
    found = [f"{'.'.join(key)} ({keys[key]})" for key in named[:2] if key]
    return " or ".join(found) or "the number of experts"


def _make_net(config: Config, data: ModelInputs) -> RetrievalModel:
    kind, args = _type_and_args(config, "arch")
    clusters = args.get("vlad_clusters", {})
    takes_words = kind != "MNNet" and clusters.get("text", 0) > 0
    if data.max_text_tokens > 1 and not takes_words:
        raise UserError(
            f"This model takes captions of one vector, not of {data.max_text_tokens} words: set "
            "experts.text_agg to avg (or give CENet clusters in arch.args.vlad_clusters.text)."
        )
    aggregation = {e.name: {"temporal": "vlad"} for e in data.experts if e.variable_length}
    given = {
        "expert_dims": expert_dims(config, data),
        "text_dim": data.text_size,
        "feat_aggregation": aggregation,
        "vlad_clusters": clusters,
    }
    try:
        return _call("arch", kind, ARCHITECTURES[kind], args | given)
    except ValueError as error:
        raise UserError(f"The model of this config cannot be built: {error}") from error


def _check_batches(loader: ExpertDataLoader) -> None:
    """Refuse batches of a size that no memory holds."""
    tokens = {e.name: e.max_tokens for e in loader.experts} | {"text": loader.max_text_tokens}
    sizes = {e.name: e.size for e in loader.experts} | {"text": loader.text_size}
    values = {name: tokens[name] * sizes[name] for name in sizes}
    training = min(loader.train.batch_size, len(loader.train.video_ids))
    videos = max(training, min(VIDEOS_PER_BLOCK, len(loader.retrieval)))
    largest = max(values, key=values.__getitem__)
    check_fits(
        f"A batch of {videos} videos",
        4 * videos * sum(values.values()),
        lambda: f"data_loader.args.max_tokens.{largest} ({tokens[largest]})",
    )


def expert_dims(config: Config, data: ModelInputs) -> dict[str, tuple[int, int]]:
    """Return each expert's pooled size (clusters * size if it has tokens) and embedding size.

    Raises:
        UserError: a variable-length expert has no clusters, or the shared size is missing.
    """
    args = config.get("arch.args", {})
    clusters = args.get("vlad_clusters", {})
    shared_size = config.get("experts.ce_shared_dim")
    projects = bool(args.get("use_ce") or args.get("mimic_ce_dims"))
    # Published configs of MNNet inherit use_ce, which does nothing there.
    uses_shared_size = projects and config["arch.type"] != "MNNet"
    if uses_shared_size and not shared_size:
        raise UserError("The config has use_ce or mimic_ce_dims, but no experts.ce_shared_dim.")
    bare = _without_clusters(config, [e.name for e in data.experts if e.variable_length])
    if bare:
        raise UserError(
            f"The experts {', '.join(bare)} have variable length, but no number of clusters in "
            f"{', '.join(f'arch.args.vlad_clusters.{name}' for name in bare)}: add "
            f"{_lines_of(bare)}."
        )
    dims = {}
    for expert in data.experts:
        pooled = expert.size
        if expert.variable_length:
            pooled *= clusters[expert.name]
        dims[expert.name] = (pooled, shared_size if uses_shared_size else expert.size)
    return dims


def build_loss(config: Config) -> nn.Module:
    """Build the loss of a config.

    Raises:
        UserError: the settings do not fit.
    """
    kind, args = _type_and_args(config, "loss")
    check_settings("loss", kind, LOSSES[kind], args, given=0)
    if bounds := [] if args.get("learned") else sorted({"lowest", "highest"} & {*args}):
        raise UserError(
            f"loss.args.{bounds[0]} bounds a learned temperature, and this one is fixed: set "
            "loss.args.learned to true, or leave it out."
        )
    try:
        return LOSSES[kind](**args)
    except ValueError as error:
        raise does_not_fit("loss", kind, error) from error


def build_distillation(
    config: Config, loader: ExpertDataLoader, seed: int, device: str
) -> Distillation | None:
    """Open the teachers of a config; None where it trains without.

    Raises:
        UserError: a teacher is missing, damaged, or of other videos or captions.
    """
    if not config.get("distil_loss"):
        return None
    return Distillation(
        open_teachers(config, loader),
        config.get("distil_params.aggregate", "mean"),
        seed,
        device,
        weight=config.get("distil_params.weight", 1.0),
    )


def open_teachers(config: Config, loader: ExpertDataLoader) -> list[Teacher]:
    """Open the teachers that a config names."""
    folder = config.get("distil_params.base_path", "")
    return [loader.teacher(str(Path(folder, name))) for name in config["distil_params.teachers"]]


def build_visualizer(config: Config) -> Visualizer | None:
    if "visualizer" not in config:
        return None
    kind, args = _type_and_args(config, "visualizer")
    return _call("visualizer", kind, VISUALIZERS[kind], args)


def build_optimiser_of(config: Config, net: nn.Module, loss: nn.Module | None = None) -> Optimizer:
    """Build the optimiser of a config for a model, and for what its loss learns.

    Raises:
        UserError: the settings do not fit.
    """
    learning = nn.ModuleList([net] if loss is None else [net, loss])
    decay_biases = config.get("optimizer.decay_biases", True)
    return build_optimiser(*_type_and_args(config, "optimizer"), learning, decay_biases)


def build_schedule_of(
    config: Config, optimiser: Optimizer, steps_per_epoch: int = 1
) -> LRScheduler:
    """Build the schedule of a config for the optimiser of the same config.

    Raises:
        UserError: its settings do not fit (whether they last, `check_training` finds out).
    """
    direction = _monitor(config).direction
    steps = config["trainer.epochs"] * steps_per_epoch
    return build_schedule(*_type_and_args(config, "lr_scheduler"), optimiser, direction, steps)


def check_training(config: Config, device: str = "cpu", processes: int = 1) -> None:
    """Refuse, before any data are opened, a config that no training can be made of.

    Raises:
        UserError: a key is missing, a name is not known, settings of loss, optimizer or schedule do
            not fit, a metric cannot be measured, or several processes cannot share the training.
    """
    config.require(TRAINING_KEYS)
    if processes > 1 and config.get("arch.args.randomise_feats", ""):
        raise UserError(
            "arch.args.randomise_feats draws noise, which several processes would draw alike: "
            "train with one."
        )
    if config.get("distil_loss"):
        config.require(["distil_params.teachers"])
    check_names(config)
    _check_monitor(config)
    build_loss(config)
    build_visualizer(config)
    check_precision(config.get("precision", "float32"), torch.device(device))
    _check_recipe(config)
    rehearse(
        _type_and_args(config, "optimizer"),
        _type_and_args(config, "lr_scheduler"),
        _monitor(config).direction,
        config["trainer.epochs"],
        device,
    )


def _check_recipe(config: Config) -> None:
    """Refuse what a recipe asks of a training that cannot do it."""
    dropout = config.get("trainer.dropout", {})
    asked = {
        "trainer.dropout": max(dropout.values(), default=0) > 0,
        "trainer.accumulate": config.get("trainer.accumulate", 1) > 1,
        "data_loader.args.captions_per_video": (
            config.get("data_loader.args.captions_per_video", 1) > 1
        ),
    }
    for key in (key for key, is_asked in asked.items() if is_asked):
        if config["arch.type"] == "MNNet":
            raise UserError(f"{key} is set, but MNNet learns nothing: leave it out.")
    for name, share in [*dropout.items(), ("ema", config.get("trainer.ema", 0))]:
        if share == 1:
            key = "trainer.ema" if name == "ema" else f"trainer.dropout.{name}"
            raise UserError(f"{key} is 1, with which nothing is learned: set it below 1.")
    if asked["trainer.dropout"] and config.get("compile", False):
        raise UserError(
            "compile and trainer.dropout exclude each other: every step drops something else, and "
            "would be compiled anew; leave one of them out."
        )


def _type_and_args(config: Config, section: str) -> tuple[str, dict[str, Any]]:
    return config[f"{section}.type"], config.get(f"{section}.args", {})


def _monitor(config: Config) -> Monitor:
    return Monitor(config.get("trainer.monitor", TrainingSettings.monitor))


def _check_monitor(config: Config) -> None:
    ranks = Ranks(torch.ones(1), torch.ones(1))
    measured = [f"val_{name}_{key}" for name in config["metrics"] for key in METRICS[name](ranks)]
    watched = _monitor(config).metric
    if watched and watched not in measured:
        raise UserError(
            f'trainer.monitor names the metric "{watched}", which this training does not '
            f"measure{did_you_mean(watched, measured)}."
        )


def count_parameters(net: nn.Module) -> int:
    """Number of parameters that learn."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def _call(part: str, kind: str, make: Callable[..., Any], args: dict[str, Any]) -> Any:
    try:
        inspect.signature(make).bind(**args)
    except TypeError as error:
        raise UserError(f"{part}.args do not fit {kind}: {error}.") from error
    return make(**args)
