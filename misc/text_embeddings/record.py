"""What tells one encoder, one file, one version from another."""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

from utils.errors import UserError, short
from utils.files import reason


def file_hash(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {reason(error)}.") from error


def readable(value: Any) -> Any:
    """Return plain data with all texts as UTF-8 has them.

    Names of files come as the locale has them: bytes that it does not know are half characters,
    which no JSON file takes.
    """
    if isinstance(value, dict):
        return {key: readable(inner) for key, inner in value.items()}
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {name: metadata.version(name) for name in packages}


def first_line(error: Exception) -> str:
    """Return the kind and the first line of an error of a library, for the middle of a sentence."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {short(lines[0].rstrip('.:'), 200)}"
