"""Writes the videos of a part, a few at a time: what is held at once does not grow with them."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_loader.store.packed import Part as Array
from data_loader.store.packed import read_packed, write_packed
from misc.search.index.columns import text_parts
from misc.search.index.parts import Shape, VideoFacts
from model.similarity import VideoEmbeddings
from utils.errors import UserError
from utils.files import make_folder, sync_folder

_BLOCK = 256  # videos that are embedded at once
_ROWS_AT_ONCE = 4096


def patterns_of(availability_NM: np.ndarray) -> list[tuple[tuple[bool, ...], np.ndarray]]:
    """Return each pattern of experts with the videos that have it, in their order.

    The pattern of the most videos comes first.
    """
    patterns, which, counts = np.unique(
        availability_NM > 0, axis=0, return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [
        (tuple(map(bool, patterns[at])), np.flatnonzero(which.reshape(-1) == at)) for at in order
    ]


def write_part(
    folder: Path,
    shape: Shape,
    ids: Sequence[str],
    facts: Sequence[VideoFacts],
    availability_NM: np.ndarray,
    embed: Callable[[np.ndarray], VideoEmbeddings],
    hubness_of: Callable[[VideoEmbeddings], np.ndarray] | None,
) -> None:
    """Write the videos of a part; the arguments are in any order of the videos.

    Args:
        folder: a new one.
        shape: of the embeddings.
        ids: N ids.
        facts: N times what else is known.
        availability_NM: which experts the videos have.
        embed: embeds videos by their places, a few at a time; asked for each of them once.
        hubness_of: what is taken off the similarities of embedded videos, (n,); None: nothing.

    Raises:
        UserError: the folder cannot be written, or an embedding is not finite.
    """
    groups = patterns_of(availability_NM)
    if not shape.weighted and len(groups) > 1:
        # One matrix, as all embeddings count; what is missing is told of none of them.
        groups = [(tuple([True] * len(shape.experts)), np.arange(len(ids)))]
    make_folder(folder)
    offsets = np.zeros(len(ids), dtype=np.float32)

    def pieces(pattern: tuple[bool, ...], places: np.ndarray, first: int) -> Iterator[np.ndarray]:
        """Embed the videos of a pattern, a block at a time, and note what is taken off them."""
        columns = shape.columns(pattern)
        for start in range(0, len(places), _BLOCK):
            video = embed(places[start : start + _BLOCK])
            if hubness_of is not None:
                row = first + start
                offsets[row : row + len(video)] = hubness_of(video)
            yield _joined([video.embeddings[column] for column in columns], len(video))

    arrays: dict[str, Array] = {}
    described, first = [], 0
    for place, (pattern, places) in enumerate(groups):
        width = sum(shape.sizes[column] for column in shape.columns(pattern))
        arrays[f"group{place}"] = Array(
            np.dtype("<f4"),
            (len(places), width),
            partial(pieces, pattern, places, first),
        )
        described.append({"pattern": list(pattern), "first": first})
        first += len(places)
    write_packed(folder / "whole.packed", arrays, {"groups": described})
    _write_half(folder, shape)
    order = [int(place) for _, places in groups for place in places]
    times = [(facts[place].start, facts[place].end) for place in order]
    write_packed(
        folder / "videos.packed",
        text_parts("ids", (ids[place] for place in order))
        | text_parts("facts", (facts[place].as_json() for place in order))
        | {
            "hubness": Array.of(offsets),
            "times": Array.of(np.array(times, dtype=np.float64).reshape(-1, 2)),  # None is NaN
        },
        {},
    )
    sync_folder(folder)


def _joined(embeddings: list[Tensor], count: int) -> np.ndarray:
    if not embeddings:
        return np.zeros((count, 0), dtype=np.float32)
    joined = torch.cat(embeddings, dim=1).float().cpu()
    if not torch.isfinite(joined).all():
        raise UserError(
            "The model gives embeddings of videos that are not finite: its training has diverged."
        )
    return joined.numpy()


def _write_half(folder: Path, shape: Shape) -> None:
    """Write the float16 copies, from the mapped float32 ones."""
    whole = read_packed(folder / "whole.packed")
    arrays: dict[str, Array] = {}
    scales, norms = [], []
    for place, described in enumerate(whole.facts["groups"]):
        values = whole.arrays[f"group{place}"]
        widths = [shape.sizes[column] for column in shape.columns(described["pattern"])]
        largest, lengths = 0.0, np.zeros(len(widths))
        for block in _blocks(values):
            largest = max(largest, float(np.abs(block).max(initial=0.0)))
            cuts = np.split(block, np.cumsum(widths)[:-1], axis=1) if widths else []
            here = [np.linalg.norm(cut, axis=1).max(initial=0.0) for cut in cuts]
            lengths = np.maximum(lengths, here)
        scale = 2.0 ** math.ceil(math.log2(largest)) if largest > 1 else 1.0
        scales.append(scale)
        norms.append([float(length) for length in lengths])
        arrays[f"group{place}"] = Array(
            np.dtype("<f2"),
            values.shape,
            partial(_blocks, values, scale),
        )
    write_packed(folder / "half.packed", arrays, {"scales": scales, "norms": norms})


def _blocks(values: np.ndarray, scale: float = 1.0) -> Iterator[np.ndarray]:
    for start in range(0, len(values), _ROWS_AT_ONCE):
        yield values[start : start + _ROWS_AT_ONCE] / scale
