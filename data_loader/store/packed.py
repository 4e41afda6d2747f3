"""The packed file: a checked header, then arrays one after the other, ready to be mapped.

Layout: magic (8 bytes), length of the header (8 bytes), SHA-256 of the header (32 bytes), header
(JSON), then each array at a multiple of 64 bytes. The header tells the sources from which the file
was made (path, and what the file system says of them), so that it can be told when it is out of
date.
"""

import hashlib
import json
import logging
import mmap
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_loader.formats.apart import Refused, apart, nameless, tell
from utils.errors import BadContent, UserError
from utils.files import (
    PATH_ERRORS,
    alone,
    files_below,
    is_there,
    lock_of,
    make_folder,
    reason,
    replacing,
    tidy_once,
)

logger = logging.getLogger(__name__)

VERSION = 2
_MAGIC = b"TVRPACK\0"
_PREFIX = len(_MAGIC) + 8 + 32
_ALIGNMENT = 64

_refused: set[Path] = set()  # folders that could not be written


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
        """Return what a packed file must agree with to be used.

        Raises:
            UserError: a source cannot be looked at.
        """
        return {
            "version": VERSION,
            "sources": [_state(path) for path in self.sources],
            "settings": self.settings,
        }

    def file_name(self) -> str:
        """Return a name that differs between sources and settings, not between their versions."""
        paths = [str(path.resolve()) for path in self.sources]
        text = json.dumps([paths, self.settings], sort_keys=True)
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in self.name)[:80]
        return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.packed"


def _state(source: Path) -> list[Any]:
    """Return a source's path and what changes when its content does.

    Of a file, and of all files of a folder: size, time of the last change of content, inode and
    time of the last change of anything. The last two notice a file that was put in another's place
    with the same size and time. They change as well when files are moved or given other permissions
    or names; packing again what did not change is the price.
    """
    try:
        path = str(source.resolve())
        if not source.is_dir():
            return [path, *_facts(source.stat())]
        held = [(str(f.relative_to(source)), *_facts(f.stat())) for f in files_below(source)]
    except PATH_ERRORS as error:
        raise UserError(f"Cannot read {source}: {reason(error)}.") from error
    return [path, len(held), hashlib.sha256(json.dumps(held).encode()).hexdigest()]


