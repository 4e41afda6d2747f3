"""The whole way of an archive or a checkpoint: download, verify, unpack, place, record.

The state of each lies in `<data folder>/.fetch/<name>/`, in this order:

    archive.tar.gz     what has come of the download, with a record beside it
    unpacking/         being unpacked; begun anew after an interruption
    unpacked/          complete, being moved into the data folder
    record.json        everything is in its place: what was fetched, and where its files are

Whatever is stopped in between, the same call goes on from the last of these.
"""

import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from misc.fetching import catalogue
from misc.fetching.catalogue import Archive, PublishedModel, Source
from misc.fetching.disk import Part, copy, place
from misc.fetching.download import Patience, download
from misc.fetching.unpack import ArchiveError, Limits, unpack
from utils.errors import UserError
from utils.files import alone, is_there, make_folder, read_json, write_json

_log = logging.getLogger(__name__)


class _State:
    """The state of one thing to fetch, on the disk."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / ".fetch" / name
        self.unpacking = self.folder / "unpacking"
        self.unpacked = self.folder / "unpacked"
        self.record = self.folder / "record.json"
        self._list = self.folder / "unpacked.json"

    def is_finished(self) -> bool:
        """Whether everything was placed, and is there still."""
        found = _read(self.record)
        return found is not None and self._all_there(found)

    def is_unpacked(self) -> bool:
        """Whether what is to be placed is complete."""
        return self.unpacked.is_dir() and _read(self._list) is not None

    def set_unpacked(self, source: Source, part: Part, files: list[str]) -> None:
        """Note that `unpacking/` is complete: what was fetched, and its files."""
        facts = {"source": source.shown, "sha1": part.sha1, "size": part.offset, "files": files}
        write_json(self._list, facts)
        self.unpacking.replace(self.unpacked)

    def place(self) -> bool:
        """Move what is unpacked to its place; returns whether everything is there then."""
        facts = _read(self._list)
        # Two archives of one set share folders.
        with alone(self.folder.parent, "moving files to their place"):
            place(self.unpacked, self.data_dir)
        if facts is None or not self._all_there(facts):
            return False
        write_json(self.record, facts)
        return True

    def _all_there(self, facts: dict[str, Any]) -> bool:
        return all(is_there(self.data_dir / name, Path.is_file) for name in facts["files"])

    def discard(self) -> None:
        """Remove what was unpacked, whole or not."""
        for folder in (self.unpacking, self.unpacked):
            shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove everything but the record."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self.record:
                path.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    """Read a record; None where there is none of use."""
    with suppress(UserError):
        found = read_json(path)
        files = found.get("files") if isinstance(found, dict) else None
        if isinstance(files, list) and files and all(isinstance(name, str) for name in files):
            return found
    return None


def is_fetched(data_dir: Path, name: str) -> bool:
    """Whether an archive or checkpoint was fetched and its files are there."""
    return _State(data_dir, name).is_finished()


def fetch_archive(archive: Archive, data_dir: Path, patience: Patience) -> None:
    """Bring the files of an archive to their places below the data folder.

    Raises:
        UserError: it needs an access code, the server does not give it, the disk is full, or it is
            broken or refused.
    """
    if archive.lacks_code:
        raise UserError(
            f"The features of {archive.dataset} need an access code: {catalogue.HOW_TO_GET_A_CODE}."
        )

    def make(state: _State) -> None:
        path = state.folder / "archive.tar.gz"
        # Unpacked it takes at least as much again.
        part = download(archive.source, path, patience, room=1)
        _log.info("Unpacking %s", archive.name)
        target, moved = make_folder(state.unpacking), catalogue.moved_members()
        try:
            files = unpack(path, target, catalogue.folders(), moved, Limits())
        except ArchiveError as error:
            part.forget()
            raise UserError(
                f"The archive from {archive.source.shown} is refused, and was removed: {error}."
            ) from error
        state.set_unpacked(archive.source, part, files)

    _fetch(_State(data_dir, archive.name), archive.name, make)


def fetch_model(model: PublishedModel, data_dir: Path, patience: Patience) -> Path:
    """Bring a checkpoint and its config to where a training would have left them.

    Returns:
        The path of the checkpoint; its `config.json` lies beside it.

    Raises:
        UserError: the server does not give them, the disk is full, or they are no such files.
    """

    def make(state: _State) -> None:
        parts = {}
        for name, source, check in (
            ("config.json", model.config, _check_config),
            ("trained_model.pth", model.checkpoint, _check_checkpoint),
        ):
            parts[name] = download(source, state.folder / name, patience, room=1)
            try:
                check(parts[name].path, source)
            except UserError:
                parts[name].forget()
                raise
        folder = make_folder(state.unpacking / model.folder)
        for name, part in parts.items():
            copy(part.path, folder / name)
        files = [(model.folder / name).as_posix() for name in parts]
        state.set_unpacked(model.checkpoint, parts["trained_model.pth"], files)

    _fetch(_State(data_dir, model.name), model.experiment, make)
    return data_dir / model.folder / "trained_model.pth"


def _fetch(state: _State, what: str, make: Callable[[_State], None]) -> None:
    """Go on from the state on the disk until everything is in its place.

    Args:
        state: the state.
        what: what is fetched.
        make: fills `unpacking/` and notes when that is complete.
    """
    make_folder(state.folder)
    with alone(state.folder, f"fetching {what}"):
        if state.is_finished():
            _log.info("%s: complete already, as %s says.", what, state.record)
        else:
            if state.record.exists():
                _log.info("%s: files of it are gone; fetching it again.", what)
            if not (state.is_unpacked() and state.place()):
                state.discard()
                try:
                    make(state)
                except UserError:
                    state.discard()
                    raise
                if not state.place():
                    raise UserError(f"Files of {what} vanished while they were moved.")
        state.clear()


def _check_config(path: Path, source: Source) -> None:
    if not isinstance(read_json(path, f"config from {source.shown}"), dict):
        raise UserError(f"What came from {source.shown} is no config.")


def _check_checkpoint(path: Path, source: Source) -> None:
    with path.open("rb") as handle:
        start = handle.read(4)
    # A zip, or a pickle of protocol 2, as torch writes them; not, say, a page of a login.
    if start != b"PK\x03\x04" and start[:2] != b"\x80\x02":
        raise UserError(f"What came from {source.shown} is no checkpoint.")
