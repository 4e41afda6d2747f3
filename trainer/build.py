"""From a config to the parts that it names. Only what stands in these tables can be built."""

from typing import Any

from torch import nn

from data_loader.errors import UserError, did_you_mean
from data_loader.loader import ExpertDataLoader
from model import CENet
from model.loss import MaxMarginRankingLoss
from trainer.visualizer import Visualizer

ARCHITECTURES = {"CENet": CENet}
LOADERS = {"ExpertDataLoader": ExpertDataLoader}
LOSSES = {"MaxMarginRankingLoss": MaxMarginRankingLoss}
VISUALIZERS = {"Visualizer": Visualizer}

# Keys of the config's `experts` section that the data loader reads.
_LOADER_KEYS = ("modalities", "text_feat", "text_agg", "drop_feats", "face_dim", "text_dim")


def build_loader(config: dict[str, Any], seed: int) -> ExpertDataLoader:
    """Open the data set of a config; `seed` fixes the order of videos and the captions drawn."""
    section = config["data_loader"]
    experts = {key: config["experts"][key] for key in _LOADER_KEYS if key in config["experts"]}
    chosen = {key: config[key] for key in ("caption_masks", "training_file") if key in config}
    loader = _choose("data_loader", LOADERS, section["type"])
    return loader(**section.get("args", {}), **experts, **chosen, seed=seed)


def build_net(config: dict[str, Any], loader: ExpertDataLoader) -> nn.Module:
    """Build the model of a config for the experts and captions of a data set.

    Raises:
        UserError: a variable-length expert has no clusters, or the arguments do not fit together.
    """
    section = config["arch"]
    args = dict(section.get("args", {}))
    clusters = args.setdefault("vlad_clusters", {})
    shared_size = config["experts"].get("ce_shared_dim")
    uses_shared_size = bool(args.get("use_ce") or args.get("mimic_ce_dims"))
    if uses_shared_size and not shared_size:
        raise UserError("The config has use_ce or mimic_ce_dims, but no experts.ce_shared_dim.")
    dims = {}
    for expert in loader.experts:
        pooled = expert.size
        if expert.variable_length:
            if not clusters.get(expert.name):
                raise UserError(
                    f'The expert "{expert.name}" has variable length: set its number of clusters '
                    f"in arch.args.vlad_clusters.{expert.name}."
                )
            pooled *= clusters[expert.name]
        dims[expert.name] = (pooled, shared_size if uses_shared_size else expert.size)
    aggregation = {e.name: {"temporal": "vlad"} for e in loader.experts if e.variable_length}
    architecture = _choose("arch", ARCHITECTURES, section["type"])
    try:
        return architecture(
            expert_dims=dims, text_dim=loader.text_size, feat_aggregation=aggregation, **args
        )
    except ValueError as error:
        raise UserError(f"The model of this config cannot be built: {error}") from error


def build_loss(config: dict[str, Any]) -> nn.Module:
    return _with_args("loss", LOSSES, config["loss"])


def build_visualizer(config: dict[str, Any]) -> Visualizer | None:
    section = config.get("visualizer")
    return _with_args("visualizer", VISUALIZERS, section) if section else None


def count_parameters(net: nn.Module) -> int:
    """Number of parameters that learn."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def _choose(part: str, table: dict[str, Any], kind: str) -> Any:
    if kind not in table:
        raise UserError(
            f'{part}.type "{kind}" cannot be built{did_you_mean(kind, table)}; known: '
            f"{', '.join(table)}."
        )
    return table[kind]


def _with_args(part: str, table: dict[str, Any], section: dict[str, Any]) -> Any:
    kind = section["type"]
    try:
        return _choose(part, table, kind)(**section.get("args", {}))
    except TypeError as error:
        raise UserError(f"{part}.args do not fit {kind}: {error}.") from error
