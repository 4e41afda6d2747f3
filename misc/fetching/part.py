"""A download as it lies on the disk: the bytes so far, and what the server said of the file."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from logger.progress import progress
from utils.errors import UserError
from utils.files import read_json, reason, write_json

BLOCK = 1 << 20


class Part:
    """The bytes of a file that have come, with a small record beside them.

    Attributes:
        path: where the bytes lie.
        size: size of the whole file, None if the server does not say.
        etag, last_modified: what the server names this version of the file, empty if it does not.
        sha1: sum of the complete and verified file, empty before.
    """

    def __init__(self, path: Path, source: str) -> None:
        """Go on with what is at `path`, if it came from the same source."""
        self.path = path
        self._source = source
        self.size: int | None = None
        self.etag = self.last_modified = self.sha1 = ""
        found = self._read_record()
        if found.get("source") == source and path.is_file():
            size = found.get("size")
            self.size = size if type(size) is int else None
            self.etag, self.last_modified, self.sha1 = (
                str(found.get(key) or "") for key in ("etag", "last_modified", "sha1")
            )
        else:
            self.forget()

    @property
    def _record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.download.json")

    def _read_record(self) -> dict[str, Any]:
        if not self._record.is_file():
            return {}
        try:
            found = read_json(self._record)
        except UserError:
            return {}  # without it the download begins anew
        return found if isinstance(found, dict) else {}

    @property
    def offset(self) -> int:
        """How many bytes have come."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def validator(self) -> str:
        """What `If-Range` may hold: a strong ETag, else the date; empty if there is neither."""
        return self.etag if self.etag.startswith('"') else self.last_modified

    def begin(self, size: int | None, etag: str, last_modified: str) -> None:
        """Begin with the first byte of the version that the server names so."""
        self.forget()
        self.size, self.etag, self.last_modified = size, etag, last_modified
        self.save()

    @property
    def has_all(self) -> bool:
        """Whether all bytes have come, as far as the server said how many there are."""
        return self.size is not None and self.offset == self.size

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """Open the file; yields the function that adds what comes next.

        Raises:
            UserError: the disk is full, or the file cannot be written.
        """
        try:
            # Without a buffer: what was written counts as come, whatever happens next.
            handle = self.path.open("ab", buffering=0)
        except OSError as error:
            raise self._cannot_write(error) from error

        def write(block: bytes) -> None:
            rest = memoryview(block)
            try:
                while rest:
                    rest = rest[handle.write(rest) :]
            except OSError as error:
                raise self._cannot_write(error) from error

        with handle:
            yield write

    def _cannot_write(self, error: OSError) -> UserError:
        remedy = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "; free some, then run the same command, which continues"
        return UserError(f"Cannot write {self.path}: {reason(error)}{remedy}.")

    def finish(self, sha1: str) -> None:
        """Note that all bytes have come and are the right ones."""
        with self.path.open("rb") as handle:
            os.fsync(handle.fileno())
        self.sha1 = sha1
        self.save()

    def forget(self) -> None:
        """Remove the bytes and what was known of them."""
        self.size = None
        self.etag = self.last_modified = self.sha1 = ""
        for path in (self._record, self.path):
            with suppress(FileNotFoundError):
                path.unlink()

    def save(self) -> None:
        write_json(
            self._record,
            {
                "source": self._source,
                "size": self.size,
                "etag": self.etag,
                "last_modified": self.last_modified,
                "sha1": self.sha1,
            },
        )

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
