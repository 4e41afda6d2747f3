"""Makes clips: renders each, computes its experts, and keeps its video and features.

Features are plain arrays: ids, values, and offsets for experts of variable length.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from misc.demo_set.pictures.picture import render
from misc.demo_set.pictures.video import write_video
from misc.demo_set.plan import FRAMES_PER_SECOND, Plan, clip_id, generator, plan_clip
from misc.demo_set.settings import Places, Settings
from misc.demo_set.sound import make_sound
from misc.demo_set.words import word_vectors
from misc.demo_set.words.reading import read_words, transcribe
from misc.extract_experts.expert import Chunk, Sound
from misc.extract_experts.expert import Settings as Running
from misc.extract_experts.experts import builtin
from utils.files import replacing


@dataclass(frozen=True)
class Expert:
    """Size of an expert's features, and whether a clip has one vector or a number of them."""

    size: int
    variable_length: bool = False
    word_vectors: bool = False


# Those of the experts that need no weights which the published table of the demo set uses.
_COMPUTED = {
    row.name: row.load(Running())
    for row in builtin.ROWS
    if row.name in ("appearance", "audio", "motion", "scene")
}
EXPERTS = {
    "appearance": Expert(_COMPUTED["appearance"].size),
    "audio": Expert(_COMPUTED["audio"].size, variable_length=True),
    "motion": Expert(_COMPUTED["motion"].size),
    "ocr": Expert(word_vectors.SIZE, variable_length=True, word_vectors=True),
    "scene": Expert(_COMPUTED["scene"].size),
    "speech": Expert(word_vectors.SIZE, variable_length=True, word_vectors=True),
}
TABLE_FOR_WORDS = "w2v-large"  # the word vectors that OCR and speech are given in
MISSING_SHARE = 0.15  # of the clips lack the motion expert, at random


@dataclass(frozen=True)
class Clip:
    """What a viewer sees and hears."""

    plan: Plan
    frames: np.ndarray  # (T, height, width, 3) uint8
    samples: np.ndarray  # (S,) float32
    transcript: tuple[str, ...]  # spoken words as a speech recogniser would write them down


def make_clip(seed: int, number: int) -> Clip:
    """Render one clip."""
    plan = plan_clip(seed, number)
    heard = tuple(transcribe(plan, seed))
    return Clip(plan, render(plan, seed), make_sound(plan, seed), heard)


def compute_experts(
    frames: np.ndarray, samples: np.ndarray, transcript: tuple[str, ...], seed: int
) -> dict[str, np.ndarray]:
    """Compute all experts from pixels, sound and words; those with nothing to say are left out."""
    times = np.arange(len(frames)) / FRAMES_PER_SECOND
    experts = {}
    for name, loaded in _COMPUTED.items():
        hears = isinstance(loaded.look, Sound)
        chunk = Chunk(samples, np.zeros(1)) if hears else Chunk(frames, times)
        vectors = loaded.function([chunk])[0].vectors
        if vectors is not None and len(vectors):
            experts[name] = vectors if EXPERTS[name].variable_length else vectors[0]
    for name, words in (("ocr", read_words(frames)), ("speech", transcript)):
        if words:
            experts[name] = np.stack([_table(seed)[word] for word in words])
    return experts


def make_chunk(settings: Settings, places: Places, place: int) -> None:
    """Make one piece of work: its videos first, then the file of features that says it is done."""
    features: dict[str, dict[str, np.ndarray]] = {name: {} for name in EXPERTS}
    for number in settings.chunks()[place]:
        clip = make_clip(settings.seed, number)
        experts = compute_experts(clip.frames, clip.samples, clip.transcript, settings.seed)
        if generator(settings.seed, "missing expert", number).random() < MISSING_SHARE:
            del experts["motion"]
        for name, values in experts.items():
            features[name][clip_id(number)] = values
        if settings.has_video(number):
            write_video(places.video(number), clip.frames, clip.samples, places.work)
    write_features(places.chunk(place), features, EXPERTS)


@cache
def _table(seed: int) -> dict[str, np.ndarray]:
    return word_vectors.make_table(seed, TABLE_FOR_WORDS)


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
