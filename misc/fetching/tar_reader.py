"""Reading a .tar.gz of a stranger, member by member, with bounded memory.

`tarfile` reads a header of any size into memory, and takes a broken header in the middle of an
archive for its end. Here a header is small, the archive must end as archives do, and the checksum
of the compressed data is always reached.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from misc.fetching.part import BLOCK
from misc.fetching.space import in_words

_HEADER = 1 << 13  # of a member, with those before it that hold a long name


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


class _Forwards:
    """What `tarfile` reads from: forwards only, and no more at once than it is allowed to."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._position = 0
        self.allowed = 0

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.allowed:
            raise ArchiveError("a header in it is too large")
        self.allowed -= size
        return self._read(size)

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ArchiveError("a header in it points backwards")
        while position > self._position:
            if not self.block(position - self._position):
                raise ArchiveError("it ends in the middle of a file")

    def check_room(self, size: int) -> None:
        """Insist that so many bytes more are within the limit, and that it is a size at all."""
        if not 0 <= size <= self._limit - self._position:
            raise ArchiveError(f"it unpacks to more than {in_words(self._limit)}")

    def block(self, most: int = BLOCK) -> bytes:
        """Read the next bytes of a file's content, at most `most`; nothing at the end."""
        return self._read(min(BLOCK, most))

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        self.check_room(0)
        return data


class TarReader:
    """An open archive."""

    def __init__(self, stream: BinaryIO, limits: Limits, limit: int) -> None:
        self._source = _Forwards(stream, limit)
        self._limits = limits

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield the headers of all members in order, whatever their kind.

        Raises:
            ArchiveError: the archive is broken, ends too early or has too many members.
        """
        self._source.allowed = _HEADER
        with _faults(), tarfile.TarFile(fileobj=self._source, encoding="utf-8") as tar:
            member, count = tar.firstmember, 0
            while member is not None:
                count += 1
                if count > self._limits.members:
                    raise ArchiveError(f"it has more than {self._limits.members} members")
                yield member
                member = self._next(tar)
        # Only at its end does the compressed stream tell whether it is whole.
        with _faults():
            while self._source.block():
                pass

    def _next(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        self._source.seek(tar.offset)
        self._source.allowed = _HEADER
        try:
            return tarfile.TarInfo.fromtarfile(tar)
        except tarfile.EOFHeaderError:
            return None

    def check_size(self, member: tarfile.TarInfo) -> None:
        """Insist that the content of the member at hand is within the limits.

        Raises:
            ArchiveError: it is not, or its size is none.
        """
        self._source.check_room(member.size)

    def content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Yield the bytes of the member at hand, block by block.

        Raises:
            ArchiveError: the archive ends before they do.
        """
        with _faults():
            self._source.seek(member.offset_data)
            missing = member.size
            while missing:
                block = self._source.block(missing)
                if not block:
                    raise ArchiveError("it ends in the middle of a file")
                missing -= len(block)
                yield block


@contextmanager
def _faults() -> Iterator[None]:
    """Say in one way what the reading of broken streams and hostile headers ends in."""
    try:
        yield
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ArchiveError("it is broken, or no .tar.gz") from error
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise ArchiveError("a header in it makes no sense") from error


@contextmanager
def open_tar(path: Path, limits: Limits) -> Iterator[TarReader]:
    """Open a .tar.gz within limits; what is wrong with it shows while it is read."""
    limit = min(limits.size, limits.ratio * path.stat().st_size + BLOCK)
    with gzip.open(path) as stream:
        yield TarReader(stream, limits, limit)
