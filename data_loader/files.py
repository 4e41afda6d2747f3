"""Writing files so that a kill at any moment loses nothing, and reading JSON with clear errors."""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from data_loader.errors import UserError

_REASONS = {
    errno.ENOSPC: "there is no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENOENT: "it does not exist",
    errno.EEXIST: "a file of that name is in the way",
}


def reason(error: OSError) -> str:
    """Say in words why the system refused."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


@contextmanager
def replacing(path: str | Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a new file that takes the place of `path` only once it is complete and on the disk.

    The data go to a temporary name in the same folder, are flushed and synced, then renamed. If
    anything goes wrong the temporary file is removed and what stood at `path` stays as it was.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open(mode, **options) as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        except OSError as error:
            # Errors of other files than ours (a reader in the caller's block) keep their own name.
            if error.filename not in (None, str(temporary)) and error.errno != errno.ENOSPC:
                raise
            raise UserError(f"Cannot write {path}: {reason(error)}.") from error
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: str | Path) -> Path:
    """Create `folder` with its parents, and say clearly when that is not possible."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create the folder {folder}: {reason(error)}.") from error
    return folder


def read_json(path: str | Path, what: str = "file") -> Any:
    """Read a JSON file; `what` names its role in the error message ("config", "captions")."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read the {what} {path}: {reason(error)}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The {what} {path} is not UTF-8 text: {error.reason}.") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"The {what} {path} is not valid JSON: {error.msg} in line {error.lineno}, "
            f"column {error.colno}."
        ) from error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused (not JSON)."""
    with replacing(path, "w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False, allow_nan=False)
        handle.write("\n")
