"""Teachers: what trained models make of the training videos and of their captions, and its files.

Ours is a packed file, mapped and never held whole. It stores what makes a similarity exact where
experts are missing: how much each caption asks of each expert, and which experts a video has. The
published one (see `published`) is packed on its first use.

V videos, Q captions of all videos, B captions or videos that are asked for, M experts, D embedding
size of an expert, E the sum of those sizes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.store.feature_store import VideoIndex, fits_on, gather_rows
from data_loader.store.packed import (
    MappedPages,
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


class Teacher:
    """One teacher, for the videos of a training list.

    Args:
        name: what messages call it.
        packed: its embeddings, see `open_teacher`.
        video_ids: the training list; videos are asked for by their places in it.
        caption_counts: (V,) raw captions of each of them.

    Raises:
        UserError: it does not know a video of the list, or knows another number of its captions.
    """

    def __init__(
        self, name: str, packed: Packed, video_ids: list[str], caption_counts: np.ndarray
    ) -> None:
        self.name = name
        self.experts: list[str] = packed.facts["experts"]
        self._sizes: list[int] = packed.facts["sizes"]
        self._arrays: dict[str, torch.Tensor] = {
            part: torch.from_numpy(packed.arrays[part])
            for part in ("video", "available", "text", "weights")
            if part in packed.arrays
        }
        self._pages = {part: MappedPages(packed.arrays[part]) for part in self._arrays}
        index = VideoIndex(packed)
        self._rows = index.rows(video_ids)
        self._check_videos(video_ids)
        self._first, known = index.captions(video_ids)
        self._check_captions(video_ids, known, caption_counts)
        self._counts = np.asarray(caption_counts)

    def _check_videos(self, video_ids: list[str]) -> None:
        unknown = np.flatnonzero(self._rows < 0)
        if len(unknown):
            raise UserError(
                f"The teacher {self.name} does not know {len(unknown)} of the {len(video_ids)} "
                f'training videos (the first is "{video_ids[unknown[0]]}"): make it with '
                "misc/make_teachers.py from a model of this data set and split."
            )

    def _check_captions(
        self, video_ids: list[str], known: np.ndarray, expected: np.ndarray
    ) -> None:
        other = np.flatnonzero(known != expected)
        if len(other):
            first = other[0]
            raise UserError(
                f"The teacher {self.name} has {known[first]} captions of the video "
                f'"{video_ids[first]}", the data set has {expected[first]} ({len(other)} videos '
                "differ): it was made from other captions; make it again with "
                "misc/make_teachers.py."
            )

    def move_to(self, device: torch.device) -> None:
        """Keep the embeddings on a device, where there is room for them."""
        if fits_on(device, self._arrays.values()):
            self._arrays = {part: values.to(device) for part, values in self._arrays.items()}

    def text(
        self, videos: np.ndarray, captions: np.ndarray
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
        """Return the embeddings of one caption for each video, M times (B, D), and their weights.

        Args:
            videos: (B,) places in the training list.
            captions: (B,) which of the video's raw captions.

        Returns:
            M times (B, D) float32, and the mixture weights (B, M); None: every expert counts 1.
        """
        videos, captions = np.asarray(videos), np.asarray(captions)
        if (captions < 0).any() or (captions >= self._counts[videos]).any():
            raise IndexError("a caption is asked for that its video does not have")
        rows = self._first[videos] + captions
        weights = self._gather("weights", rows) if "weights" in self._arrays else None
        return self._gather("text", rows).split(self._sizes, dim=1), weights

    def video(self, videos: np.ndarray) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Return the embeddings of videos, M times (B, D) float32, and their availability (B, M).

        Args:
            videos: (B,) places in the training list.
        """
        rows = self._rows[np.asarray(videos)]
        available = self._gather("available", rows)
        return self._gather("video", rows).split(self._sizes, dim=1), available

    def _gather(self, part: str, rows: np.ndarray) -> torch.Tensor:
        self._pages[part].were_read(len(rows))
        return gather_rows(self._arrays[part], rows)


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
