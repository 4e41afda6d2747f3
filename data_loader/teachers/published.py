"""Teachers in the published format: a pickle, video -> {"vid_embds": {expert: (d,)}, "text_embds":
{expert: (captions, d)}}. Their similarity is the sum over experts of the inner products.

V videos, Q captions of all videos, E the sum of the experts' embedding sizes.
"""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.formats.read import read_plain_mapping
from data_loader.store.packed import Part, offsets_of
from utils.errors import UserError, did_you_mean, short
from utils.files import replacing

_SIDES = ("vid_embds", "text_embds")
_FLOAT16, _FLOAT32 = np.dtype("<f2"), np.dtype("<f4")
# A pickle can name one array a million times; written out for each video it would fill a disk.
_FREE_VALUES = 16 << 20
_VALUES_PER_BYTE = 4

PublishedVideo = dict[str, dict[str, np.ndarray]]
"""One video of a published file: side -> expert -> embeddings."""


def write_published_teacher(path: Path, videos: Iterable[tuple[str, PublishedVideo]]) -> None:
    """Write a teacher as the published system reads it, one video after the other.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as handle:
        pickler = pickle.Pickler(handle, protocol=4)
        # Without this the pickler would keep every array alive, to name it again if it came twice.
        pickler.fast = True
        pickler.dump(_Streamed(iter(videos)))


class _Streamed:
    """Pickles as a dictionary whose items are made when they are written."""

    def __init__(self, items: Iterator[tuple[str, Any]]) -> None:
        self.items = items

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (), None, None, self.items


def pack_published(path: Path) -> tuple[dict[str, Part], dict[str, Any]]:
    """Read a published file; its arrays are views into it, copied one video at a time."""
    videos = read_plain_mapping(path, "teacher embeddings")
    if not videos:
        raise UserError(f"The teacher {path} holds no video.")
    sizes = _sizes_of(path, *next(iter(videos.items())))
    counts, dtypes, total = [], set(), 0
    for key, sides in videos.items():
        count = _check_video(path, key, sides, sizes)
        counts.append(count)
        dtypes |= {array.dtype.str for array in sides["text_embds"].values()}
        total += (count + 1) * sum(sizes.values())
    if total > _FREE_VALUES + _VALUES_PER_BYTE * path.stat().st_size:
        raise UserError(f"The teacher {path} repeats the same arrays until they outgrow the file.")
    dtype = _FLOAT16 if dtypes == {_FLOAT16.str} else _FLOAT32

    def texts() -> Iterator[np.ndarray]:
        for key, sides in videos.items():
            yield _joined(path, key, [sides["text_embds"][name] for name in sizes], dtype)

    def embeddings() -> Iterator[np.ndarray]:
        for key, sides in videos.items():
            rows = [_row(sides["vid_embds"].get(name), size, dtype) for name, size in sizes.items()]
            yield _joined(path, key, rows, dtype)

    shape = (len(videos), sum(sizes.values()))
    has_expert = [
        [not _is_missing(sides["vid_embds"].get(name)) for name in sizes]
        for sides in videos.values()
    ]
    return {
        "video": Part(dtype, shape, embeddings),
        "available": Part.of(np.array(has_expert, dtype=_FLOAT32)),
        "caption_offsets": Part.of(offsets_of(counts)),
        "text": Part(dtype, (sum(counts), shape[1]), texts),
    }, {"ids": list(videos), "experts": list(sizes), "sizes": list(sizes.values())}


def _sizes_of(path: Path, key: str, sides: Any) -> dict[str, int]:
    """Return expert -> embedding size, by the first video of a published file."""
    _check_sides(path, key, sides)
    sizes = {}
    for name, array in sides["text_embds"].items():
        if not isinstance(array, np.ndarray) or array.ndim != 2 or not array.shape[1]:
            raise _odd(
                path, key, f'the captions of the expert "{short(name)}" are no (captions, d) array'
            )
        sizes[str(name)] = array.shape[1]
    if not sizes:
        raise _odd(path, key, "it has no experts")
    return sizes


def _check_sides(path: Path, key: str, sides: Any) -> None:
    for side in _SIDES:
        if not isinstance(sides, dict) or not isinstance(sides.get(side), dict):
            raise _odd(path, key, f'"{side}" with one array for each expert is missing')


def _check_video(path: Path, key: str, sides: Any, sizes: Mapping[str, int]) -> int:
    """Insist that one video of a published file is like the first; returns its captions."""
    _check_sides(path, key, sides)
    texts, videos = (sides[side] for side in reversed(_SIDES))
    if texts.keys() != sizes.keys():
        raise _odd(path, key, "its captions have other experts than those of the first video")
    for name in videos:
        if name not in sizes:
            hint = did_you_mean(name, sizes)
            raise _odd(
                path, key, f'its expert "{short(name)}"{hint} is not among those of its captions'
            )
    counts = set()
    for name, array in texts.items():
        if not _is_float(array) or array.ndim != 2 or array.shape[1] != sizes[name]:
            raise _odd(path, key, f'the captions of "{short(name)}" are not of size {sizes[name]}')
        counts.add(len(array))
    if len(counts) > 1:
        raise _odd(path, key, "its experts have different numbers of captions")
    for name, array in videos.items():
        if _is_missing(array):
            continue
        if not _is_float(array) or array.size != sizes[name]:
            raise _odd(path, key, f'the video of "{short(name)}" is not of size {sizes[name]}')
    return counts.pop()


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _is_missing(value: Any) -> bool:
    """Whether a published file has no embedding of an expert: none at all, or NaN alone."""
    if isinstance(value, float) or _is_float(value):
        return bool(np.isnan(value).all())
    return value is None


def _odd(path: Path, key: str, what: str) -> UserError:
    return UserError(f'The teacher {path} cannot be used: of the video "{short(key)}", {what}.')


def _row(value: Any, size: int, dtype: np.dtype) -> np.ndarray:
    return np.zeros((1, size), dtype) if _is_missing(value) else value.reshape(1, size)


def _joined(path: Path, key: str, arrays: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = np.concatenate(arrays, axis=1).astype(dtype, copy=False)
    if not np.isfinite(values).all():
        raise _odd(path, key, "an embedding is not finite")
    return values
