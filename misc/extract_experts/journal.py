"""What has been seen so far, video by video, in files that only grow.

A record is a line of JSON and the bytes of its arrays. It is on the disk before the next one is
begun: a process that is killed leaves at most one half of a record at the end, which the next one
cuts off. Each process (shard) writes into a file of its own.
"""

import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from misc.extract_experts.expert import Words
from utils.errors import UserError
from utils.files import PATH_ERRORS, reason

_ENDING = ".journal"


@dataclass(frozen=True)
class Place:
    """Where an expert's features of a video lie.

    Attributes:
        digest: of what made them.
        journal: the file.
        start: of the features, in bytes.
        size: of a vector.
        rows: number of vectors of each item.
        words: of each item.
    """

    digest: str
    journal: Path
    start: int
    size: int
    rows: tuple[int, ...]
    words: tuple[tuple[Words, ...], ...]


@dataclass
class Done:
    """What is known of a video.

    Attributes:
        file: path of the video as seen from the data set's folder.
        state: what changes when the file does.
        seconds: its length.
        items: start and end of each item.
        experts: by name.
        broken: why it cannot be used, empty where it can.
        written: when, in nanoseconds; the later one of two records counts.
    """

    file: str
    state: list[int]
    seconds: float = 0.0
    items: list[tuple[float, float]] = field(default_factory=list)
    experts: dict[str, Place] = field(default_factory=dict)
    broken: str = ""
    written: int = 0


@dataclass(frozen=True)
class Features:
    """What an expert has seen in a video, for each of its items.

    Attributes:
        digest: of what made them.
        vectors: (m, D) each; m is 0 where there is nothing.
        words: of each item.
    """

    digest: str
    vectors: Sequence[np.ndarray]
    words: Sequence[Sequence[Words]]


def read_journals(folder: Path) -> dict[str, Done]:
    """Return what the journals of a folder say, by id of the video; later records count."""
    done: dict[str, Done] = {}
    for path in sorted(folder.glob(f"*{_ENDING}")):
        for head, start, _ in _records(path):
            _take(done, head, start, path)
    return done


def read_rows(place: Place) -> Iterator[np.ndarray]:
    """Give the vectors of each item, (rows, size)."""
    with place.journal.open("rb") as handle:
        handle.seek(place.start)
        for rows in place.rows:
            values = np.fromfile(handle, "<f4", rows * place.size)
            yield values.reshape(rows, place.size)


class Journal:
    """The journal of this process, to be written to.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}{_ENDING}"
        try:
            self._handle = self.path.open("ab")
            whole = max((end for _, _, end in _records(self.path)), default=0)
            self._handle.truncate(whole)
        except PATH_ERRORS as error:
            raise UserError(f"Cannot write {self.path}: {reason(error)}.") from error

    def add(self, name: str, done: Done, features: Mapping[str, Features]) -> None:
        """Write what is new of a video, and wait until the disk has it."""
        arrays = [
            np.ascontiguousarray(rows, "<f4") for one in features.values() for rows in one.vectors
        ]
        check = 0
        for array in arrays:
            check = zlib.crc32(array.data.cast("B") if array.size else b"", check)
        head = {
            "id": name,
            "file": done.file,
            "state": done.state,
            "seconds": done.seconds,
            "items": done.items,
            "broken": done.broken,
            "written": time.time_ns(),
            "experts": {expert: _as_json(one) for expert, one in features.items()},
            "bytes": sum(array.nbytes for array in arrays),
            "check": check,
        }
        line = json.dumps(head).encode() + b"\n"
        try:
            self._handle.write(line)
            for array in arrays:
                self._handle.write(array.data)
            self._handle.flush()
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise UserError(f"Cannot write {self.path}: {reason(error)}.") from error

    def close(self) -> None:
        self._handle.close()


def _as_json(features: Features) -> dict[str, Any]:
    return {
        "digest": features.digest,
        "size": max((rows.shape[1] for rows in features.vectors), default=0),
        "rows": [len(rows) for rows in features.vectors],
        "words": [[(w.text, w.start, w.end) for w in words] for words in features.words],
    }


def _records(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Give each whole record: its head, where its arrays start, and where it ends."""
    with path.open("rb") as handle:
        length = os.fstat(handle.fileno()).st_size
        while line := handle.readline():
            start = handle.tell()
            try:
                head = json.loads(line)
                end = start + head["bytes"]
            except (ValueError, KeyError, TypeError):
                return
            if not line.endswith(b"\n") or end > length:
                return
            # Only the last one can be half on the disk.
            if end == length and zlib.crc32(handle.read(head["bytes"])) != head["check"]:
                return
            yield head, start, end
            handle.seek(end)


def _take(done: dict[str, Done], head: dict[str, Any], start: int, journal: Path) -> None:
    """Add a record to what is known; of a file that has changed nothing older counts."""
    items = [(first, last) for first, last in head["items"]]
    new = Done(head["file"], head["state"], head["seconds"], items, broken=head["broken"])
    new.written = head["written"]
    for name, one in head["experts"].items():
        words = tuple(tuple(Words(*word) for word in item) for item in one["words"])
        new.experts[name] = Place(
            one["digest"], journal, start, one["size"], tuple(one["rows"]), words
        )
        start += 4 * one["size"] * sum(one["rows"])
    old = done.get(head["id"])
    if old is not None:
        old, new = sorted((old, new), key=lambda record: record.written)
        if old.state == new.state and old.items == new.items:
            new.experts = {**old.experts, **new.experts}
    done[head["id"]] = new
