"""Moving unpacked files into the data folder, which may hold others already.

Every move is one renaming: a file or folder is at its place whole, or still where it was unpacked.
A move that was stopped is completed by moving what is left.
"""

import errno
import shutil
from pathlib import Path

from misc.fetching.part import BLOCK
from utils.errors import UserError
from utils.files import make_folder, reason, replacing, sync_folder


def place(source: Path, target: Path) -> None:
    """Move everything in `source` into `target`; a file takes the place of one of its name.

    Raises:
        UserError: a file stands where a folder must be, or the other way round (then nothing is
            moved), or the system refuses.
    """
    _check_nothing_in_the_way(source, target)
    _merge(source, make_folder(target))


def _check_nothing_in_the_way(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        there = target / entry.name
        if there.is_symlink() and not there.exists():
            kind = "a link that leads nowhere"
        elif there.exists() and there.is_dir() != entry.is_dir():
            kind = "a folder" if there.is_dir() else "a file"
        else:
            if entry.is_dir() and there.is_dir():
                _check_nothing_in_the_way(entry, there)
            continue
        wanted = "a folder" if entry.is_dir() else "a file"
        raise UserError(
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
            with entry.open("rb") as content, replacing(destination) as handle:
                shutil.copyfileobj(content, handle, BLOCK)
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
