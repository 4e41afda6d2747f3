"""The one door for files of features, text features, captions and lists.

Everything behind it treats a file as written by a stranger: what comes out is arrays, numbers,
strings and plain containers, or a UserError that names the file and what is wrong with it. The
format follows from the suffix and the layout, see `layouts`.
"""

import contextlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_loader.formats.apart import TOO_MUCH_MEMORY, behind_wall
from data_loader.formats.layouts import (
    pieces_of,
    read_layout,
    read_mapping,
    text_of_file,
)
from data_loader.formats.npy import read_npy, read_npz
from data_loader.formats.records import TABLES, ids_of_table
from data_loader.formats.tables import (
    FeatureTable,
    TextTable,
    array_or_none,
    by_video,
    captions_of,
    check_total,
    checked_names,
    grouped_array,
    grouped_captions,
    grouped_features,
    grouped_pieces,
)
from utils.errors import BadContent, Truncated, UserError, short
from utils.files import files_below, reason

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
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# Arrays that belong together by place.
_TEXT_ARRAYS = dict.fromkeys(("ids", "feats", "offsets", "caption_offsets"), True)


@behind_wall
def read_feature_file(path: str | Path) -> FeatureTable:
    """Read one expert's features: video id -> array, or None for a missing expert.

    A missing expert is NaN, null, or an array of nothing but NaN. An array of shape (0, D) is an
    expert that is there but has no tokens. An `.npz`, and any file that names them, holds `ids` and
    `feats` and, for a variable number of tokens, `offsets` (videos + 1) into the rows of `feats`; a
    video without rows there is missing.

    Raises:
        UserError: the file cannot be read, is damaged, or holds anything but features.
    """
    with errors_of(path, "a feature file") as path:
        table = _features(read_layout(path))
        check_total(sum(a.size for a in table.values() if a is not None), _size_of(path))
        return table


@behind_wall
def read_text_feature_file(path: str | Path) -> TextTable:
    """Read text features: video id -> list of (words, size) arrays, one for each caption.

    An `.npz`, and any file that names them, holds `ids`, `feats` (all words), `offsets` (captions
    + 1, into the words) and `caption_offsets` (videos + 1, into the captions).

    Raises:
        UserError: the file cannot be read, is damaged, or holds anything but text features.
    """
    with errors_of(path, "a file of text features") as path:
        if path.suffix == ".npz":
            return grouped_captions(read_npz(path, _TEXT_ARRAYS))
        mapping = _checked(read_mapping(path))
        if {"ids", "feats"} <= mapping.keys():
            missing = [name for name in _TEXT_ARRAYS if name not in mapping]
            if missing:
                raise BadContent(f'it lacks the array "{missing[0]}"')
            return grouped_captions({n: grouped_array(n, mapping[n]) for n in _TEXT_ARRAYS})
        table = by_video(mapping, captions_of)
        check_total(sum(a.size for captions in table.values() for a in captions), _size_of(path))
        return table


@behind_wall
def read_plain_mapping(path: str | Path, what: str) -> dict[str, Any]:
    """Read captions, caption masks or caption indices: video id -> plain value."""
    with errors_of(path, f"a file of {what}") as path:
        return _checked(read_mapping(path))


@behind_wall
def read_id_list(path: str | Path, key: str | None = None) -> list[str]:
    """Read video ids: one a line of a text file, a column of a table (CSV, TSV, JSON lines), or the
    list under `key` of a JSON file.
    """
    with errors_of(path, "a list of video ids") as path:
        if key is None and path.suffix in TABLES:
            ids: Any = ids_of_table(path)
        elif key is None and path.suffix != ".json":
            lines = text_of_file(path).splitlines()
            ids = [line.strip() for line in lines if line.strip()]
        else:
            ids = json.loads(text_of_file(path))
            if key is not None:
                if not isinstance(ids, dict) or key not in ids:
                    held = ", ".join(map(short, list(ids)[:8])) if isinstance(ids, dict) else ""
                    raise BadContent(f'it has no list "{key}" (it holds: {held or "no names"})')
                ids = ids[key]
        if not isinstance(ids, list):
            also = ' (name one of its lists by "key")' if isinstance(ids, dict) else ""
            raise BadContent(f"it is no list of video ids but a {type(ids).__name__}{also}")
        for item in ids:
            if not isinstance(item, str | int) or isinstance(item, bool):
                raise BadContent(f"it holds {short(json.dumps(item))}, which is no video id")
        return checked_names([str(item) for item in ids])


@behind_wall
def read_array(path: str | Path, what: str) -> Any:
    """Read a `.npy`: an array, or a list (or the one value) where it holds objects."""
    with errors_of(path, what) as path:
        return read_npy(path)


def truncated(path: Path, size: int) -> str:
    """Say that a file seems incomplete, for error messages."""
    return f"it looks truncated ({size} bytes); fetch or make it again"


@contextlib.contextmanager
def errors_of(path: str | Path, what: str) -> Iterator[Path]:
    """Turn whatever a parser raises into one sentence about the file, of which `what` is a kind."""
    path = Path(path)
    try:
        # A pipe would be waited for, a device read without end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise BadContent("it is neither a file nor a folder")
        yield path
    except OSError as error:
        # Of a folder it may be one of the files.
        raise UserError(f"Cannot read {error.filename or path}: {reason(error)}.") from error
    except (Truncated, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"Cannot read {path} as {what}: {short(error, 200)}; {truncated(path, _size_of(path))}."
        ) from error
    except BadContent as error:
        raise UserError(f"Cannot read {path} as {what}: {error}.") from error
    except MemoryError as error:
        raise UserError(f"Cannot read {path} as {what}: {TOO_MUCH_MEMORY}.") from error
    except _PARSER_ERRORS as error:
        raise UserError(
            f"Cannot read {path} as {what}: it is damaged or of another format "
            f"({type(error).__name__}: {short(error, 120)})."
        ) from error


def _size_of(path: Path) -> int:
    if path.is_dir():
        return sum(inner.stat().st_size for inner in files_below(path))
    return path.stat().st_size if path.exists() else 0


def feature_tables(path: Path) -> Iterator[FeatureTable]:
    """Give what `read_feature_file` reads piece by piece, where the format lets it.

    It is no wall: whoever calls it does so in a limited process (`apart`).

    Raises:
        UserError: as `read_feature_file`.
    """
    with errors_of(path, "a feature file"):
        pieces = pieces_of(path)
        if pieces is None:
            yield read_feature_file(path)
            return
        for piece in pieces:
            if {"ids", "feats"} <= piece.keys():
                yield from grouped_pieces({n: grouped_array(n, v) for n, v in piece.items()})
            else:
                yield _features(piece)


def _features(found: dict[str, Any]) -> FeatureTable:
    if {"ids", "feats"} <= found.keys():
        return grouped_features({name: grouped_array(name, value) for name, value in found.items()})
    return by_video(_checked(found), array_or_none)


def _checked(mapping: dict[str, Any]) -> dict[str, Any]:
    checked_names(list(mapping))
    return mapping
