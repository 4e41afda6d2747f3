"""The packed file: a checked header, then arrays one after the other, ready to be mapped.

Layout: magic (8 bytes), length of the header (8 bytes), SHA-256 of the header (32 bytes), header
(JSON), then each array at a multiple of 64 bytes. The header tells the sources (path, size,
modification time) from which the file was made, so that it can be told when it is out of date.
"""

import gc
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.content import BadContent
from data_loader.errors import UserError
from data_loader.files import make_folder, reason, replacing

logger = logging.getLogger(__name__)

VERSION = 1
_MAGIC = b"TVRPACK\0"
_PREFIX = len(_MAGIC) + 8 + 32
_ALIGNMENT = 64


@dataclass(frozen=True)
class Part:
    """One array to be packed, given in pieces so that it never has to be held at once."""

    dtype: np.dtype
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[np.ndarray]]

    @staticmethod
    def of(array: np.ndarray) -> "Part":
        """Return a part that is one array."""
        return Part(array.dtype, array.shape, lambda: [array])

    def whole(self) -> np.ndarray:
        """Return the array in memory."""
        values = np.empty(self.shape, dtype=self.dtype)
        at = 0
        for piece in self.pieces():
            values[at : at + len(piece)] = piece
            at += len(piece)
        return values


@dataclass(frozen=True)
class Packed:
    """Arrays by name, and what else is known about them (`facts`, plain data)."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How to make a packed file.

    Attributes:
        name: what it holds, part of the file's name ("expert-audio").
        sources: the files that it is made from.
        settings: what else decides its content, plain data.
        make: reads the sources and returns the parts and the facts.
    """

    name: str
    sources: tuple[Path, ...]
    settings: dict[str, Any]
    make: Callable[[], tuple[dict[str, Part], dict[str, Any]]]

    def key(self) -> dict[str, Any]:
        """Return what a packed file must agree with to be used."""
        return {
            "version": VERSION,
            "sources": [[str(path.resolve()), *_state(path)] for path in self.sources],
            "settings": self.settings,
        }

    def file_name(self) -> str:
        """Return a name that differs between sources and settings, not between their versions."""
        paths = [str(path.resolve()) for path in self.sources]
        text = json.dumps([paths, self.settings], sort_keys=True)
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in self.name)[:80]
        return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.packed"


def _state(source: Path) -> list[Any]:
    """Return what changes when a source does: size and time of a file, of all files of a folder."""
    if not source.is_dir():
        stat = source.stat()
        return [stat.st_size, stat.st_mtime_ns]
    with os.scandir(source) as entries:
        held = sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries)
    return [len(held), hashlib.sha256(json.dumps(held).encode()).hexdigest()]


def load_or_make(recipe: Recipe, folders: list[Path]) -> Packed:
    """Map the packed file of a recipe; make it first where it is missing, stale or damaged.

    Args:
        recipe: what is wanted.
        folders: where packed files may lie; the first that can be written is used. If none can,
            the arrays are held in memory.

    Raises:
        UserError: a source cannot be used.
    """
    key = recipe.key()
    for folder in folders:
        path = folder / recipe.file_name()
        if path in _writers:
            _writers.pop(path).join()
        if path.is_file():
            found = _open(path, key)
            if found:
                return found
    with _no_collector():
        return _make(recipe, key, folders)


def _make(recipe: Recipe, key: dict[str, Any], folders: list[Path]) -> Packed:
    parts, facts = recipe.make()
    for folder in folders:
        try:
            found = _written(
                make_folder(folder) / recipe.file_name(), parts, {**key, "facts": facts}, key
            )
        except _CannotPack as error:
            raise error.reason from None
        except UserError as error:
            logger.warning("No packed copy of %s in %s: %s", recipe.name, folder, error)
            continue
        if found:
            return found
    return Packed({name: part.whole() for name, part in parts.items()}, facts)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Pause the search for circles: among a million small arrays it takes longer than reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def finish_writing() -> None:
    """Wait until all packed files have taken their places; the end of the process does so too."""
    while _writers:
        _writers.popitem()[1].join()


# Path -> the thread that waits for the disk before the file takes its place.
_writers: dict[Path, threading.Thread] = {}


def _written(
    path: Path, parts: dict[str, Part], header: dict[str, Any], key: dict[str, Any]
) -> Packed | None:
    """Write a packed file and map it. A disk takes its time; nobody has to wait for it.

    The file is mapped under its temporary name, and takes its place once it is on the disk.
    """
    with ExitStack() as stack:
        handle = stack.enter_context(replacing(path))
        for piece in _bytes_of(parts, header):
            handle.write(piece)
        handle.flush()
        found = _open(Path(handle.name), key)
        rest = stack.pop_all()

    def take_place() -> None:
        try:
            rest.close()
        except UserError as error:
            logger.warning("No packed copy: %s", error)

    _writers[path] = threading.Thread(target=take_place, name=f"writing {path.name}")
    _writers[path].start()
    return found


