"""The one door for files of features, text features, captions and lists.

Everything behind it treats a file as written by a stranger: what comes out is arrays, numbers,
strings and plain containers, or a UserError that names the file and what is wrong with it. The
format follows from the suffix: `.pickle`/`.pkl`, `.npz`, `.json`, `.txt`.
"""

import contextlib
import itertools
import json
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.content import BadContent, Truncated, short
from data_loader.errors import UserError
from data_loader.files import reason
from data_loader.npz import read_npz
from data_loader.pickle_values import read_pickle

# What the parsers raise on broken input; RuntimeError covers zipfile's unsupported methods and
# exhausted recursion.
_PARSER_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_FREE_VALUES = 16 << 20
_VALUES_PER_BYTE = 4
PICKLES = (".pickle", ".pkl")
FEATURE_SUFFIXES = (*PICKLES, ".npz", ".json")

FeatureTable = dict[str, np.ndarray | None]
"""Video id -> array as it stands in the file, or None where the file marks it as missing."""

TextTable = dict[str, list[np.ndarray]]
"""Video id -> one array for each caption, as they stand in the file."""


def read_feature_file(path: str | Path) -> FeatureTable:
    """Read one expert's features: video id -> array, or None for a missing expert.

    A missing expert is NaN, null, or an array of nothing but NaN. An array of shape (0, D) is an
    expert that is there but has no tokens. An `.npz` holds `ids` and `feats` and, for a variable
    number of tokens, `offsets` (videos + 1) into the rows of `feats`; a video without rows there
    is missing.

    Raises:
        UserError: the file cannot be read, is damaged, or holds anything but features.
    """
    with _errors_of(path, "a feature file") as path:
        if path.suffix == ".npz":
            return _table_of_npz(read_npz(path, {"ids": True, "feats": True, "offsets": False}))
        budget = _Budget(path)
        return {key: budget.array_or_none(value) for key, value in _mapping(path).items()}


def read_text_feature_file(path: str | Path) -> TextTable:
    """Read text features: video id -> list of (words, size) arrays, one for each caption.

    An `.npz` holds `ids`, `feats` (all words), `offsets` (captions + 1, into the words) and
    `caption_offsets` (videos + 1, into the captions).

    Raises:
        UserError: the file cannot be read, is damaged, or holds anything but text features.
    """
    with _errors_of(path, "a file of text features") as path:
        if path.suffix == ".npz":
            names = dict.fromkeys(("ids", "feats", "offsets", "caption_offsets"), True)
            arrays = read_npz(path, names)
            words = _pieces(arrays["feats"], arrays["offsets"])
            videos = _pieces(np.arange(len(words)), arrays["caption_offsets"])
            ids = _ids(arrays["ids"], len(videos))
            return {key: [words[at] for at in rows] for key, rows in zip(ids, videos, strict=True)}
        budget = _Budget(path)
        return {key: budget.captions(value) for key, value in _mapping(path).items()}


def read_plain_mapping(path: str | Path, what: str) -> dict[str, Any]:
    """Read captions, caption masks or caption indices: video id -> plain value."""
    with _errors_of(path, f"a file of {what}") as path:
        return _mapping(path)


def read_id_list(path: str | Path, key: str | None = None) -> list[str]:
    """Read video ids: one a line of a text file, or the list under `key` of a JSON file."""
    with _errors_of(path, "a list of video ids") as path:
        if key is None and path.suffix != ".json":
            lines = path.read_text(encoding="utf-8").splitlines()
            ids: Any = [line.strip() for line in lines if line.strip()]
        else:
            ids = json.loads(path.read_text(encoding="utf-8"))
            if key is not None:
                if not isinstance(ids, dict) or key not in ids:
                    held = ", ".join(map(short, list(ids)[:8])) if isinstance(ids, dict) else ""
                    raise BadContent(f'it has no list "{key}" (it holds: {held or "no names"})')
                ids = ids[key]
        if not isinstance(ids, list) or not all(isinstance(item, str | int) for item in ids):
            raise BadContent("it is no list of video ids")
        return _unique([str(item) for item in ids])


def truncated(path: Path, size: int) -> str:
    """Say that a file seems incomplete, for error messages."""
    return f"it looks truncated ({size} bytes); fetch or make it again"


