"""The mark of a run's folder: a file that is there before anything else, and the lock on it.

A folder is made under a temporary name and takes its place with its mark in it, so that there never
is one that is nobody's; the lock on the mark goes with the process that holds it.
"""

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from utils.errors import UserError
from utils.files import is_at, make_folder, reason, temporary_name, write_json

MARK = "run.json"
_CONFIG = "config.json"
FORMAT = "run of text-video retrieval, 1"

# What a run that measured nothing may have left in its folders.
_OF_A_START = (MARK, _CONFIG, "info.log", "seed-*/events.out.tfevents.*", "seed-*")
# Who only asks whether a run is held has its lock for a moment.
_TRIES, _SECONDS_BETWEEN_TRIES = 5, 0.1
# A folder is made and marked in less.
_SECONDS_OF_A_START = 10.0
_STAMP = r"[0-9]{4}(-[0-9]{2}){2}_[0-9]{2}(-[0-9]{2}){2}(_[0-9]+)?"
_STARTED = re.compile(rf"\.{_STAMP}\.[0-9]+-[0-9a-f]{{8}}\.tmp")

_made: set[Path] = set()  # folders above those of runs, as far as this process made them

_log = logging.getLogger(__name__)


def read_mark(folder: Path) -> dict[str, Any] | None:
    """Return a folder's mark; None where it has none, or one that is not ours."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT:
        return None
    return mark if all(isinstance(mark.get(key), str) for key in ("id", "place")) else None


def make_marked(
    folder: Path, mark: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> IO[bytes] | None:
    """Make a folder with its mark, and a config, in it; returns the mark, open and locked.

    None where there is such a folder already.

    Raises:
        UserError: it cannot be made.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    make_folder(folder.parent)
    _made.update(missing)
    _remove_abandoned_starts(folder.parent)
    temporary = temporary_name(folder)
    try:
        with ExitStack() as undo:
            temporary.mkdir()
            undo.callback(shutil.rmtree, temporary, ignore_errors=True)
            if config:
                write_json(temporary / _CONFIG, config)
            write_json(temporary / MARK, mark)
            handle = undo.enter_context((temporary / MARK).open("r+b"))
            lock(handle, tries=1)
            if os.path.lexists(folder):  # empty, it would be replaced
                raise FileExistsError(errno.EEXIST, "", str(folder))
            temporary.rename(folder)
            undo.pop_all()
    except OSError as error:
        if folder.is_dir():
            return None
        raise UserError(f"Cannot create the folder {folder}: {reason(error)}.") from error
    return handle


@contextmanager
def locked(path: Path, tries: int | None = _TRIES) -> Iterator[bool]:
    """Lock a mark; gives False where another process has it, after so many tries (None: waits).

    Raises:
        UserError: the file cannot be opened, or has gone in the meantime.
    """
    try:
        handle = path.open("r+b")
    except OSError as error:
        raise UserError(f"Cannot write the run's file {path}: {reason(error)}.") from error
    with handle:
        is_mine = lock(handle, tries)
        if is_mine and not is_at(handle.fileno(), path):
            raise UserError(f"The run {path.parent} has just been removed by another process.")
        yield is_mine


def lock(handle: IO[bytes], tries: int | None) -> bool:
    """Lock an open file: after some tries, or (None) whenever it can be had."""
    try:
        if tries is None:
            fcntl.flock(handle, fcntl.LOCK_EX)
            return True
        for number in range(tries):
            if number:
                time.sleep(_SECONDS_BETWEEN_TRIES)
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False
    except OSError as error:
        _log.warning("The run %s cannot be locked: %s.", Path(handle.name).parent, reason(error))
        return True


def _remove_abandoned_starts(parent: Path) -> None:
    """Remove what `make_marked` left where it was killed some while ago."""
    for path in parent.glob(".*.tmp"):
        with suppress(OSError):
            is_old = time.time() - path.lstat().st_mtime >= _SECONDS_OF_A_START
            if path.is_symlink() or not is_old or not _STARTED.fullmatch(path.name):
                continue
            held = list(path.iterdir())
            if all(MARK in other.name or _CONFIG in other.name for other in held):
                for other in held:
                    other.unlink()
                path.rmdir()


def remove_start(folder: Path) -> None:
    """Remove a folder that this process made, if nothing but the start of a run is in it."""
    own = {path for pattern in _OF_A_START for path in folder.glob(pattern)}
    if own != set(folder.rglob("*")):
        return
    with suppress(OSError):
        for path in sorted(own, reverse=True):  # what lies in a folder before the folder
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.rmdir()
        for parent in folder.parents:
            if parent not in _made:
                break
            parent.rmdir()