def _facts(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns


def load_or_make(recipe: Recipe, folders: list[Path]) -> Packed:
    """Map the packed file of a recipe; make it first where it is missing, stale or damaged.

    A limited process of its own reads the sources and writes the file, see `formats.apart`. Of
    several processes that want the same file one makes it, and the others wait.

    Args:
        recipe: what is wanted.
        folders: where packed files may lie; the first that can be written is used. If none can,
            the arrays are held in memory.

    Raises:
        UserError: a source cannot be used.
    """
    key = recipe.key()
    paths = [folder / recipe.file_name() for folder in folders]
    for path in paths:
        tidy_once(path.parent)  # where all is packed nobody would write again
        found = _open(path, key)
        if found:
            return found
    for path in paths:
        try:
            found = _made_at(path, recipe, key)
        except Refused:
            raise
        except UserError as error:
            # Once for each folder: what it does not take of one recipe, it takes of no other.
            level = logging.DEBUG if path.parent in _refused else logging.WARNING
            _refused.add(path.parent)
            logger.log(level, "No packed copies in %s: %s", path.parent, error)
            continue
        if found:
            return found
    with nameless() as handle:
        apart(recipe.sources, lambda: _make(recipe, key, handle))
        return _read(handle)[1]


def _made_at(path: Path, recipe: Recipe, key: dict[str, Any]) -> Packed | None:
    """Write a packed file, or wait for another process that does, and map it.

    Raises:
        Refused: a source cannot be used.
        UserError: the file cannot be written.
    """
    folder, is_new = path.parent, not is_there(path.parent)
    make_folder(folder)
    try:
        with alone(path, f"packing {recipe.name} into {folder}", required=False):
            found = _open(path, key, is_news=False)
            if found:  # another process was quicker
                return found
            # Nobody has to wait for the disk: a file grows as its data arrive there, so that one
            # which a power cut ended is short, and made again.
            with replacing(path, durable=False) as handle:
                leftovers = (handle.name, lock_of(path))
                apart(recipe.sources, lambda: _make(recipe, key, handle), leftovers)
            return _open(path, key)
    except Refused:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise
    except UserError:
        if is_there(folder):
            raise
        # The one that this process has waited for was refused, and took its new folder away.
        return _made_at(path, recipe, key)


def _make(recipe: Recipe, key: dict[str, Any], handle: IO[bytes]) -> None:
    parts, facts = recipe.make()
    _write(handle, parts, {**key, "facts": facts})
    handle.flush()


def write_packed(path: Path, parts: dict[str, Part], facts: dict[str, Any]) -> None:
    """Write a packed file that stands for itself: it has no sources to be made from again.

    Raises:
        UserError: the file cannot be written, or the pieces cannot be made.
    """
    header = {"version": VERSION, "sources": [], "settings": {}, "facts": facts}
    with replacing(path) as handle:
        _write(handle, parts, header)


def is_packed(path: Path) -> bool:
    """Whether a file starts as packed files do."""
    with path.open("rb") as handle:
        return handle.read(len(_MAGIC)) == _MAGIC


def read_packed(path: Path) -> Packed:
    """Map a packed file of `write_packed`.

    Raises:
        BadContent: it is damaged, truncated, or holds anything but arrays of numbers.
    """
    with path.open("rb") as handle:
        return _read(handle)[1]


def _write(handle: IO[bytes], parts: dict[str, Part], header: dict[str, Any]) -> None:
    arrays, at = {}, 0
    for name, part in parts.items():
        arrays[name] = {"dtype": part.dtype.str, "shape": list(part.shape), "at": at}
        at += _padded(_size(part.dtype, part.shape))
    text = json.dumps({**header, "arrays": arrays}).encode()
    text += b" " * (_padded(_PREFIX + len(text)) - _PREFIX - len(text))
    handle.write(_MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text)
    done = 0
    for part in parts.values():
        size = 0
        for piece in part.pieces():
            data = np.ascontiguousarray(piece, dtype=part.dtype).reshape(-1).view(np.uint8)
            size += len(data)
            handle.write(data.data)
            tell(done + size, at)
        assert size == _size(part.dtype, part.shape)
        handle.write(b"\0" * (_padded(size) - size))
        done += _padded(size)


def _open(path: Path, key: dict[str, Any], is_news: bool = True) -> Packed | None:
    """Map a packed file, or return None if it is not there or must be made again.

    Why is logged, unless that is no news.
    """
    if not is_there(path):
        return None
    warning, info = (logging.WARNING, logging.INFO) if is_news else (logging.DEBUG, logging.DEBUG)
    try:
        with path.open("rb") as handle:
            header, packed = _read(handle)
    except OSError as error:
        logger.log(warning, "Cannot read the packed file %s: %s.", path, reason(error))
        return None
    except BadContent as error:
        logger.log(warning, "The packed file %s is unusable (%s); it is made again.", path, error)
        return None
    if header == key:
        return packed
    if header.get("version") == VERSION:
        logger.log(info, "A source of %s has changed; it is packed again.", path)
    return None


def _read(handle: IO[bytes]) -> tuple[dict[str, Any], Packed]:
    """Map a packed file; returns its key and its content."""
    size = os.fstat(handle.fileno()).st_size
    handle.seek(0)
    start = handle.read(_PREFIX)
    length = int.from_bytes(start[8:16], "little")
    text = handle.read(length) if length < size else b""
    if start[:8] != _MAGIC or hashlib.sha256(text).digest() != start[16:]:
        raise BadContent("it is damaged")
    begin = _PREFIX + length
    try:
        header = json.loads(text)
        arrays, facts = header.pop("arrays", {}), header.pop("facts", {})
        ends = [begin + _end(array) for array in arrays.values()]
        if size != max(ends, default=begin):
            raise BadContent("it is truncated")
        return header, Packed({name: _map(handle, begin, a) for name, a in arrays.items()}, facts)
    except BadContent:
        raise
    # What may come of a header that a stranger wrote.
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise BadContent("its header makes no sense") from error
    except RecursionError as error:
        raise BadContent("its header is nested too deeply") from error


def _end(array: dict[str, Any]) -> int:
    """Where an array ends, counted from the first."""
    numbers = [array["at"], *array["shape"]]
    if any(type(number) is not int or number < 0 for number in numbers) or numbers[0] % _ALIGNMENT:
        raise BadContent("an array of it has no place or size")
    dtype = np.dtype(array["dtype"])
    if dtype.kind not in "fiub" or dtype.itemsize > 8 or not dtype.isnative:
        raise BadContent("it holds something other than numbers")
    return array["at"] + _padded(_size(dtype, array["shape"]))


def _map(handle: IO[bytes], begin: int, array: dict[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(array["dtype"]), tuple(array["shape"])
    if not _size(dtype, shape):
        return np.empty(shape, dtype=dtype)
    # Copy on write: the pages are shared between processes, yet torch may hold them as writable.
    return np.memmap(handle, dtype=dtype, mode="c", offset=begin + array["at"], shape=shape)


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


# So much is read of an array before its pages go back.
_READ_BYTES = 2**26


class MappedPages:
    """The pages of a mapped array, which go back to the system as reading goes on.

    A page that was read counts as memory of the process until the system wants it back: reading
    through a large file looks as if the file were held. Pages that go back stay in the system's
    cache, and reading them again takes microseconds.
    """

    def __init__(self, array: np.ndarray) -> None:
        base: Any = array.base
        is_mapped = isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED")
        self._mapping = base if is_mapped else None
        self._row_bytes = array.nbytes // max(1, len(array))
        self._read = 0

    def were_read(self, rows: int) -> None:
        """Note that rows of the array were read; nobody may write into it."""
        self._read += rows * self._row_bytes
        if self._mapping is not None and self._read > _READ_BYTES:
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._read = 0
