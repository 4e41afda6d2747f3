"""The folder in which an import makes a data set: beside its own, and gone afterwards."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from misc.import_data_set.asked import Making, made_before
from misc.import_data_set.gather import Request
from misc.import_data_set.text import ENCODED
from utils.errors import UserError
from utils.files import exists, make_folder

REQUEST = "request"
"""The file in it by which an import knows it as one of its own."""


@contextmanager
def staging(place: Path, request: Request, making: Making) -> Iterator[Path]:
    """Give an empty folder beside the data set's, which is gone afterwards.

    Encoding captions may take long: what an interrupted import has encoded is gone on with if the
    next one asks for the same.

    Raises:
        UserError: something that this tool has not made lies there.
    """
    folder = place.with_name(f".{place.name}.importing")
    mark = folder / REQUEST
    asked = json.dumps([asdict(request), asdict(making)])
    if exists(folder):
        _insist_on_own(folder)
        same = mark.is_file() and mark.read_text(encoding="utf-8") == asked
        _empty(folder, f"{ENCODED}.parts" if same else "")
    make_folder(folder)
    mark.write_text(asked, encoding="utf-8")
    keep = False
    try:
        yield folder
    except KeyboardInterrupt:
        keep = (folder / f"{ENCODED}.parts").is_dir()
        raise
    finally:
        if not keep and folder.is_dir():
            _empty(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path, keep: str = "") -> None:
    """Remove all but the mark, by which even a half of it is known as ours."""
    for path in folder.iterdir():
        if path.name not in (keep, REQUEST):
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink()


def _insist_on_own(folder: Path) -> None:
    """Refuse a folder with content that no import has left there: it would be emptied."""
    is_folder = folder.is_dir() and not folder.is_symlink()
    # An import that is killed at its very end has taken the mark away and not yet moved the folder.
    if not is_folder or not (
        (folder / REQUEST).is_file() or not any(folder.iterdir()) or made_before(folder, add=False)
    ):
        raise UserError(f"{folder} is in the way of the import: move it away.")
