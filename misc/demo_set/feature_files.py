"""Features as plain arrays: ids, values, and offsets for experts of variable length."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.files import replacing


@dataclass(frozen=True)
class Expert:
    """Size of an expert's features, and whether a clip has one vector or a number of them."""

    size: int
    variable_length: bool = False
    word_vectors: bool = False


def write_features(
    path: Path, features: dict[str, dict[str, np.ndarray]], experts: dict[str, Expert]
) -> None:
    """Write the features (expert -> clip id -> array) of some clips into one file."""
    arrays = {
        f"{name}.{key}": values
        for name, expert in experts.items()
        for key, values in _pack(features[name], expert).items()
    }
    with replacing(path) as handle:
        np.savez(handle, **arrays)


def join_features(
    paths: Iterable[Path], experts: dict[str, Expert]
) -> dict[str, dict[str, np.ndarray]]:
    """Read files of `write_features` and put each expert's arrays one after the other.

    Returns: expert -> {"ids": (N,), "feats": (N, D)}, or feats (tokens, D) and offsets (N + 1,).
    """
    pieces: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in experts}
    for path in paths:
        with np.load(path, allow_pickle=False) as arrays:
            for name, expert in experts.items():
                keys = ("ids", "feats", "offsets") if expert.variable_length else ("ids", "feats")
                pieces[name].append({key: arrays[f"{name}.{key}"] for key in keys})
    joined = {}
    for name, expert in experts.items():
        parts = pieces[name]
        joined[name] = {
            key: np.concatenate([part[key] for part in parts]) for key in ("ids", "feats")
        }
        if expert.variable_length:
            lengths = np.concatenate([np.diff(part["offsets"]) for part in parts])
            joined[name]["offsets"] = _offsets(lengths)
    return joined


def standardise(arrays: dict[str, np.ndarray], training: set[str]) -> None:
    """Give each dimension mean 0 and deviation 1 over the training clips, in place."""
    lengths = np.diff(arrays["offsets"]) if "offsets" in arrays else 1
    chosen = np.repeat(np.isin(arrays["ids"], sorted(training)), lengths)
    if not chosen.any():
        return
    values = arrays["feats"][chosen].astype(np.float64)
    mean, deviation = values.mean(0), np.maximum(values.std(0), 1e-3)
    arrays["feats"] = ((arrays["feats"] - mean) / deviation).astype(np.float32)


def write_expert(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write one expert's arrays as the data set's feature file."""
    with replacing(path) as handle:
        np.savez(handle, **arrays)


def _pack(features: dict[str, np.ndarray], expert: Expert) -> dict[str, np.ndarray]:
    ids = np.array(list(features), dtype=np.str_)
    if expert.variable_length:
        parts = [np.empty((0, expert.size), np.float32), *features.values()]
        lengths = np.array([len(values) for values in features.values()], dtype=np.int64)
        return {"ids": ids, "feats": np.concatenate(parts), "offsets": _offsets(lengths)}
    values = np.array(list(features.values()), dtype=np.float32).reshape(-1, expert.size)
    return {"ids": ids, "feats": values}


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
