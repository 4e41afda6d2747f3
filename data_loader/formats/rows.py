"""Tables with a row for each video, or for each of its frames: text (CSV, w2vv) and parquet.

Rows of one id, wherever they stand, are its tokens in their order; where they stand together, a
table is read piece by piece. A text has its id first, then the numbers, apart by commas, tabs,
semicolons or spaces, with or without a line of names; parquet has a column of ids and one of lists,
or one of numbers for each feature.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.formats.tables import FEATURE_NAMES, ID_NAMES
from utils.errors import BadContent, short

# What a column beside the features may say of a row.
_OF_THE_ROW = ("frame", "frame_id", "index", "time", "timestamp", "start", "end", "segment")
_LONGEST_FIELD = 1 << 24
_ROWS_AT_ONCE = 1024
_PIECE_BYTES = 16 << 20

Row = tuple[str, Any]
"""The id of a row and its features, or None for them where only ids are asked for."""


def read_rows(path: Path) -> dict[str, np.ndarray]:
    """Return the features of a table: (D,), or (T, D) where an id has several rows.

    Raises:
        BadContent: it has no numbers, or rows of several lengths.
    """
    with _rows_of(path) as rows:
        return _by_id(rows)


def pieces_of_rows(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """Give what `read_rows` returns, a few megabytes at a time if an id's rows stand together.

    Raises:
        BadContent: as `read_rows`.
    """
    with _rows_of(path, only_ids=True) as rows:
        are_together = _are_together(key for key, _ in rows)
    with _rows_of(path) as rows:
        yield from _pieces(rows) if are_together else [_by_id(rows)]


def _are_together(ids: Iterable[str]) -> bool:
    runs = [key for key, _ in groupby(ids)]
    return len(set(runs)) == len(runs)


def _pieces(rows: Iterable[Row]) -> Iterator[dict[str, np.ndarray]]:
    piece: dict[str, np.ndarray] = {}
    held = 0
    for key, group in groupby(rows, itemgetter(0)):
        piece |= _by_id(group)
        held += piece[key].nbytes
        if held > _PIECE_BYTES:
            yield piece
            piece, held = {}, 0
    yield piece


@contextmanager
def _rows_of(path: Path, only_ids: bool = False) -> Iterator[Iterator[Row]]:
    if path.suffix == ".parquet":
        with _opened_parquet(path) as (arrow, file):
            yield _parquet_rows(arrow, file, only_ids)
        return
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as handle:
        try:
            yield _text_rows(_fields(handle), _nothing if only_ids else _numbers)
        except csv.Error as error:
            raise BadContent(f"it is no table of text ({short(error, 120)})") from error


def _nothing(row: list[str], columns: list[int]) -> None:
    """Stand for the numbers of a row where only its id is asked for."""


def _fields(lines: Iterable[str]) -> Iterator[list[str]]:
    """Give the fields of all lines, apart by what the first line holds."""
    lines = iter(lines)
    first = next(lines, "")
    comma = next((mark for mark in ("\t", ",", ";") if mark in first), None)

    def all_lines() -> Iterator[str]:
        yield first
        yield from lines

    rows = (line.split() for line in all_lines())
    for row in rows if comma is None else csv.reader(all_lines(), delimiter=comma):
        if row:
            yield row


def _text_rows(
    rows: Iterator[list[str]], numbers: Callable[[list[str], list[int]], Any]
) -> Iterator[Row]:
    first = next(rows, [])
    if len(first) < 2:
        raise BadContent("it has no lines of an id and its numbers")
    id_column, columns = 0, list(range(1, len(first)))
    if any(_number(field) is None for field in first[1:]):  # names of the columns
        names = [name.strip().lower() for name in first]
        # pandas writes the number of a row in front, without a name.
        skipped = [at for at, name in enumerate(names) if name in _OF_THE_ROW]
        known = [at for at, name in enumerate(names) if name in ID_NAMES]
        if known:
            id_column = known[0]
            skipped += [at for at, name in enumerate(names) if not name]
        columns = [at for at in range(len(first)) if at != id_column and at not in skipped]
        if not columns:
            raise BadContent(f"its columns ({short(', '.join(first))}) hold no features")
    else:
        yield first[id_column], numbers(first, columns)
    for row in rows:
        if len(row) != len(first):
            raise BadContent(
                f'it has {len(row)} fields for "{short(row[0])}" where {len(first)} were expected'
            )
        yield row[id_column].strip(), numbers(row, columns)


def _number(field: str) -> Any:
    """Return a number or list of numbers, None for other text."""
    try:
        return json.loads(field) if field[:1] == "[" else float(field)
    except ValueError:
        return None


def _numbers(row: list[str], columns: list[int]) -> np.ndarray:
    values = [_number(row[at]) for at in columns]
    if any(value is None for value in values):
        wrong = next(row[at] for at in columns if _number(row[at]) is None)
        raise BadContent(f'it holds "{short(wrong)}" where a number was expected')
    only = values[0]
    return np.asarray(only if len(values) == 1 and type(only) is list else values, dtype="<f4")


@contextmanager
def _opened_parquet(path: Path) -> Iterator[tuple[Any, Any]]:
    """Give pyarrow and an open file.

    Raises:
        BadContent: pyarrow is not installed, or the file is damaged.
    """
    try:
        import pyarrow as arrow  # few data sets have such files
        from pyarrow import parquet
    except ImportError as error:
        raise BadContent(
            "such files need pyarrow: run `pip install -r requirements/import-requirements.txt`"
        ) from error
    try:
        arrow.set_memory_pool(arrow.system_memory_pool())  # whose memory the limits count
        with parquet.ParquetFile(path, memory_map=True) as file:
            yield arrow, file
    except arrow.ArrowException as error:
        raise BadContent(f"it is damaged ({short(error, 120)})") from error


def parquet_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a parquet file: its columns of text, numbers, and lists of texts.

    Raises:
        BadContent: pyarrow is not installed, the file is damaged, or it has no such column.
    """
    with _opened_parquet(path) as (arrow, file):
        names = [field.name for field in file.schema_arrow if _is_plain(arrow, field.type)]
        if not names:
            raise BadContent(f"no column of it holds text ({short(', '.join(file.schema.names))})")
        batches = file.iter_batches(_ROWS_AT_ONCE, columns=names, use_threads=False)
        return [record for batch in batches for record in batch.to_pylist()]


