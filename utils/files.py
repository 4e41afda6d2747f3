"""Writing files so that a kill at any moment loses nothing, and reading JSON with clear errors."""

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from utils.errors import BadContent, UserError, short

_log = logging.getLogger(__name__)

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
    errno.ENAMETOOLONG: "a name in the path is longer than the file system takes",
    errno.ELOOP: "its links lead in a circle",
}
# What a path that text from anywhere was made into may raise when the system is asked about it:
# ValueError for a NUL or a character that file names here cannot have, RuntimeError for a circle
# of links.
PATH_ERRORS = (OSError, ValueError, RuntimeError)

# `.<name>.<process>-<8 hex digits>.tmp`, see `temporary_name`.
_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST_NAME = 255  # bytes, of common file systems
# A younger file may be one whose writer has not locked it yet, or cannot lock it.
_ABANDONED_SECONDS = 2.0
_TRIES = 3
# Folders in which this process has removed what others left.
_tidied: set[str] = set()


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def reason(error: Exception) -> str:
    """Say in words why the system refused (one of `PATH_ERRORS`)."""
    if isinstance(error, UnicodeError):
        if getattr(error, "encoding", "") == "ascii":
            return (
                "file names are ASCII here, and the path has other letters: set LC_ALL=C.UTF-8 in "
                "the environment"
            )
        return "the path has a character that no file name can have"
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0, error.strerror or str(error))
    if isinstance(error, ValueError):
        return "the path has a character that no file name can have"
    return _REASONS[errno.ELOOP]


