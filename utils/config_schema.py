"""The table of known config keys, and the check of a config against it.

An unknown key, a wrong type or an impossible value is refused before anything is built.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from utils.config_kinds import (
    Anything,
    Bool,
    Choice,
    Dict,
    FilePath,
    Flag,
    Float,
    Int,
    KeyPath,
    Kind,
    ListOf,
    MapOf,
    Nullable,
    OrAuto,
    Section,
    Str,
    WithoutEffect,
    is_too_deep,
    shown,
)
from utils.errors import UserError, did_you_mean, listed

# What a config can have built or measured stands in tables beside the things themselves, which need
# torch: here any name will do, and `trainer.build.check_names` looks it up before work starts.


def _name(what: str) -> Str:
    return Str(what=f"the name of {what}")


def _part(what: str, args: Kind, **others: Kind) -> Section:
    """A section that names what is to be built, and its settings."""
    return Section({"type": _name(what), "args": args, **others})


SUMMARY = "(?:avg|max|std|ent|vlad)"
TEMPORAL = Str(f"{SUMMARY}(?:-{SUMMARY})*", 'words of avg, max, std, ent or vlad joined by "-"')
MONITOR = Str(r"off|(?:min|max) \S+", '"off", or "max <metric>" or "min <metric>"')

# Maxima far above any use: what is larger is a slip, and would fill memory before it fails.
SIZE = Int(1, vast=1_000_000)  # of a feature or an embedding
CLUSTERS = Int(0, vast=10_000)
VIDEOS = Int(1, vast=1_000_000)

# How one expert's features were cut from the video; together the values name its feature file.
EXPERT = Section(
    {
        "model": Str(),
        "type": Choice("embed", "logits"),
        "feat_type": WithoutEffect(Str()),
        "temporal": TEMPORAL,
        "aggregate": Choice("concat"),
        "aggregate-axis": Int(-8, 8),
        "fps": Int(1),
        "pixel_dim": Int(1),
        "stride": Int(1),
        "inner_stride": Int(1),
        "offset": Int(0),
        "num_segments": Nullable(Int(1)),
        "feat_dims": Section({"embed": SIZE, "logits": SIZE}),
        "binarise": Bool(),
        "flaky": Bool(),
    }
)

ARCH_ARGS = Section(
    {
        "use_ce": Str(what='the name of a gating, or ""'),
        "task": Choice("retrieval", "compute_video_embeddings"),
        "vlad_clusters": MapOf(CLUSTERS),
        "ghost_clusters": MapOf(CLUSTERS),
        "vlad_mask_padding": Bool(),
        "include_self": Flag(),
        "use_mish": Flag(),
        "use_bn_reason": Flag(),
        "num_g_layers": Int(1, vast=100),
        "num_h_layers": Int(0, vast=100),
        "mimic_ce_dims": Flag(),
        "concat_experts": Bool(),
        "concat_mix_experts": Bool(),
        "concat_zero_video": Bool(),
        "freeze_weights": Bool(),
        "keep_missing_modalities": Bool(),
        "test_caption_mode": Choice("indep", "avg"),
        "randomise_feats": Str(),
        "l2renorm": Bool(),
        "trn_cat": WithoutEffect(Flag()),
        "trn_config": WithoutEffect(Anything()),
        "disable_nan_checks": WithoutEffect(Bool()),
    }
)

DATA_LOADER_ARGS = Section(
    {
        "dataset_name": FilePath(),
        "data_dir": FilePath(),
        "root_feat_folder": FilePath(),
        "challenge_test_root_feat_folder": FilePath(),
        "cache_dir": Nullable(FilePath()),
        "split_name": FilePath(),
        "batch_size": Int(1, vast=1_000_000),
        "num_workers": Int(0, vast=1000),
        "num_test_captions": Nullable(Int(1, vast=10_000)),
        "restrict_train_captions": Int(0),
        "fuse_captions": Bool(),
        "text_dropout": Float(0, 1),
        "captions_per_video": Int(1, vast=1000),
        "max_tokens": MapOf(Int(1, vast=1_000_000)),
        "feat_aggregation": MapOf(EXPERT),
        "use_zeros_for_missing": Bool(),
        "refresh_lru_cache": WithoutEffect(Bool()),
        "trn_cat": WithoutEffect(Flag()),
        "trn_config": WithoutEffect(Anything()),
    }
)

EXPERTS = Section(
    {
        "modalities": OrAuto(ListOf(FilePath())),
        "drop_feats": Str(),
        "face_dim": SIZE,
        "ce_shared_dim": Nullable(SIZE),
        "text_feat": FilePath(),
        "text_dim": SIZE,
        "text_agg": Choice("vlad", "avg"),
    }
)

TRAINER = Section(
    {
        "epochs": Int(1, vast=1_000_000),
        "val_freq": Int(1),
        "monitor": MONITOR,
        "early_stop": Int(1),
        "save_dir": FilePath(".+", "the name of a folder"),
        "save_only_best": Bool(),
        "save_period": Int(1),
        "skip_first_n_saves": Int(0),
        "keep_last": Int(1),
        "checkpoint_minutes": Float(0),
        "mini_train_batches": Int(1),
        "tensorboard": Bool(),
        "trackers": ListOf(_name("a tracker")),
        "log_every": Int(1),
        "clip_norm": Nullable(Float(1e-6, 10**6)),  # below, no float32 learns; above, none is cut
        "accumulate": Int(1, vast=10_000),
        "local_batch_norm": Bool(),
        "ema": Float(0, 1),
        "average_best": Int(1, vast=100),
        "dropout": Section({name: Float(0, 1) for name in ("features", "text", "experts")}),
        "verbosity": Int(0),
    }
)

# What may stand in a config and, to replace it in the final test, in its `eval_settings`.
REPLACEABLE: dict[str, Kind] = {
    "experiment_name": FilePath(r"(?!\.{1,2}$)[^/\\]+", "a name without slashes"),
    "seed": Int(0, 2**32 - 1),
    "n_gpu": Int(0),
    "precision": _name("a precision"),
    "compile": Bool(),
    "arch": _part("a model", ARCH_ARGS),
    "experts": EXPERTS,
    "data_loader": _part("a data loader", DATA_LOADER_ARGS, batch_size=WithoutEffect(Int(1))),
    "data_set_maker": Section(
        {
            "type": Choice("demo"),
            "args": Section(
                {"seed": Int(0), "num_train": VIDEOS, "num_val": VIDEOS, "num_test": VIDEOS}
            ),
        }
    ),
    "training_file": Nullable(FilePath()),
    "caption_masks": Nullable(FilePath()),
    "distil_loss": Bool(),
    "distil_params": Section(
        {
            "base_path": FilePath(),
            "teachers": ListOf(FilePath(), minimum=1),
            "aggregate": _name("a way to join teachers"),
            "weight": Float(0),
        }
    ),
    "loss": _part("a loss", Section({"margin": Float(0), "fix_norm": Bool()}, others=Anything())),
    "optimizer": _part(
        "an optimizer",
        Section({"lr": Float(0), "weight_decay": Float(0)}, others=Anything()),
        decay_biases=Bool(),
    ),
    "lr_scheduler": _part("a schedule", Section({}, others=Anything())),
    "trainer": TRAINER,
    "metrics": ListOf(_name("a metric")),
    "visualizer": _part(
        "a visualizer",
        Section(
            {
                "src_video_dir": FilePath(),
                "vis_vid_freq": Int(1),
                "num_samples": Int(0),
                "top_k": Int(1),
                "all_queries": Bool(),
            }
        ),
    ),
    "correction": Section(
        {"kinds": ListOf(_name("a kind of correction"), minimum=1), "bank_size": Int(1)},
        or_false=True,
    ),
    "eval_mode": Choice("test_run", "fixed_num_epochs"),
    "challenge_mode": Bool(),
    "disable_gpu": Bool(),
    "tester": Section({"save_dir": FilePath(), "verbosity": Int(0)}),
    "disable_nan_checks": WithoutEffect(Bool()),
    "hconfig_path": WithoutEffect(FilePath()),
    # Text features are declared by the description of the data set.
    "text_embedding_model_configs": WithoutEffect(FilePath()),
    "log_name": WithoutEffect(FilePath()),
}

SCHEMA = Section(
    {
        **REPLACEABLE,
        "init_from": Nullable(FilePath()),
        "eval_settings": Section(REPLACEABLE, or_false=True),
    }
)

# What may differ between a training and its continuation: no value here changes the weights that an
# epoch ends with. (Keys without effect are known by their kind.)
NOT_LEARNED = {
    # how long it learns, unless the schedule ends with it, and how fast
    *("trainer.epochs", "trainer.early_stop", "trainer.mini_train_batches"),
    *("n_gpu", "disable_gpu", "compile", "data_loader.args.num_workers"),
    # which checkpoints are kept, what is logged, drawn and tested
    *("trainer.save_only_best", "trainer.save_period", "trainer.skip_first_n_saves"),
    *("trainer.keep_last", "trainer.checkpoint_minutes"),
    *(
        "trainer.tensorboard",
        "trainer.trackers",
        "trainer.log_every",
        "trainer.verbosity",
        "visualizer",
    ),
    *("metrics", "correction", "eval_settings", "eval_mode", "challenge_mode", "tester"),
    "data_loader.args.num_test_captions",
    # where files lie, and what it is called; a run keeps the seed that it began with
    *("trainer.save_dir", "data_loader.args.cache_dir", "data_loader.args.data_dir"),
    *("data_loader.args.root_feat_folder", "data_loader.args.challenge_test_root_feat_folder"),
    *("experiment_name", "seed"),
}

# Without these no data can be loaded, and no training made; the rest has defaults, or depends on
# the data.
LOADER_KEYS = (
    "experts.modalities",
    "experts.text_feat",
    "data_loader.type",
    "data_loader.args.dataset_name",
    "data_loader.args.split_name",
    "data_loader.args.batch_size",
    "data_loader.args.max_tokens",
)
TRAINING_KEYS = (
    *LOADER_KEYS,
    "arch.type",
    "loss.type",
    "optimizer.type",
    "lr_scheduler.type",
    "metrics",
    "trainer.epochs",
    "trainer.save_dir",
)

# A section that names what to build is of no use without the name.
_TYPES = {
    name: kind.keys["type"]
    for name, kind in REPLACEABLE.items()
    if isinstance(kind, Section) and "type" in kind.keys
}


def check(values: Any, where: str) -> None:
    """Refuse a config with an unknown key, a wrong type or an impossible value.

    Raises:
        UserError: names `where` the config comes from, the key, what was expected and the nearest
            known key.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: a config must be a dict, not {shown(values)}.")
    if is_too_deep(values):
        raise UserError(f"{where}: its dicts and lists are nested deeper than those of any config.")
    for problem in SCHEMA.problems(values, ()):
        hint = nearest_key(problem.path) if problem.unknown else ""
        raise UserError(f"{where}: {problem.sentence}{hint}.")
    for name, kind in _TYPES.items():
        if "type" not in values.get(name, {"type": ""}):
            raise UserError(f'{where}: "{name}.type" is missing; it must be {kind.describe()}.')


