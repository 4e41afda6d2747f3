"""Unpacking an archive into a new folder: regular files and folders, and nothing else.

`tarfile` reads and writes, with its filter "data". That filter is not enough for a stranger's
archive: it lets links through (of which versions of Python up to 3.11.12 let some lead out), reads
headers of any size into memory, and takes a broken header for the end. So here links and devices
are refused, a header is small, a name is a plain path on every file system, and the archive must
end as archives do.
"""

import gzip
import itertools
import tarfile
import unicodedata
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from logger.progress import progress
from misc.fetching.disk import BLOCK, check_space, in_words
from utils.errors import UserError
from utils.files import reason, sync_folder

TOP = "data"  # the folder that members of all archives begin with

_HEADER = 1 << 13  # bytes of a member's headers, with those that hold a long name
_MAX_DEPTH = 16
_MAX_PART = 200  # bytes; file systems take 255, and temporary names add to it
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
_BROKEN = "it is broken, or no .tar.gz"


class ArchiveError(Exception):
    """The archive is broken, or holds what is not unpacked."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what an archive may unpack to.

    Attributes:
        members: number of files and folders.
        size: bytes, headers included.
        ratio: bytes for each byte of the archive: zeros shrink a thousandfold, features hardly.
    """

    members: int = 20_000
    size: int = 300 << 30
    ratio: int = 100


def unpack(
    archive: Path,
    target: Path,
    folders: Collection[str],
    moved: Mapping[str, str],
    limits: Limits,
) -> list[str]:
    """Unpack a .tar.gz, and return the paths of its files relative to the data folder.

    Owners, permissions and times in the archive are ignored.

    Args:
        archive: the .tar.gz.
        target: an empty folder that stands for the data folder.
        folders: names of folders below it that the archive may write to.
        moved: members that go elsewhere than their name says.
        limits: bounds of what it may unpack to.

    Raises:
        ArchiveError: it is broken, or has a member that is refused.
        UserError: the disk is full.
    """
    limit = min(limits.size, limits.ratio * archive.stat().st_size + BLOCK)
    names, files = _Names(folders, moved), []
    with (
        _faults(target),
        gzip.open(archive) as stream,
        progress(None, None, "unpacking", unit="B") as bar,
    ):
        source = _Source(stream, limit, bar.update)
        with tarfile.TarFile(fileobj=source, encoding="utf-8", copybufsize=BLOCK) as tar:
            for member in _members(tar, source, limits.members):
                path = names.accept(member)
                if not path:
                    continue
                if member.isfile():
                    files.append(path)
                    source.check_room(member.size)
                    check_space(target, member.size, f"the file {path} of {archive.name}")
                    source.allowed = member.size
                member = member.replace(name=path, deep=False)
                tar.extract(member, target, set_attrs=False, filter="data")
        # Only at its end does the compressed stream tell whether it is whole.
        while source.skip(BLOCK):
            pass
    if not files:
        raise ArchiveError("it holds no files")
    for path in (*target.rglob("*"), target):
        sync_folder(path)
    return files


class _Source:
    """What `tarfile` reads from: forwards only, all of it counted, no more at once than allowed.

    Attributes:
        allowed: how many bytes may be read until somebody allows more.
        last: what was read last.
    """

    def __init__(self, stream: BinaryIO, limit: int, advance: Callable[[int], object]) -> None:
        self._stream, self._limit, self._advance = stream, limit, advance
        self._position = 0
        self.allowed = _HEADER
        self.last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.allowed:
            raise ArchiveError("a header in it is too large")
        self.allowed -= size
        self.skip(size)
        return self.last

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ArchiveError("a header in it points backwards")
        while position > self._position:
            if not self.skip(min(BLOCK, position - self._position)):
                raise ArchiveError("it ends in the middle of a file")

    def skip(self, size: int) -> int:
        """Read without leave; returns how many bytes there were."""
        self.last = self._stream.read(size)
        self._position += len(self.last)
        self.check_room(0)
        self._advance(len(self.last))
        return len(self.last)

    def check_room(self, size: int) -> None:
        """Insist that so many bytes more are within the limit, and that it is a size at all."""
        if not 0 <= size <= self._limit - self._position:
            raise ArchiveError(f"it unpacks to more than {in_words(self._limit)}")