def _is_plain(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    if _is_list(arrow, kind):
        kind = kind.value_type
    numbers = types.is_integer(kind) or types.is_floating(kind)
    return types.is_string(kind) or _is_large(arrow, kind) or numbers


def _parquet_rows(arrow: Any, file: Any, only_ids: bool) -> Iterator[Row]:
    schema = file.schema_arrow
    kinds = {field.name: field.type for field in schema}
    texts = [
        n for n, kind in kinds.items() if arrow.types.is_string(kind) or _is_large(arrow, kind)
    ]
    ids = [name for name in kinds if name.lower() in ID_NAMES] or texts
    if len(ids) != 1:
        raise BadContent(f"one column of ids was expected (it has: {short(', '.join(kinds))})")
    lists = [name for name, kind in kinds.items() if _is_list(arrow, kind)]
    named = [name for name in lists if name.lower() in FEATURE_NAMES]
    lists = named if len(named) == 1 else lists
    numbers = [
        name
        for name, kind in kinds.items()
        if (arrow.types.is_floating(kind) or arrow.types.is_integer(kind))
        and name.lower() not in (*_OF_THE_ROW, *ID_NAMES)
    ]
    if len(lists) > 1 or not (lists or numbers):
        raise BadContent(f"one column of features was expected (it has: {short(', '.join(kinds))})")
    chosen = [] if only_ids else lists or numbers
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[*ids, *chosen], use_threads=False):
        keys = batch.column(ids[0]).to_pylist()
        rows: Iterable[Any]
        if only_ids:
            rows = [None] * len(keys)
        elif lists:
            rows = (_list_row(item) for item in batch.column(chosen[0]))
        else:
            columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in chosen]
            rows = np.stack(columns, axis=1)
        for key, row in zip(keys, rows, strict=True):
            if not isinstance(key, str | int):
                raise BadContent("it has a row without an id")
            yield str(key), row if only_ids else np.asarray(row)


def _is_large(arrow: Any, kind: Any) -> bool:
    return arrow.types.is_large_string(kind) or arrow.types.is_dictionary(kind)


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _list_row(item: Any) -> np.ndarray:
    """Return a list of numbers, or a list of them, as an array; what is missing as NaN."""
    if item.values is None:
        return np.array([np.nan], dtype="<f4")
    values, rows = item.values, len(item.values)
    if not hasattr(values, "flatten"):
        return values.to_numpy(zero_copy_only=False)
    flat = values.flatten().to_numpy(zero_copy_only=False)
    if rows and len(flat) % rows:
        raise BadContent("a video has vectors of several lengths")
    return flat.reshape(rows, -1) if rows else np.empty((0,), dtype="<f4")


def _by_id(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Put the rows of each id under one another, if any has several."""
    found: dict[str, list[np.ndarray]] = {}
    for key, row in rows:
        found.setdefault(key, []).append(row)
    if all(len(pieces) == 1 for pieces in found.values()):
        return {key: pieces[0] for key, pieces in found.items()}
    for key, pieces in found.items():
        if len({piece.shape for piece in pieces}) > 1 or pieces[0].ndim != 1:
            raise BadContent(f'its rows for "{short(key)}" are of several shapes')
    return {key: np.stack(pieces) for key, pieces in found.items()}
