"""Files of teachers: what a trained model makes of the training videos and of their captions.

Ours is a packed file, mapped and never held whole. It stores what makes a similarity exact where
experts are missing: how much each caption asks of each expert, and which experts a video has. The
published one is a pickle, video -> {"vid_embds": {expert: (d,)}, "text_embds": {expert:
(captions, d)}}, whose similarity is the sum of inner products; it is packed on its first use.

V videos, Q captions of all videos, M experts, E the sum of the experts' embedding sizes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.store.packed import (
    Packed,
    Part,
    Recipe,
    is_packed,
    load_or_make,
    offsets_of,
    read_packed,
    write_packed,
)
from data_loader.teachers.published import pack_published
from utils.errors import BadContent, UserError
from utils.files import PATH_ERRORS, reason

KIND = "teacher"
_FACTS = ("ids", "experts", "sizes")
_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class TeacherShape:
    """What a teacher knows and how large its embeddings are.

    Attributes:
        ids: V video ids.
        caption_counts: V numbers of captions.
        experts: M names.
        sizes: M embedding sizes.
    """

    ids: list[str]
    caption_counts: np.ndarray
    experts: list[str]
    sizes: list[int]


def write_teacher(
    path: Path,
    shape: TeacherShape,
    video: np.ndarray,
    available: np.ndarray,
    texts: Iterable[tuple[np.ndarray, np.ndarray | None]],
    has_weights: bool,
    made_by: Mapping[str, Any],
    dtype: np.dtype = _FLOAT32,
) -> None:
    """Write a teacher in our format, block by block.

    Args:
        path: the file.
        shape: what it knows.
        video: (V, E) embeddings.
        available: (V, M), 1 where a video has an expert.
        texts: embeddings (q, E) and mixture weights (q, M) of blocks of captions, in order.
        has_weights: whether there are mixture weights; without, every expert counts 1.
        made_by: where the embeddings come from, plain data.
        dtype: of the embeddings in the file.

    Raises:
        UserError: the file cannot be written; what stood there is still whole then.
    """
    weights: list[np.ndarray] = []

    def embeddings() -> Iterator[np.ndarray]:
        for block, block_weights in texts:
            if block_weights is not None:
                weights.append(block_weights)
            yield block

    captions = int(shape.caption_counts.sum())
    parts = {
        "video": Part(dtype, video.shape, lambda: [video]),
        "available": Part.of(available.astype(_FLOAT32)),
        "caption_offsets": Part.of(offsets_of(shape.caption_counts)),
        "text": Part(dtype, (captions, sum(shape.sizes)), embeddings),
    }
    if has_weights:  # after the text, as they come with its blocks
        parts["weights"] = Part(_FLOAT32, (captions, len(shape.sizes)), lambda: weights)
    facts = {
        "kind": KIND,
        "ids": shape.ids,
        "experts": shape.experts,
        "sizes": shape.sizes,
        "made_by": dict(made_by),
    }
    write_packed(path, parts, facts)


def open_teacher(path: Path, cache_folders: list[Path]) -> Packed:
    """Map a teacher of either format; the format follows from the content, not from the name.

    Arrays: `video` (V, E), `available` (V, M), `text` (Q, E), `caption_offsets` (V + 1) and,
    except in published files, `weights` (Q, M). Facts: `ids`, `experts`, `sizes`.

    Raises:
        UserError: the file is damaged, or holds anything but a teacher.
    """
    try:
        is_published = not is_packed(path)
        if not is_published:
            packed = read_packed(path)
            _check(packed)
            return packed
    except BadContent as error:
        raise UserError(
            f"The teacher {path} cannot be used: {error}; make it again with misc/make_teachers.py."
        ) from error
    except PATH_ERRORS as error:
        raise UserError(f"Cannot read the teacher {path}: {reason(error)}.") from error
    recipe = Recipe(KIND, (path,), {}, lambda: pack_published(path))
    return load_or_make(recipe, cache_folders)


def _check(packed: Packed) -> None:
    """Insist that a packed file is a teacher and that its arrays fit together."""
    facts, arrays = packed.facts, packed.arrays
    if not isinstance(facts, dict) or facts.get("kind") != KIND:
        raise BadContent("it is no file of a teacher")
    ids, experts, sizes = (facts.get(name, ()) for name in _FACTS)
    captions = arrays.get("caption_offsets")
    if not (
        _are_names(ids)
        and _are_names(experts)
        and isinstance(sizes, list)
        and all(type(size) is int and size > 0 for size in sizes)
        and len(experts) == len(sizes)
        and captions is not None
        and captions.dtype.kind == "i"
        and captions.shape == (len(ids) + 1,)
        and captions[0] == 0
        and (np.diff(captions) >= 0).all()
    ):
        raise BadContent("its parts contradict one another")
    shapes = {
        "video": (len(ids), sum(sizes)),
        "available": (len(ids), len(sizes)),
        "text": (int(captions[-1]), sum(sizes)),
        "weights": (int(captions[-1]), len(sizes)),
    }
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None and name == "weights":
            continue
        if array is None or array.shape != shape or array.dtype.kind != "f":
            raise BadContent(f'its part "{name}" is not as announced')


def _are_names(values: Any) -> bool:
    is_list = isinstance(values, list) and all(type(value) is str for value in values)
    return is_list and len(set(values)) == len(values)