def is_there(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Tell whether there is such a file or folder (of a kind), for any path that text may name."""
    try:
        return kind(path)
    except PATH_ERRORS:
        return False


def exists(path: Path) -> bool:
    """Tell whether there is a file or folder, for any path that somebody may name.

    Raises:
        UserError: the system does not tell: a name is too long, a folder may not be entered.
    """
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"Cannot look for {path}: {reason(error)}.") from error


def files_below(folder: Path) -> Iterator[Path]:
    """Give all files below a folder; folders that are links are not followed."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file():
                yield path


def safe_name(text: str, characters: int) -> str:
    """Make a text safe and short for a file name; if that changes it, a hash keeps it apart."""
    safe = re.sub(r"[^A-Za-z0-9.,=_-]+", "_", text)[:characters]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return safe if safe == text else f"{safe}-{digest}"


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be written, without writing anything.

    Raises:
        UserError: what is there of the path already does not let anything be written.
    """
    nearest = path.absolute()
    while not is_there(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    is_fit = nearest == path.absolute() or is_there(nearest, Path.is_dir)
    if not is_fit or not os.access(nearest, os.W_OK):
        raise UserError(
            f"Cannot write {path}: nothing can be written at {nearest}; name another place."
        )


def temporary_name(path: Path) -> Path:
    """Return a new name beside `path` for what is being written; see `remove_abandoned`."""
    ending = f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    name = path.name
    while len(os.fsencode(name)) > _LONGEST_NAME - len(ending) - 1:
        name = name[:-1]
    return path.with_name(f".{name}{ending}")


@contextmanager
def replacing(
    path: str | Path, mode: str = "wb", durable: bool = True, **options: Any
) -> Iterator[IO[Any]]:
    """Open a new file that takes the place of `path` only once it is complete and on the disk.

    The data go to a temporary name in the same folder, are flushed and synced, then renamed. If
    anything goes wrong the temporary file is removed and what stood at `path` stays as it was. A
    process that is killed leaves the temporary file, which the next one that writes into the folder
    removes (`remove_abandoned`).

    Args:
        path: the file.
        mode: as for `open`.
        durable: False for what can be made again: nobody waits until the disk has it.
        options: as for `open`.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        try:
            handle, temporary = _open_temporary(path, mode, options)
        except PATH_ERRORS as error:
            raise UserError(f"Cannot write {path}: {reason(error)}.") from error
        try:
            # Renamed before it is closed, which gives up its lock.
            with handle:
                yield handle
                handle.flush()
                if durable:
                    os.fsync(handle.fileno())
                temporary.replace(path)
        except OSError as error:
            # Errors of other files than ours (a reader in the caller's block) keep their own name.
            if error.filename not in (None, str(temporary)) and error.errno != errno.ENOSPC:
                raise
            raise UserError(f"Cannot write {path}: {reason(error)}.") from error
        if durable:
            sync_folder(path.parent)
    finally:
        if temporary:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _open_temporary(path: Path, mode: str, options: dict[str, Any]) -> tuple[IO[Any], Path]:
    """Open a temporary file that is locked for as long as it is open, where there are locks."""
    with suppress(FileNotFoundError):
        path.lstat()  # a name that cannot be is refused before anything is written
    tidy_once(path.parent)
    for _ in range(_TRIES):
        temporary = temporary_name(path)
        handle = temporary.open(mode, **options)
        with suppress(OSError):
            fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Someone who removes what was abandoned may have been quicker than the lock.
        if is_at(handle.fileno(), temporary):
            break
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return handle, temporary


def is_at(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is (still) the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def tidy_once(folder: Path) -> None:
    """Remove what killed processes left in a folder, unless this process has done so."""
    name = str(folder.absolute())
    if name not in _tidied:
        _tidied.add(name)
        remove_abandoned(folder)


def remove_abandoned(folder: str | Path, age: float = _ABANDONED_SECONDS) -> None:
    """Remove what killed processes left in a folder (not below it) when they were writing.

    A temporary file belongs to its writer, in whatever process, for as long as that holds the lock
    on it. One without a writer is removed; nothing else ever is. Where the file system has no locks
    nothing is removed.

    Args:
        folder: any path; nothing happens where there is no such folder.
        age: seconds since it was last written, 0 for one who knows that nobody else is at work.
    """
    found: list[Path] = []
    with suppress(*PATH_ERRORS), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for path in found:
        with suppress(OSError):
            _remove_if_abandoned(path, age)


def _remove_if_abandoned(path: Path, age: float) -> None:
    facts = path.lstat()
    if time.time() - facts.st_mtime < age:
        return
    if stat.S_ISLNK(facts.st_mode):  # made and renamed in one breath, so nobody is at it any more
        path.unlink()
    if not stat.S_ISREG(facts.st_mode):
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(descriptor, path):
            path.unlink()
            _log.debug("Removed %s, which a killed process left.", path)
    finally:
        os.close(descriptor)


@contextmanager
def alone(path: Path, doing: str, required: bool = True) -> Iterator[int]:
    """Wait until no other process holds the lock of `path`; yields the lock's descriptor.

    The lock goes with the process, however that ends. It is a file beside `path`, or within it
    where that is a folder, which is there only while it is held.

    Args:
        path: an existing folder, or a file in one, which need not exist.
        doing: what a process does while it holds the lock ("making the demo set in data/demo").
        required: False to go on without a lock where the file system has none.

    Raises:
        UserError: the folder cannot be written, or the file system has no locks.
    """
    try:
        lock = lock_of(path)
        descriptor = _locked(lock, doing, required)
    except PATH_ERRORS as error:
        raise UserError(f"Cannot lock {path}: {reason(error)}.") from error
    try:
        yield descriptor
    finally:
        try:
            with suppress(OSError):
                lock.unlink()
        finally:
            os.close(descriptor)


def lock_of(path: Path) -> Path:
    """Return the file that stands for the lock of `path`."""
    folder, name = (path, "lock") if path.is_dir() else (path.parent, path.name)
    # What a killed process leaves of it is removed like any other temporary file.
    return folder / f".{name}.0-00000000.tmp"


def _locked(lock: Path, doing: str, required: bool) -> int:
    """Return a descriptor of the file `lock` once this process alone holds it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("Another process is %s: waiting for it.", doing)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:
                if required:
                    raise
            # The one who held it has removed it: whoever comes next makes another.
            if is_at(descriptor, lock):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


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
    except PATH_ERRORS as error:
        raise UserError(f"Cannot create the folder {folder}: {reason(error)}.") from error
    return folder


def read_json(path: str | Path, what: str = "file") -> Any:
    """Read a JSON file; `what` names its role in the error message ("config", "captions").

    Raises:
        UserError: it cannot be read, or `parse_json` refuses it.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except PATH_ERRORS as error:
        raise UserError(f"Cannot read the {what} {path}: {reason(error)}.") from error
    try:
        return parse_json(data)
    except BadContent as error:
        raise UserError(f"The {what} {path} {error}.") from error


def parse_json(data: bytes) -> Any:
    """Return what a JSON text in UTF-8 says; a byte-order mark is passed over.

    Raises:
        BadContent: it is none, or says what no file here has to say: a number that is not finite
            or has thousands of digits, half a character, a nesting of hundreds of levels. The
            message goes on where a sentence has named the file.
    """
    if data.startswith(_UTF16):
        raise BadContent("is UTF-16 text: save it as UTF-8")
    try:
        value = json.loads(
            data.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_float=_finite
        )
        if _SURROGATE.search(data):  # whole pairs of them, or text that cannot be written anywhere
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except BadContent:
        raise
    except UnicodeDecodeError as error:
        raise BadContent(f"is not UTF-8 text: {error.reason}") from error
    except UnicodeEncodeError as error:
        raise BadContent(
            r"holds half of a character (\ud800 to \udfff without its other half)"
        ) from error
    except json.JSONDecodeError as error:
        raise BadContent(
            f"is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise BadContent("is nested too deeply") from error
    except ValueError as error:  # of numbers beyond the digits that Python turns into an integer
        raise BadContent("holds a number of thousands of digits") from error
    return value


def _refuse_constant(name: str) -> Any:
    raise BadContent(f"holds {name}, which is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadContent(f"holds the number {short(text)}, which is too large")
    return value


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused (not JSON).

    Raises:
        UserError: it cannot be written, or has a text that no other program could read.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        # What Python makes of the command line where letters are ASCII.
        held = short(text[error.start : error.end])
        raise UserError(
            f'Cannot write {path}: a text in it has half of a character ("{held}"); where names '
            "with other letters than ASCII are used, set LC_ALL=C.UTF-8 in the environment."
        ) from error
    with replacing(path) as handle:
        handle.write(data + b"\n")