def changes_learning(path: KeyPath) -> bool:
    """Tell whether another value at a key is another training."""
    starts = [path[:length] for length in range(1, len(path) + 1)]
    without_effect = any(isinstance(kind_at(start), WithoutEffect) for start in starts)
    return not without_effect and not any(".".join(start) in NOT_LEARNED for start in starts)


def kind_at(path: KeyPath) -> Kind | None:
    """Return the kind of value that belongs at a key, None where there is no such key."""
    kind: Kind | None = SCHEMA
    for part in path:
        if isinstance(kind, WithoutEffect):
            kind = kind.kind
        if isinstance(kind, Dict):
            kind = kind.kind_of(part)
        elif not isinstance(kind, Anything):
            return None
    return kind


def nearest_key(path: KeyPath, join: Callable[[KeyPath], str] = ".".join) -> str:
    """Return `` (did you mean "x.y"?)`` for an unknown key, or the keys that may stand there."""
    section = kind_at(path[:-1])
    known = section.keys if isinstance(section, Section) else {}
    beside = [name for name, kind in known.items() if not isinstance(kind, WithoutEffect)]
    hint = did_you_mean(path[-1], beside)
    for name in beside:
        if f'"{name}"' in hint:
            return hint.replace(name, join((*path[:-1], name)), 1)
    elsewhere = [found for found in _known_keys(SCHEMA) if found[-1] == path[-1]]
    if elsewhere:
        return f' (did you mean "{join(min(elsewhere, key=len))}"?)'
    return f" (known here: {listed(beside, 12)})" if beside else ""


