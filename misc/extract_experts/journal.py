"""What has been seen so far, video by video, in files that only grow.

A record is a line of JSON and the bytes of its arrays. It is on the disk before the next one is
begun: a process that is killed leaves at most one half of a record at the end, which the next one
cuts off. Each process (shard) writes into a file of its own. Once the files of the data set are
whole, the journals are put together and leave the features to these.
"""

import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from misc.extract_experts.expert import Words
from misc.extract_experts.feature_file import checksum
from utils.errors import UserError
from utils.files import PATH_ERRORS, is_at, reason, replacing

_ENDING, _TRIES = ".journal", 3


@dataclass(frozen=True)
class Place:
    """Where an expert's features of a video lie.

    Attributes:
        digest: of what made them.
        journal: the file; None where the data set's file alone has them.
        start: of the features in it, in bytes.
        size: of a vector.
        rows: number of vectors of each item.
        words: of each item.
        check: checksum of those that the data set's file has.
    """

    digest: str
    journal: Path | None
    start: int
    size: int
    rows: tuple[int, ...]
    words: tuple[tuple[Words, ...], ...]
    check: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether the data set's file alone has them."""
        return self.journal is None


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
    for _ in range(_TRIES):
        done: dict[str, Done] = {}
        try:
            for path in sorted(folder.glob(f"*{_ENDING}")):
                for head, start, _ in _records(path):
                    _take(done, head, start, path)
            return done
        except FileNotFoundError:  # another process has just put them together
            continue
    raise UserError(f"Cannot read {path}: it does not exist.")


def read_rows(place: Place) -> Iterator[np.ndarray]:
    """Give the vectors of each item, (rows, size)."""
    assert place.journal
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
            self._handle = _held(self.path)
            whole = max((end for _, _, end in _records(self.path)), default=0)
            self._handle.truncate(whole)
        except PATH_ERRORS as error:
            raise UserError(f"Cannot write {self.path}: {reason(error)}.") from error

    def add(self, name: str, done: Done, features: Mapping[str, Features]) -> None:
        """Write what is new of a video, and wait until the disk has it."""
        arrays = [
            np.ascontiguousarray(rows, "<f4") for one in features.values() for rows in one.vectors
        ]
        done.written = time.time_ns()
        try:
            self._handle.write(_line(name, done, features, arrays))
            for array in arrays:
                self._handle.write(array.data)
            self._handle.flush()
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise UserError(f"Cannot write {self.path}: {reason(error)}.") from error

    def close(self) -> None:
        self._handle.close()


def let_go(folder: Path, name: str, done: Mapping[str, Done]) -> None:
    """Put all journals together in one that leaves the features to the data set's files.

    A process that is killed meanwhile leaves those that were there, or both. Journals that others
    write to stay.

    Args:
        folder: of the journals.
        name: of the one that holds all then.
        done: all videos; their features are kept (`Place.is_kept`).

    Raises:
        UserError: it cannot be written.
    """
    path = folder / f"{name}{_ENDING}"
    with replacing(path) as handle:
        for video, one in done.items():
            handle.write(_line(video, one, {}, []))
    for other in sorted(folder.glob(f"*{_ENDING}")):
        with suppress(OSError):
            if other != path:
                with other.open("rb") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if all(_is_known(head, done) for head, _, _ in _records(other)):
                        other.unlink()


def _is_known(head: dict[str, Any], done: Mapping[str, Done]) -> bool:
    """Tell whether a record was read, not written since then."""
    return head["id"] in done and head["written"] <= done[head["id"]].written


def _held(path: Path) -> IO[bytes]:
    """Open a journal to write to it; nobody removes it while it is open."""
    while True:
        handle = path.open("ab")
        with suppress(OSError):  # of file systems without locks, where nobody removes any
            fcntl.flock(handle, fcntl.LOCK_SH)
        if is_at(handle.fileno(), path):
            return handle
        handle.close()


def _line(
    name: str, done: Done, features: Mapping[str, Features], arrays: Sequence[np.ndarray]
) -> bytes:
    """Return the head of a record, of which the arrays are the rest."""
    kept = {expert: place for expert, place in done.experts.items() if place.is_kept}
    head = {
        "id": name,
        "file": done.file,
        "state": done.state,
        "seconds": done.seconds,
        "items": done.items,
        "broken": done.broken,
        "written": done.written,
        "experts": {expert: _as_json(one) for expert, one in features.items()},
        "kept": {expert: _kept_as_json(place) for expert, place in kept.items()},
        "bytes": sum(array.nbytes for array in arrays),
        "check": checksum(arrays),
    }
    return json.dumps(head).encode() + b"\n"


def _kept_as_json(place: Place) -> dict[str, Any]:
    return {
        "digest": place.digest,
        "size": place.size,
        "rows": place.rows,
        "words": [[(w.text, w.start, w.end) for w in words] for words in place.words],
        "check": place.check,
    }


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
    for name, one in head.get("kept", {}).items():
        words = tuple(tuple(Words(*word) for word in item) for item in one["words"])
        new.experts[name] = Place(
            one["digest"], None, 0, one["size"], tuple(one["rows"]), words, one["check"]
        )
    old = done.get(head["id"])
    if old is not None:
        old, new = sorted((old, new), key=lambda record: record.written)
        if old.state == new.state and old.items == new.items:
            new.experts = {**old.experts, **new.experts}
    done[head["id"]] = new
