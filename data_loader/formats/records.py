"""Tables of records: CSV, TSV and JSON lines, with or without a line of column names.

Nothing is held: a table gives its records one after another, each time from the start.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from utils.errors import BadContent, short

TABLES = (".csv", ".tsv", ".jsonl")
# Under these names, written in whatever way (`videoID`, `video_id`), files keep ids of videos.
ID_FIELDS = (
    *("videoid", "video", "vid", "clipid", "clip", "imageid", "youtubeid", "ytid"),
    *("videoname", "clipname", "vidname"),
)
# Of these one is taken only where there is none of the first.
VAGUE_ID_FIELDS = ("id", "key", "name", "file", "filename", "filepath", "path", "image", "url")

_LOOKED_AT = 1000
_LONGEST_FIELD = 16 << 20
# Lines of one row: a text in quotes may go over several.
_MOST_LINES = 100


def plain(name: str) -> str:
    """Return the name of a field without what its spelling varies in: case, `_`, `-`, spaces."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


@dataclass(frozen=True)
class Table:
    """A table in a file.

    Attributes:
        path: the file.
        names: of its columns; "1", "2", ... where no line names them.
        delimiter: between the columns; empty for JSON lines.
        has_names: whether its first line names them.
    """

    path: Path
    names: list[str]
    delimiter: str = ""
    has_names: bool = True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the records, column -> value.

        Raises:
            BadContent: a line is no record.
        """
        return self._objects() if not self.delimiter else self._rows()

    def _objects(self) -> Iterator[dict[str, Any]]:
        with open_text(self.path) as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise BadContent(f"its line {number} is no JSON ({short(error)})") from error
                if not isinstance(record, dict):
                    raise BadContent(f"its line {number} is no record but {short(line.strip())}")
                yield record

    def _rows(self) -> Iterator[dict[str, Any]]:
        with open_text(self.path) as handle:
            rows = _rows(handle, self.delimiter)
            if self.has_names:
                next(rows, None)
            for number, row in rows:
                if len(row) > len(self.names):
                    raise BadContent(
                        f"its line {number} has {len(row)} columns, the first {len(self.names)}"
                        " (a text with the separator in it must stand in quotes)"
                    )
                yield dict(zip(self.names, row, strict=False))


def open_table(
    path: Path, known_names: Iterable[str], is_id: Callable[[str], bool] | None = None
) -> Table:
    """Look at the first lines of a table.

    Args:
        path: a file with one of the endings `TABLES`.
        known_names: names of columns; a first line with one of them names the columns.
        is_id: tells ids of videos; where a later line has one and the first line has none, the
            first names the columns too.

    Raises:
        BadContent: it holds no record.
    """
    if path.suffix == ".jsonl":
        table = Table(path, [])
        names = dict.fromkeys(key for record in islice(table, _LOOKED_AT) for key in record)
        if not names:
            raise BadContent("it is empty")
        return Table(path, list(names))
    with open_text(path) as handle:
        delimiter = _delimiter(path, list(islice(handle, 50)))
        handle.seek(0)
        rows = [row for _, row in islice(_rows(handle, delimiter), _LOOKED_AT)]
    if not rows:
        raise BadContent("it is empty")
    known, first = set(map(plain, known_names)), [cell.strip() for cell in rows[0]]
    has_names = any(plain(cell) in known for cell in first)
    if not has_names and is_id and not any(map(is_id, first)):
        has_names = any(is_id(cell) for row in rows[1:] for cell in row)
    if has_names and len(set(first)) == len(first):
        return Table(path, first, delimiter)
    width = max(map(len, rows))
    return Table(path, [str(number) for number in range(1, width + 1)], delimiter, False)


def ids_of_table(path: Path) -> list[str]:
    """Return the ids of a table that is a list of videos.

    Raises:
        BadContent: no column is known to hold ids, or a record lacks its own.
    """
    table = open_table(path, ID_FIELDS)
    if len(table.names) == 1:
        name = table.names[0]
    else:
        found = [name for name in table.names if plain(name) in ID_FIELDS]
        if len(found) != 1:
            several = f"{len(found)} are" if found else "none is"
            shown = f" ({', '.join(map(short, table.names[:8]))})" if table.has_names else ""
            raise BadContent(
                f"it has {len(table.names)} columns{shown}, of which {several} known to hold ids "
                'of videos: call one of them "video_id" in the first line'
            )
        name = found[0]
    return [_id(record.get(name)) for record in table]


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadContent(f"it holds {short(json.dumps(value))}, which is no video id")
    return str(value).strip()


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text: UTF-8, or what the byte-order mark in front of it says.

    Raises:
        BadContent: it is neither (raised while it is read).
    """
    with path.open("rb") as raw:
        encoding = json.detect_encoding(raw.read(4))
    try:
        with path.open(encoding=encoding, newline="") as handle:
            yield handle
    except UnicodeDecodeError as error:
        raise BadContent(
            f"it is no text in UTF-8 ({short(error.reason)}): convert it, as "
            "`iconv -f latin1 -t utf-8` does"
        ) from error


def _delimiter(path: Path, lines: list[str]) -> str:
    if path.suffix == ".tsv" or (lines and all("\t" in line for line in lines if line.strip())):
        return "\t"
    first = lines[0] if lines else ""
    return max(",;|", key=first.count)


def _rows(handle: IO[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Give the rows that are not empty, with the number of their line."""
    csv.field_size_limit(_LONGEST_FIELD)
    # Between tabs a quotation mark is a letter of a caption.
    if delimiter == "\t":
        reader = csv.reader(handle, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(handle, delimiter=delimiter)
    before = 0
    try:
        for row in reader:
            if reader.line_num - before > _MOST_LINES:
                raise BadContent(
                    f"its lines {before + 1} to {reader.line_num} are one text in quotes: is a "
                    "quotation mark missing there?"
                )
            before = reader.line_num
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise BadContent(f"its line {reader.line_num} is damaged ({short(error)})") from error
