"""The config of a data set, ready to train: sizes from the data, the recipe from `TEMPLATE`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = "configs/own/train-ce.json"

_MOST_TOKENS, _MOST_WORDS = 100, 300
_BATCH = 64
_WIDEST = 8192
# Of the template: where all experts are projected to.
_SHARED_SIZE = 256


@dataclass(frozen=True)
class Protocol:
    """By which queries videos are searched.

    Attributes:
        said: in words.
        loading: keys of `data_loader.args`.
        arch: keys of `arch.args`.
    """

    said: str
    loading: dict[str, Any]
    arch: dict[str, Any]


def protocol(captions_as: str, most_captions: int) -> Protocol:
    """Return the protocol of a name in `PROTOCOLS`.

    Args:
        captions_as: the name.
        most_captions: of a video of the retrieval sets.
    """
    said, first, loading, arch = PROTOCOLS[captions_as]
    count = {} if first == 0 else {"num_test_captions": first or most_captions}
    return Protocol(said, {**count, **loading}, arch)


# Name -> in words, how many captions are queries (None: all, 0: no number), keys of the config.
PROTOCOLS: dict[str, tuple[str, int | None, dict[str, Any], dict[str, Any]]] = {
    "each": ("each caption of a video is a query", None, {}, {}),
    "first": ("the first caption of a video is its query", 1, {}, {}),
    "paragraph": ("all captions of a video, joined, are its query", 0, {"fuse_captions": True}, {}),
    "mean": (
        "the mean over all captions of a video is its query",
        None,
        {},
        {"test_caption_mode": "avg"},
    ),
}


def make_config(
    folder: Path,
    description: Mapping[str, Any],
    text: str,
    lengths: Mapping[str, Sequence[int] | np.ndarray],
    training_videos: int,
    rules: Protocol,
    videos: str | None,
) -> dict[str, Any]:
    """Return the config as `config.json` holds it.

    Args:
        folder: of the data set, as the user names it.
        description: its `dataset.json`.
        text: name of the text features.
        lengths: expert of variable length, and "text" -> number of vectors of each video or query.
        training_videos: their number.
        rules: the protocol.
        videos: folder of the videos, for the page.
    """
    experts = description["experts"]
    tokens = {name: _tokens(counts, name) for name, counts in lengths.items() if name in experts}
    text_tokens = _tokens(lengths["text"], "text")
    loading: dict[str, Any] = {
        "dataset_name": str(folder),
        "max_tokens": {**tokens, "text": text_tokens},
        **rules.loading,
    }
    if training_videos < _BATCH * 4:
        # A handful of steps an epoch at least.
        loading["batch_size"] = max(2, training_videos // 4)
    clusters = {name: _clusters(count, experts[name]["size"]) for name, count in tokens.items()}
    arch = {**rules.arch}
    if text_tokens == 1:  # nothing is to be pooled
        clusters["text"] = 0
    if clusters:
        arch["vlad_clusters"] = clusters
    if min(entry["size"] for entry in experts.values()) < _SHARED_SIZE:
        # MoEE, where somebody makes it of this, embeds in an expert's own size otherwise.
        arch["mimic_ce_dims"] = 1
        shared = {"ce_shared_dim": _SHARED_SIZE}
    else:
        shared = {}
    config: dict[str, Any] = {
        "inherit_from": TEMPLATE,
        "experts": {"modalities": sorted(experts), "text_feat": text, **shared},
        "data_loader": {"args": loading},
        "arch": {"args": arch},
        "visualizer": {"args": {"src_video_dir": videos or str(folder / "videos")}},
    }
    if text_tokens == 1:
        config["experts"]["text_agg"] = "avg"
    return config if arch else {key: value for key, value in config.items() if key != "arch"}


def _tokens(lengths: Sequence[int] | np.ndarray, name: str) -> int:
    """Return how many to keep: all of nearly all videos, without the few that are far longer."""
    most = _MOST_WORDS if name == "text" else _MOST_TOKENS
    return int(min(most, max(1, np.ceil(np.quantile(lengths, 0.99))))) if len(lengths) else 1


def _clusters(tokens: int, size: int) -> int:
    """Return how many clusters are worth while for so many tokens, each of which is `size` wide."""
    wanted = 8 if tokens > 16 else 4 if tokens > 4 else 2
    while wanted > 2 and wanted * size > _WIDEST:
        wanted //= 2
    return wanted