@contextlib.contextmanager
def _errors_of(path: str | Path, what: str) -> Iterator[Path]:
    """Turn whatever a parser raises into one sentence about the file."""
    path = Path(path)
    try:
        yield path
    except OSError as error:
        raise UserError(f"Cannot read {path}: {reason(error)}.") from error
    except Truncated as error:
        raise UserError(
            f"Cannot read {path} as {what}: {error}; {truncated(path, _size_of(path))}."
        ) from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"Cannot read {path} as {what}: {short(error, 200)}; {truncated(path, _size_of(path))}."
        ) from error
    except BadContent as error:
        raise UserError(f"Cannot read {path} as {what}: {error}.") from error
    except _PARSER_ERRORS as error:
        raise UserError(
            f"Cannot read {path} as {what}: it is damaged or of another format "
            f"({type(error).__name__}: {short(error, 120)})."
        ) from error


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _mapping(path: Path) -> dict[str, Any]:
    """Read a pickle or JSON file that maps video ids to something."""
    if path.suffix in PICKLES:
        value = _read_mapped(path)
    elif path.suffix == ".json":
        value = json.loads(path.read_text(encoding="utf-8"))
    else:
        raise BadContent(
            f'files ending in "{path.suffix}" are not known; use one of '
            f"{', '.join(FEATURE_SUFFIXES)}"
        )
    if not isinstance(value, dict):
        raise BadContent(f"it holds a {type(value).__name__}, not a mapping from video ids")
    result = {str(key): item for key, item in value.items()}
    if len(result) < len(value):
        raise BadContent("it names a video twice, as text and as a number")
    return result


def _read_mapped(path: Path) -> Any:
    with path.open("rb") as handle:
        size = _size_of(path)
        if size == 0:
            raise Truncated("it is empty")
        # The arrays are views into the map, which lives as long as they do.
        return read_pickle(memoryview(mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ)))


def _table_of_npz(arrays: dict[str, np.ndarray]) -> FeatureTable:
    feats = arrays["feats"]
    if feats.ndim == 0:
        raise BadContent('its array "feats" has no rows')
    offsets = arrays.get("offsets")
    rows = list(feats) if offsets is None else _pieces(feats, offsets)
    ids = _ids(arrays["ids"], len(rows))
    return {
        key: _array_or_none(row) if row.size else None for key, row in zip(ids, rows, strict=True)
    }


def _pieces(values: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """Cut `values` (rows, ...) at `offsets` (pieces + 1)."""
    if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
        raise BadContent("its offsets are no list of integers")
    cuts = offsets.astype(np.int64)
    if cuts[0] != 0 or cuts[-1] != len(values) or (np.diff(cuts) < 0).any():
        raise BadContent(f"its offsets do not run from 0 to the {len(values)} rows it has")
    return [values[start:stop] for start, stop in itertools.pairwise(cuts)]


def _ids(ids: np.ndarray, count: int) -> list[str]:
    if ids.ndim != 1 or ids.dtype.kind not in "USiu":
        raise BadContent('its array "ids" is no list of names')
    if len(ids) != count:
        raise BadContent(f"it has {len(ids)} ids for {count} entries")
    names = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in ids]
    return _unique(names)


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
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
    return array


class _Budget:
    """Turns values of a mapping into arrays, together not much larger than their file.

    A pickle can name one array a million times; written out for each video it would fill a disk.
    """

    def __init__(self, path: Path) -> None:
        self.left = _FREE_VALUES + _VALUES_PER_BYTE * _size_of(path)

    def array_or_none(self, value: Any) -> np.ndarray | None:
        if value is None or (isinstance(value, float) and value != value):
            return None
        return _array_or_none(self.numbers(value))

    def captions(self, value: Any) -> list[np.ndarray]:
        """Return one video's captions; an array is one caption, or several if it has 3 axes."""
        if isinstance(value, np.ndarray):
            value = list(value) if value.ndim == 3 else [value]
        if not isinstance(value, list):
            raise BadContent(f"it holds a {type(value).__name__}, not a list of captions")
        return [self.numbers(caption) for caption in value]

    def numbers(self, value: Any) -> np.ndarray:
        if isinstance(value, list):
            rows = value if value and all(isinstance(row, list) for row in value) else [value]
            self._take(sum(map(len, rows)))
            if not all(isinstance(item, int | float) for row in rows for item in row):
                raise BadContent("it holds a list of something else than numbers")
            return np.asarray(value, dtype=np.float32)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            kind = value.dtype if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            raise BadContent(f"it holds {kind} where features were expected")
        self._take(value.size)
        return value

    def _take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise BadContent("it repeats the same arrays until they outgrow the file many times")
