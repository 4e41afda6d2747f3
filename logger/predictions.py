"""Predictions for a challenge as CSV: a row for each query, the places of its ten best videos."""

import re
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import replacing

VIDEOS_PER_QUERY = 10

_INTEGER = re.compile(r"[ \t]*(-?[0-9]{1,18})[ \t]*")
_CHARACTERS_PER_CELL = 16
_SHOWN_CHARACTERS = 20


def as_csv(predictions: np.ndarray) -> str:
    """Spell predictions (queries, 10) as integers with commas between them, one query a row."""
    return "".join(",".join(map(str, row)) + "\n" for row in predictions.tolist())


def write_predictions(path: Path, predictions: np.ndarray) -> None:
    """Write predictions (queries, 10) as a CSV file."""
    with replacing(path, "w", encoding="ascii", newline="\n") as handle:
        handle.write(as_csv(predictions))


def largest_size(queries: int) -> int:
    """Return the bytes that a file of predictions takes at most."""
    return (queries + 1) * VIDEOS_PER_QUERY * _CHARACTERS_PER_CELL


def parse_predictions(content: bytes, videos: int, queries: int, what: str) -> np.ndarray:
    """Read predictions that anybody may have written.

    Args:
        content: of the CSV file.
        videos: that a place may name, counted from 0.
        queries: rows to expect.
        what: the file, for messages.

    Returns:
        (queries, 10) int64.

    Raises:
        UserError: it holds anything but rows of ten different places; says what, and where.
    """
    if len(content) > largest_size(queries):
        raise UserError(
            f"{what} has {len(content)} bytes, which is too much for {queries} rows of "
            f"{VIDEOS_PER_QUERY} integers."
        )
    try:
        lines = content.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is no CSV file of integers: it is not plain ASCII.") from error
    if not lines[-1]:
        lines.pop()
    if len(lines) != queries:
        raise UserError(
            f"{what} has {len(lines)} rows, {queries} were expected: one for each caption that "
            "exists."
        )
    rows = [
        _parse_row(line.removesuffix("\r"), videos, f"{what}, row {number},")
        for number, line in enumerate(lines, start=1)
    ]
    return np.array(rows, dtype=np.int64).reshape(queries, VIDEOS_PER_QUERY)


def _parse_row(line: str, videos: int, where: str) -> list[int]:
    cells = line.split(",")
    if len(cells) != VIDEOS_PER_QUERY:
        raise UserError(f"{where} has {len(cells)} columns, {VIDEOS_PER_QUERY} were expected.")
    row = []
    for cell in cells:
        number = _INTEGER.fullmatch(cell)
        if number is None:
            raise UserError(f"{where} holds {cell[:_SHOWN_CHARACTERS]!r}, which is no integer.")
        place = int(number[1])
        if not 0 <= place < videos:
            raise UserError(
                f"{where} names the video {place}; those from 0 to {videos - 1} are there."
            )
        if place in row:
            raise UserError(f"{where} names the video {place} twice.")
        row.append(place)
    return row
