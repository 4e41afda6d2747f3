"""Changes of an index that count as a whole or not at all."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from misc.search.index.manifest import FILE_NAME, FORMAT, INNER_FOLDER, Manifest
from utils.errors import UserError, short
from utils.files import (
    PATH_ERRORS,
    alone,
    check_writable,
    is_there,
    make_folder,
    read_json,
    reason,
    sync_folder,
    write_json,
)

_MARK = ".index-of-videos"


class IndexChange:
    """A change of an index folder that counts as a whole or not at all.

    Attributes:
        folder: of the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, kind: str) -> Path:
        """Return a new folder of the index for a "model" or a "part"."""
        return make_folder(self.folder / f"{kind}-{secrets.token_hex(8)}")

    def commit(self, manifest: Manifest) -> None:
        """Let the index be what a manifest says, and remove what it no longer names."""
        sync_folder(self.folder)
        write_json(self.folder / FILE_NAME, manifest.as_json())
        self.keep_only({manifest.model, *manifest.parts})

    def keep_only(self, names: set[str]) -> None:
        """Remove what belongs to no index any more."""
        for path in self.folder.iterdir():
            if (
                INNER_FOLDER.fullmatch(path.name)
                and path.name not in names
                and not path.is_symlink()
            ):
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def changing(folder: Path) -> Iterator[IndexChange]:
    """Change an index, or make one, while no other process does.

    What was written goes again if anything goes wrong; what a killed process left goes with the
    next change.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    is_new = not is_there(folder)
    check_place(folder)
    make_folder(folder)
    try:
        with alone(folder, f"changing the index {folder}"):
            (folder / _MARK).touch()
            change = IndexChange(folder)
            change.keep_only(_named(folder))
            try:
                yield change
            except BaseException:
                change.keep_only(_named(folder))
                if not is_there(folder / FILE_NAME):
                    (folder / _MARK).unlink(missing_ok=True)
                raise
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _named(folder: Path) -> set[str]:
    """Return the folders that the manifest names, also of an index that cannot be read."""
    told = read_json(folder / FILE_NAME, "index") if is_there(folder / FILE_NAME) else {}
    parts = told.get("parts")
    return {str(name) for name in (told.get("model"), *(parts if isinstance(parts, list) else ()))}


def check_place(folder: Path) -> None:
    """Insist that an index can be written into a folder, which need not be there, and write none.

    Raises:
        UserError: it is a file, cannot be written, or holds other files.
    """
    check_writable(folder)
    if is_there(folder):
        _refuse_other_contents(folder)


def _refuse_other_contents(folder: Path) -> None:
    """Insist that a folder is empty, or that an index was made, or begun, in it."""
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: the folder of an index was expected.")
    if is_there(folder / FILE_NAME):
        told = read_json(folder / FILE_NAME, "index")
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise UserError(f"{folder / FILE_NAME} is no index of `misc.build_index`.")
        return
    try:
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except PATH_ERRORS as error:
        raise UserError(f"Cannot use the folder {folder}: {reason(error)}.") from error
    if others and not is_there(folder / _MARK):
        raise UserError(
            f'The folder {folder} holds other files ("{short(others[0])}") and no index: name a '
            "new or an empty one with --output."
        )
