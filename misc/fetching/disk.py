"""Fetching as it lies on the disk: room, the part of a download that has come, files in place."""

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from logger.progress import progress
from utils.errors import UserError
from utils.files import make_folder, read_json, reason, replacing, sync_folder, write_json

BLOCK = 1 << 20


def in_words(size: int) -> str:
    """`2.1 GiB`, `812 bytes`: a size for people."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if unit != "bytes" else f"{size} bytes"
        value /= 1024
    return f"{value:.1f} TiB"


def check_space(folder: Path, needed: int, what: str) -> None:
    """Insist that the disk of `folder` has room.

    Args:
        folder: an existing folder.
        needed: bytes.
        what: what needs them.

    Raises:
        UserError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"There is no room for {what}: it needs {in_words(needed)}, the disk of {folder} has "
            f"{in_words(free)} free; free some, then run the same command, which continues."
        )


class Part:
    """The bytes of a file that have come, with a small record beside them.

    Attributes:
        path: where the bytes lie.
        size: size of the whole file, None if the server does not say.
        version: ETag and Last-Modified of this version of the file, empty if the server has none.
        sha1: sum of the complete and verified file, empty before.
    """

    def __init__(self, path: Path, source: str) -> None:
        """Go on with what is at `path`, if it came from the same source."""
        self.path = path
        self._source = source
        self._record = path.with_name(f"{path.name}.download.json")
        self.size: int | None = None
        self.version, self.sha1 = ("", ""), ""
        found = None
        with suppress(UserError):  # without its record the download begins anew
            found = read_json(self._record)
        if isinstance(found, dict) and found.get("source") == source and path.is_file():
            size = found.get("size")
            self.size = size if type(size) is int else None
            etag, date, self.sha1 = (
                str(found.get(key) or "") for key in ("etag", "last_modified", "sha1")
            )
            self.version = etag, date
        else:
            self.forget()

    @property
    def offset(self) -> int:
        """How many bytes have come."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def has_all(self) -> bool:
        """Whether all bytes have come, as far as the server said how many there are."""
        return self.size is not None and self.offset == self.size

    def begin(self, size: int | None, version: tuple[str, str]) -> None:
        """Begin with the first byte of the version that the server names so."""
        self.forget()
        self.size, self.version = size, version
        self.save()

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """Open the file; yields the function that adds what comes next.

        Raises:
            UserError: the disk is full, or the file cannot be written.
        """
        with self._writing():
            # Without a buffer: what was written counts as come, whatever happens next.
            handle = self.path.open("ab", buffering=0)

        def write(block: bytes) -> None:
            rest = memoryview(block)
            with self._writing():
                while rest:
                    rest = rest[handle.write(rest) :]

        with handle:
            yield write

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = ""
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = "; free some, then run the same command, which continues"
            raise UserError(f"Cannot write {self.path}: {reason(error)}{remedy}.") from error

    def finish(self, sha1: str) -> None:
        """Note that all bytes have come and are the right ones."""
        sync_folder(self.path)
        self.sha1 = sha1
        self.save()

    def forget(self) -> None:
        """Remove the bytes and what was known of them."""
        self.size = None
        self.version, self.sha1 = ("", ""), ""
        for path in (self._record, self.path):
            path.unlink(missing_ok=True)

    def save(self) -> None:
        etag, date = self.version
        facts = {"size": self.size, "etag": etag, "last_modified": date, "sha1": self.sha1}
        write_json(self._record, {"source": self._source, **facts})

    def sum(self) -> str:
        """Compute the sha1 of the bytes."""
        digest = hashlib.sha1(usedforsecurity=False)
        with (
            self.path.open("rb") as handle,
            progress(None, self.offset, "checksum", unit="B") as bar,
        ):
            while block := handle.read(BLOCK):
                digest.update(block)
                bar.update(len(block))
        return digest.hexdigest()


def place(source: Path, target: Path) -> None:
    """Move everything in `source` into `target`; a file takes the place of one of its name.

    Every move is one renaming: a file or folder is at its place whole, or still where it was
    unpacked. A move that was stopped is completed by moving what is left.

    Raises:
        UserError: a file stands where a folder must be, or the other way round (then nothing is
            moved), or the system refuses.
    """
    _check_nothing_in_the_way(source, target)
    _merge(source, make_folder(target))


def _check_nothing_in_the_way(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        there = target / entry.name
        if entry.is_dir() and there.is_dir():
            _check_nothing_in_the_way(entry, there)
        elif there.is_symlink() and not there.exists():
            raise _in_the_way(there, "a link that leads nowhere", entry)
        elif there.exists() and (entry.is_dir() or there.is_dir()):
            raise _in_the_way(there, "a folder" if there.is_dir() else "a file", entry)


def _in_the_way(there: Path, kind: str, entry: Path) -> UserError:
    wanted = "a folder" if entry.is_dir() else "a file"
    return UserError(
        f"{there} is {kind}, where {wanted} must go: move it away, then run the same command."
    )


def _merge(source: Path, target: Path) -> None:
    for entry in sorted(source.iterdir()):
        destination = target / entry.name
        if entry.is_dir():
            if not destination.exists() and _renamed(entry, destination):
                continue
            _merge(entry, make_folder(destination))
            entry.rmdir()
        elif not _renamed(entry, destination):
            copy(entry, destination)
            entry.unlink()
    sync_folder(target)


def _renamed(source: Path, target: Path) -> bool:
    """Rename, or say that it cannot be done: the user linked a folder to another disk."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise UserError(f"Cannot write {target}: {reason(error)}.") from error
    return True


def copy(source: Path, target: Path) -> None:
    """Copy a file so that it is at its place whole or not at all."""
    with source.open("rb") as content, replacing(target) as handle:
        shutil.copyfileobj(content, handle, BLOCK)
