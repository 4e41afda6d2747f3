"""From what a file holds to tables by video id: features, captions' features, lists of ids."""

import itertools
import math
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from utils.errors import BadContent, is_writable, short

_FREE_VALUES = 16 << 20
_VALUES_PER_BYTE = 4
_LONGEST_NAME = 1000
_PIECE_VALUES = 4 << 20

# What people call the ids of videos, and a matrix or a video's array of features.
ID_NAMES: tuple[str, ...] = (
    *("ids", "id", "keys", "names", "name", "vids", "vid", "video", "videos"),
    *(f"{what}_{ending}" for what in ("video", "clip", "image") for ending in ("id", "ids")),
    *("video_name", "video_names"),
)
FEATURE_NAMES: tuple[str, ...] = (
    *("feats", "feat", "features", "feature", "embeddings", "embedding", "embeds"),
    *("vectors", "vector", "arr_0"),
)

FeatureTable = dict[str, np.ndarray | None]
"""Video id -> array as it stands in the file, or None where the file marks it as missing."""

TextTable = dict[str, list[np.ndarray]]
"""Video id -> one array for each caption, as they stand in the file."""


class Later:
    """An array whose values are read when they are wanted.

    Args:
        shape, dtype: of the array.
        read: gives its rows for a slice, all for `()`.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[Any], np.ndarray]
    ) -> None:
        self.shape, self.dtype, self._read = shape, dtype, read
        self.ndim, self.size = len(shape), math.prod(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._read(rows)


def is_mapped(array: np.ndarray) -> bool:
    """Tell whether an array lies in a file and takes no memory."""
    base: Any = array
    while isinstance(base, np.ndarray | memoryview) and not isinstance(base, np.memmap):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return isinstance(base, np.memmap | mmap.mmap)


def grouped_array(name: str, value: Any) -> Any:
    """Return one of the arrays that belong together by place; MATLAB gives rows and floats."""
    if isinstance(value, list) and name == "ids" and all(isinstance(i, str | int) for i in value):
        return value
    if name == "feats" and isinstance(value, np.ndarray | Later):
        return value
    if not isinstance(value, np.ndarray):
        raise BadContent(f'its "{name}" is no array')
    value = value.reshape(-1)
    is_whole = value.dtype.kind == "f" and np.isfinite(value).all() and (value % 1 == 0).all()
    return value.astype(np.int64) if is_whole else value


def grouped_features(arrays: dict[str, Any]) -> FeatureTable:
    """Return a row, or run of rows, of `feats` for each of `ids`."""
    feats = _feats(arrays)
    offsets = arrays.get("offsets")
    rows = list(feats) if offsets is None else _pieces(feats, offsets)
    ids = _ids(arrays["ids"], len(rows))
    return {
        key: _array_or_none(row) if row.size else None for key, row in zip(ids, rows, strict=True)
    }


def grouped_pieces(arrays: dict[str, Any]) -> Iterator[FeatureTable]:
    """Give what `grouped_features` returns some megabytes at a time."""
    feats, offsets = _feats(arrays), arrays.get("offsets")
    count = len(feats) if offsets is None else len(_cuts(offsets, len(feats))) - 1
    ids = _ids(arrays["ids"], count)
    per_video = max(1, feats.size // max(1, count))
    step = max(1, _PIECE_VALUES // per_video)
    for first in range(0, count, step):
        last = min(first + step, count)
        piece = {"ids": ids[first:last]}
        if offsets is None:
            yield grouped_features({**piece, "feats": feats[first:last]})
        else:
            cuts = _cuts(offsets, len(feats))[first : last + 1]
            rows = feats[int(cuts[0]) : int(cuts[-1])]
            yield grouped_features({**piece, "feats": rows, "offsets": cuts - cuts[0]})


def grouped_captions(arrays: dict[str, Any]) -> TextTable:
    """Return the runs of words of each video's captions."""
    words = _pieces(_feats(arrays), arrays["offsets"])
    videos = _pieces(np.arange(len(words)), arrays["caption_offsets"])
    ids = _ids(arrays["ids"], len(videos))
    return {key: [words[at] for at in rows] for key, rows in zip(ids, videos, strict=True)}


def _feats(arrays: dict[str, Any]) -> np.ndarray:
    feats = arrays["feats"]
    if feats.dtype.kind not in "fiub":
        raise BadContent(f'its array "feats" holds {feats.dtype} where features were expected')
    if feats.ndim == 0:
        raise BadContent('its array "feats" has no rows')
    return feats


