"""From a config to the parts that it names. Only what stands in these tables can be built."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data_loader.loader import ExpertDataLoader
from data_loader.sets.declared import ModelInputs, declared_inputs
from data_loader.teachers.teacher import Teacher
from model import CENet, MNNet
from model.collaborative_gating import GATINGS, TENSOR_SIZE
from model.loss import AGGREGATES, LOSSES
from model.metric import METRICS, REFUSED_METRICS
from model.ranks import Ranks
from model.similarity import RetrievalModel
from trainer.distillation import Distillation
from trainer.evaluation import VIDEOS_PER_BLOCK
from trainer.optimisers import (
    OPTIMISERS,
    REFUSED_OPTIMISERS,
    REFUSED_SCHEDULES,
    SCHEDULES,
    build_optimiser,
    build_schedule,
)
from trainer.rehearsal import rehearse
from trainer.settings import check_settings
from trainer.size import TRAINING_COPIES, check_fits, check_net, memory_of
from trainer.step import check_precision
from trainer.training import TrainingSettings
from trainer.visualizer import Visualizer
from utils.config import Config
from utils.config_kinds import Choice, Kind, ListOf
from utils.config_schema import LOADER_KEYS, TRAINING_KEYS
from utils.errors import UserError, did_you_mean

ARCHITECTURES: dict[str, type[RetrievalModel]] = {"CENet": CENet, "MNNet": MNNet}
LOADERS = {"ExpertDataLoader": ExpertDataLoader}
VISUALIZERS = {"Visualizer": Visualizer}

# Keys of the config's `experts` section that the data loader reads.
_LOADER_KEYS = ("modalities", "text_feat", "text_agg", "drop_feats", "face_dim", "text_dim")


def check_names(config: Config) -> None:
    """Refuse a config that names something which is in no table.

    Raises:
        UserError: tells the key, what may stand there, and which of it is nearest.
    """
    config.check(_choices())


def _choices() -> Mapping[str, Kind]:
    return {
        "arch.type": Choice(*ARCHITECTURES),
        "arch.args.use_ce": Choice("", *GATINGS),
        "data_loader.type": Choice(*LOADERS),
        "loss.type": Choice(*LOSSES),
        "distil_params.aggregate": Choice(*AGGREGATES),
        "optimizer.type": Choice(*OPTIMISERS, refused=REFUSED_OPTIMISERS),
        "lr_scheduler.type": Choice(*SCHEDULES, refused=REFUSED_SCHEDULES),
        "metrics": ListOf(Choice(*METRICS, refused=REFUSED_METRICS)),
        "visualizer.type": Choice(*VISUALIZERS),
    }


def build_loader(config: Config, seed: int, device: str = "cpu") -> ExpertDataLoader:
    """Open the data set of a config for a device; `seed` fixes order and captions drawn."""
    config.require(LOADER_KEYS)
    check_names(config)
    kind = config["data_loader.type"]
    args = _loader_args(config) | {"device": device, "seed": seed}
    loader = _call("data_loader", kind, LOADERS[kind], args)
    _check_batches(loader)
    return loader


def inputs_of(config: Config) -> ModelInputs:
    """Return what a config and the description of its data set say of the data, without its files.

    Raises:
        UserError: a name or a value cannot be used, or a size is declared nowhere.
    """
    return _call("data_loader", config["data_loader.type"], declared_inputs, _loader_args(config))


def _loader_args(config: Config) -> dict[str, Any]:
    chosen = {key: config["experts"][key] for key in _LOADER_KEYS if key in config["experts"]}
    chosen |= {key: config[key] for key in ("caption_masks", "training_file") if key in config}
    return {"data_dir": None} | config.get("data_loader.args", {}) | chosen


def build_net(config: Config, data: ModelInputs, is_trained: bool = False) -> RetrievalModel:
    """Build the model of a config for the experts and captions of a data set.

    Args:
        config: the config.
        data: the loader of the data set, or what `inputs_of` says of it.
        is_trained: whether memory is needed for gradients and an optimizer as well.

    Raises:
        UserError: a variable-length expert or captions of words have no clusters, the arguments
            do not fit together, or the model is larger than the memory.
    """
    check_names(config)
    if torch.get_default_device().type != "meta":
        copies = TRAINING_COPIES if is_trained else 1
        check_net(config, copies, 4 * _roughly(config, data), lambda c: _net_bytes(c, data))
    return _make_net(config, data)


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


def _roughly(config: Config, data: ModelInputs) -> int:
    """Estimate the number of a model's parameters, rather too many than too few."""
    args = config.get("arch.args", {})
    dims = expert_dims(config, data).values()
    text_size = data.text_size * max(1, args.get("vlad_clusters", {}).get("text", 0))
    pooled, largest = sum(size for size, _ in dims), max(size for _, size in dims)
    layers = args.get("num_g_layers", 3) + args.get("num_h_layers", 0) + 3
    joint = pooled * (text_size + pooled) if args.get("concat_mix_experts") else 0
    own = sum(size * (text_size + wide + 7 * size) for wide, size in dims)
    return own + largest * (layers * largest + 2 * TENSOR_SIZE**2) + joint