def _known_keys(kind: Kind, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Walk the keys that have an effect, those of `eval_settings` aside."""
    for name, entry in kind.keys.items() if isinstance(kind, Section) else ():
        if not isinstance(entry, WithoutEffect) and name != "eval_settings":
            yield (*path, name)
            yield from _known_keys(entry, (*path, name))


# Args of parts whose types take different ones: those that the types share. Other parts have one
# type, or types that let be what is not theirs.
SHARED_ARGS: dict[str, set[str]] = {
    "optimizer": {"lr", "weight_decay"},
    "lr_scheduler": set(),
    "loss": set(),
}
# The one optimizer that lacks a shared arg.
_LACKING = {"Rprop": {"weight_decay"}}


def drop_args_of_other_types(lineage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return configs without the args that a later one of them has no use for.

    Args:
        lineage: configs in order of increasing weight. Where one of them gives a part another type
            than those before it, their args of that part go, but for those that its types share.
    """
    kept = list(lineage)
    for part in SHARED_ARGS:
        kinds = [_kind_in(values, part) for values in lineage]
        known = [(place, kind) for place, kind in enumerate(kinds) if kind is not None]
        changes = [after for before, after in pairwise(known) if before[1] != after[1]]
        if changes:
            place, kind = changes[-1]
            kept[:place] = [without_args(values, part, kind) for values in kept[:place]]
    return kept


def without_args(values: dict[str, Any], part: str, kind: str) -> dict[str, Any]:
    """Return a config without the args of a part that only types other than `kind` take."""
    section = values.get(part)
    if not isinstance(section, dict) or not isinstance(section.get("args"), dict):
        return values
    stays = SHARED_ARGS[part] - _LACKING.get(kind, set())
    args = {name: value for name, value in section["args"].items() if name in stays}
    return {**values, part: {**section, "args": args}}


def _kind_in(values: dict[str, Any], part: str) -> str | None:
    section = values.get(part)
    kind = section.get("type") if isinstance(section, dict) else None
    return kind if isinstance(kind, str) else None