def _pieces(values: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """Cut `values` (rows, ...) at `offsets` (pieces + 1)."""
    return [values[start:stop] for start, stop in itertools.pairwise(_cuts(offsets, len(values)))]


def _cuts(offsets: np.ndarray, rows: int) -> np.ndarray:
    if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
        raise BadContent("its offsets are no list of integers")
    cuts = offsets.astype(np.int64)
    if cuts[0] != 0 or cuts[-1] != rows or (np.diff(cuts) < 0).any():
        raise BadContent(f"its offsets do not run from 0 to the {rows} rows it has")
    return cuts


def _ids(ids: np.ndarray | list[str], count: int) -> list[str]:
    if isinstance(ids, np.ndarray) and (ids.ndim != 1 or ids.dtype.kind not in "USiu"):
        raise BadContent('its array "ids" is no list of names')
    if len(ids) != count:
        raise BadContent(f"it has {len(ids)} ids for {count} entries")
    names = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in ids]
    return checked_names(names)


def by_video(mapping: dict[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    """Convert what a mapping holds for each video; an error says for which video it is."""
    result = {}
    key = ""
    try:
        for key, value in mapping.items():
            result[key] = convert(value)
    except BadContent as error:
        raise type(error)(f'for the video "{short(key)}" {error}') from error
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise BadContent(
            f'for the video "{short(key)}" it holds what is no array of numbers '
            f"({short(error, 120)})"
        ) from error
    return result


def checked_names(names: list[str]) -> list[str]:
    """Return video ids, and insist that each stands there once and can be written.

    Raises:
        BadContent: an id is enormous, or no text that a file can hold, or stands there twice.
    """
    for name in names:
        if len(name) > _LONGEST_NAME or not is_writable(name):
            raise BadContent(
                f'it has the video id "{short(name)}", which cannot be used: '
                f"text of at most {_LONGEST_NAME} characters was expected"
            )
    return unique(names)


def unique(names: list[str]) -> list[str]:
    """Return the names, and insist that each stands there once."""
    if len(set(names)) < len(names):
        seen: set[str] = set()
        # None of `add` goes on to the next name.
        twice = next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]
        raise BadContent(f'it names the video "{short(twice)}" twice')
    return names


def _array_or_none(array: np.ndarray) -> np.ndarray | None:
    """Return one video's features, or None where they are marked as missing."""
    if array.dtype.kind not in "fiub":
        raise BadContent(f"it holds {array.dtype} where features were expected")
    if array.size == 0:
        # The published system counts an expert with no tokens as there; so does the model's mask.
        return array if array.ndim == 2 and array.shape[0] == 0 else None
    # One look at the first value spares reading every array twice.
    if array.dtype.kind == "f" and np.isnan(array.flat[0]) and np.isnan(array).all():
        return None
    if array.ndim == 0:
        raise BadContent("it holds a single number where features were expected")
    if array.ndim > 2 and 1 in array.shape:
        # (T, 1, D) and (1, T, D); (T, D, 1, 1) of pooled images.
        squeezed = array.squeeze()
        return squeezed if squeezed.ndim else squeezed.reshape(1)
    return array


def array_or_none(value: Any) -> np.ndarray | None:
    """Return one video's features, None where it is marked as missing."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    return _array_or_none(_numbers(value))


def captions_of(value: Any) -> list[np.ndarray]:
    """Return one video's captions; an array is one caption, or several if it has 3 axes."""
    if isinstance(value, np.ndarray):
        value = list(value) if value.ndim == 3 else [value]
    if not isinstance(value, list):
        raise BadContent(f"it holds {_kind_of(value)}, not a list of captions")
    return [_numbers(caption) for caption in value]


def check_total(values: int, file_size: int) -> None:
    """Insist that all arrays of a file are together not much larger than the file.

    A pickle can name one array a million times; written out for each video it would fill a disk.
    """
    if values > _FREE_VALUES + _VALUES_PER_BYTE * file_size:
        raise BadContent("it repeats the same arrays until they outgrow the file many times")


def _numbers(value: Any) -> np.ndarray:
    """Return an array, or a list (of lists) of numbers as one."""
    if isinstance(value, list):
        rows = value if value and all(isinstance(row, list) for row in value) else [value]
        if not all(isinstance(item, int | float) for row in rows for item in row):
            raise BadContent("it holds a list that is not of numbers")
        return np.asarray(value, dtype=np.float32)
    is_array = isinstance(value, np.ndarray)
    if not is_array or value.dtype.kind not in "fiub" or (value.ndim == 0 and value == value):
        advice = ": write the array itself under the video's id"
        raise BadContent(
            f"it holds {_kind_of(value)} where features were expected"
            f"{advice if isinstance(value, dict) else ''}"
        )
    return value


def _kind_of(value: Any) -> str:
    """Tell what stands in the place of an array."""
    if isinstance(value, dict):
        held = ", ".join(f'"{short(key, 30)}"' for key in list(value)[:3]) or "nothing"
        return f"a dictionary or group (of {held})"
    return f"{value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