def _members(tar: tarfile.TarFile, source: _Source, most: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members that may be unpacked, until the mark at the archive's end."""
    for count in itertools.count():
        source.allowed = _HEADER
        member = tar.next()
        if member is None:
            break
        if count == most:
            raise ArchiveError(f"it has more than {most} members")
        is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None
        if not is_file and not member.isdir():
            kind = _KINDS.get(member.type, "of a kind that is not unpacked")
            raise ArchiveError(f"its member {quoted(member.name)} is {kind}")
        yield member
    if source.last != tarfile.NUL * tarfile.BLOCKSIZE:
        raise ArchiveError(_BROKEN)


@contextmanager
def _faults(target: Path) -> Iterator[None]:
    """Say in one way what the reading of broken streams and hostile headers ends in."""
    try:
        yield
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ArchiveError(_BROKEN) from error
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise ArchiveError("a header in it makes no sense") from error
    except OSError as error:
        raise UserError(f"Cannot unpack into {target}: {reason(error)}.") from error


class _Names:
    """Checks the names of one archive's members, one after the other.

    A name is a stranger's text. Accepted is only what is, on every file system, a plain path below
    one of the folders of the published sets, different from all others of the archive.

    Args:
        folders: names of folders below `data` that the archive may write to.
        moved: members that go elsewhere than their name says.
    """

    def __init__(self, folders: Collection[str], moved: Mapping[str, str]) -> None:
        self._folders = folders
        self._moved = moved
        # As a file system without upper and lower case sees them: spelling, and whether a folder.
        self._seen: dict[str, tuple[str, bool]] = {}

    def accept(self, member: tarfile.TarInfo) -> str:
        """Return a member's path below the data folder; empty for that folder itself.

        Raises:
            ArchiveError: the name is not acceptable.
        """
        name = self._moved.get(member.name, member.name)
        parts = (name.removesuffix("/") if member.isdir() else name).split("/")
        while parts[:1] == ["."]:  # `tar .` begins every name with it
            del parts[0]
        below = parts[1:]
        fault = next(filter(None, map(_fault, parts)), "")
        if not fault and (parts or member.isfile()):
            fault = self._misplaced(parts, member.isfile())
        for depth in range(1, len(below) + 1):
            is_folder = member.isdir() or depth < len(below)
            fault = fault or self._taken("/".join(below[:depth]), is_folder)
        if fault:
            raise ArchiveError(f"its member {quoted(name)} {fault}")
        return "/".join(below)

    def _misplaced(self, parts: list[str], is_file: bool) -> str:
        if parts[:1] != [TOP]:
            return f"does not lie in {TOP}/"
        if len(parts) > 1 and parts[1] not in self._folders:
            return "lies in no folder of a published set"
        if len(parts) > _MAX_DEPTH:
            return "lies too deep"
        return "is a file where a folder must be" if is_file and len(parts) < 3 else ""

    def _taken(self, path: str, is_folder: bool) -> str:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        if key not in self._seen:
            self._seen[key] = path, is_folder
            return ""
        spelling, was_folder = self._seen[key]
        if spelling != path:
            return f"differs from {quoted(spelling)} only in its spelling"
        if was_folder != is_folder:
            return "is both a file and a folder"
        return "" if is_folder else "is there twice"


def _fault(part: str) -> str:
    """Say what is wrong with one part of a path; nothing if it is a plain name."""
    if part in ("", ".", ".."):
        return "has an absolute path or a step such as .. in its name"
    if "\\" in part or ":" in part or any(unicodedata.category(c)[0] == "C" for c in part):
        return "has a backslash, a colon or an invisible character in its name"
    if part != part.rstrip(" ."):
        return "has a dot or a space at the end of a name"
    return "has too long a name" if len(part.encode()) > _MAX_PART else ""


def quoted(name: str) -> str:
    """A name as a message may show it: short, and without characters that move the cursor."""
    text = ascii(name)
    return text if len(text) <= 120 else f"{text[:117]}..."