def _net_bytes(config: Config, data: ModelInputs) -> int:
    with torch.device("meta"):  # sizes alone
        return sum(p.nbytes for p in _make_net(config, data).parameters())


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
        memory_of("cpu"),
        f"data_loader.args.max_tokens.{largest} ({tokens[largest]})",
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
    dims = {}
    for expert in data.experts:
        pooled = expert.size
        if expert.variable_length:
            if not clusters.get(expert.name):
                raise UserError(
                    f'The expert "{expert.name}" has variable length: set its number of clusters '
                    f"in arch.args.vlad_clusters.{expert.name}."
                )
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
    return LOSSES[kind](**args)


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


def build_optimiser_of(config: Config, net: nn.Module) -> Optimizer:
    """Build the optimiser of a config for a model, if its state has room beside the weights.

    Raises:
        UserError: the settings do not fit, or the memory is too small.
    """
    parameters = list(net.parameters())
    check_fits(
        "The weights of this model, their gradients and the optimizer",
        TRAINING_COPIES * sum(p.nbytes for p in parameters),
        memory_of(parameters[0].device),
        "the sizes in arch.args and experts.ce_shared_dim",
    )
    return build_optimiser(*_type_and_args(config, "optimizer"), net)


def build_schedule_of(config: Config, optimiser: Optimizer) -> LRScheduler:
    """Build the schedule of a config for the optimiser of the same config.

    Raises:
        UserError: its settings do not fit (whether they last, `check_training` finds out).
    """
    return build_schedule(*_type_and_args(config, "lr_scheduler"), optimiser, _direction(config))


def check_training(config: Config, device: str = "cpu") -> None:
    """Refuse, before any data are opened, a config that no training can be made of.

    Raises:
        UserError: a key is missing, a name is not known, settings of loss, optimizer or schedule do
            not fit, or a metric cannot be measured.
    """
    config.require(TRAINING_KEYS)
    if config.get("distil_loss"):
        config.require(["distil_params.teachers"])
    check_names(config)
    _check_monitor(config)
    build_loss(config)
    build_visualizer(config)
    check_precision(config.get("precision", "float32"), torch.device(device))
    _rehearse(config, device)


def _rehearse(config: Config, device: torch.device | str) -> None:
    rehearse(
        _type_and_args(config, "optimizer"),
        _type_and_args(config, "lr_scheduler"),
        _direction(config),
        config["trainer.epochs"],
        device,
    )


def _type_and_args(config: Config, section: str) -> tuple[str, dict[str, Any]]:
    return config[f"{section}.type"], config.get(f"{section}.args", {})


def _monitor(config: Config) -> str:
    return config.get("trainer.monitor", TrainingSettings.monitor)


def _direction(config: Config) -> str | None:
    """Return whether more ("max") or less ("min") of the monitored metric is better, if any is."""
    direction = _monitor(config).partition(" ")[0]
    return None if direction == "off" else direction


def _check_monitor(config: Config) -> None:
    ranks = Ranks(torch.ones(1), torch.ones(1))
    measured = [f"val_{name}_{key}" for name in config["metrics"] for key in METRICS[name](ranks)]
    watched = _monitor(config).partition(" ")[2]
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
