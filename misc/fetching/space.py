"""Space on the disk: how much is needed, and what to say when it is not there."""

import shutil
from pathlib import Path

from utils.errors import UserError


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