def write_packed(path: Path, parts: dict[str, Part], facts: dict[str, Any]) -> None:
    """Write a packed file that stands for itself: it has no sources to be made from again.

    Raises:
        UserError: the file cannot be written, or the pieces cannot be made.
    """
    header = {"version": VERSION, "sources": [], "settings": {}, "facts": facts}
    try:
        _write(path, parts, header)
    except _CannotPack as error:
        raise error.reason from None


def is_packed(path: Path) -> bool:
    """Whether a file starts as packed files do."""
    with path.open("rb") as handle:
        return handle.read(len(_MAGIC)) == _MAGIC


def read_packed(path: Path) -> Packed:
    """Map a packed file of `write_packed`.

    Raises:
        BadContent: it is damaged, truncated, or holds something else than arrays of numbers.
    """
    return _read(path)[1]


class _CannotPack(Exception):
    """A source turned out to be unusable while it was being packed."""

    def __init__(self, reason: UserError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _write(path: Path, parts: dict[str, Part], header: dict[str, Any]) -> None:
    with replacing(path) as handle:
        for piece in _bytes_of(parts, header):
            handle.write(piece)


def _bytes_of(parts: dict[str, Part], header: dict[str, Any]) -> Iterator[bytes | memoryview]:
    arrays, at = {}, 0
    for name, part in parts.items():
        arrays[name] = {"dtype": part.dtype.str, "shape": list(part.shape), "at": at}
        at += _padded(_size(part.dtype, part.shape))
    text = json.dumps({**header, "arrays": arrays}).encode()
    text += b" " * (_padded(_PREFIX + len(text)) - _PREFIX - len(text))
    yield _MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text
    for part in parts.values():
        size = 0
        try:
            for piece in part.pieces():
                data = np.ascontiguousarray(piece, dtype=part.dtype).reshape(-1).view(np.uint8)
                size += len(data)
                yield data.data
        except UserError as error:
            raise _CannotPack(error) from error
        assert size == _size(part.dtype, part.shape)
        yield b"\0" * (_padded(size) - size)


def _open(path: Path, key: dict[str, Any]) -> Packed | None:
    """Map a packed file, or return None if it must be made again."""
    try:
        header, packed = _read(path)
    except OSError as error:
        logger.warning("Cannot read the packed file %s: %s.", path, reason(error))
        return None
    except BadContent as error:
        logger.warning("The packed file %s is unusable (%s); it is made again.", path, error)
        return None
    if header == key:
        return packed
    if header.get("version") == VERSION:
        logger.info("A source of %s has changed; it is packed again.", path)
    return None


def _read(path: Path) -> tuple[dict[str, Any], Packed]:
    """Map a packed file; returns its key and its content."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        start = handle.read(_PREFIX)
        length = int.from_bytes(start[8:16], "little")
        text = handle.read(length) if length < size else b""
    if start[:8] != _MAGIC or hashlib.sha256(text).digest() != start[16:]:
        raise BadContent("it is damaged")
    header = json.loads(text)
    arrays, facts = header.pop("arrays", {}), header.pop("facts", {})
    begin = _PREFIX + length
    ends = [begin + _end(array) for array in arrays.values()]
    if size != max(ends, default=begin):
        raise BadContent("it is truncated")
    return header, Packed({name: _map(path, begin, a) for name, a in arrays.items()}, facts)


def _end(array: dict[str, Any]) -> int:
    """Where an array ends, counted from the first; the file may come from a stranger."""
    numbers = [array["at"], *array["shape"]]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise BadContent("an array of it has no place or size")
    dtype = np.dtype(array["dtype"])
    if dtype.kind not in "fiub":
        raise BadContent("it holds something else than numbers")
    return array["at"] + _padded(_size(dtype, array["shape"]))


def _map(path: Path, begin: int, array: dict[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(array["dtype"]), tuple(array["shape"])
    if not _size(dtype, shape):
        return np.empty(shape, dtype=dtype)
    # Copy on write: the pages are shared between processes, yet torch may hold them as writable.
    return np.memmap(path, dtype=dtype, mode="c", offset=begin + array["at"], shape=shape)


def offsets_of(counts: Iterable[int]) -> np.ndarray:
    """Return where each of several runs of rows starts, and where the last ends."""
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype("<i8")


def _size(dtype: np.dtype, shape: Iterable[int]) -> int:
    size = dtype.itemsize
    for length in shape:
        size *= length
    return size


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
