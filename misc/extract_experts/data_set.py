"""The data set that features become: with captions by the importer, without them for search."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_loader.sets.description import FILE_NAME
from misc.extract_experts.assemble import Table, write_word_features
from misc.extract_experts.expert import Words
from misc.extract_experts.extract import state_of
from misc.import_data_set.asked import TOOL as IMPORTER
from misc.import_data_set.asked import Making
from misc.import_data_set.data_set import import_data_set
from misc.import_data_set.fields import Known
from misc.import_data_set.gather import Request
from misc.import_data_set.ids import FORMS
from misc.import_data_set.layouts import read_layout
from utils.command_line import select_device
from utils.errors import UserError, listed, short
from utils.files import exists, make_folder, read_json, replacing, write_json

TOOL = "misc.extract_experts"
_MOST_ROUNDS = 3
_CAPTIONS, _ALL = "captions.json", "splits/all.txt"


def made_by(folder: Path) -> str:
    """Return which tool has made the data set that lies in a folder, empty where there is none.

    Raises:
        UserError: it was made by something else than extraction or import.
    """
    path = folder / FILE_NAME
    if not exists(path):
        return ""
    found = read_json(path, "data set description")
    maker = found.get("made_by") if isinstance(found, dict) else None
    tool = maker.get("tool") if isinstance(maker, dict) else None
    if tool not in (TOOL, IMPORTER):
        raise UserError(
            f"{path} was not written by this tool, which does not change it: choose another "
            "--output."
        )
    return str(tool)


def check_captions(files: Sequence[tuple[str, str]], ids: Sequence[str], parts: bool) -> None:
    """Insist that captions can be read and are about some of the videos, before work starts.

    Args:
        files: role and path of each.
        ids: of the videos.
        parts: whether the videos will be cut, and captions may be about their segments.

    Raises:
        UserError: they are not.
    """
    form = FORMS["folders and endings"]
    known = Known(ids=frozenset(map(form, ids)), form=form)
    videos: list[str] = []
    for _, path in files:
        videos += [entry.video for entry in read_layout(Path(path), known).entries]
    if not parts and not any(known.has(video) for video in videos):
        raise UserError(
            "The captions are about none of the videos: they name "
            f"{listed(map(short, videos), 3)}, the videos are called {listed(map(short, ids), 3)}."
        )


Said = Mapping[str, tuple[Mapping[str, Sequence[Words]], dict[str, Any]]]
"""Expert -> what it has read or heard in each video, and what it is."""


@dataclass(frozen=True)
class Finishing:
    """Makes, or brings up to date, a data set to train on.

    Attributes:
        folder: of the data set.
        request: captions and lists, as the importer takes them.
        making: see there.
        device: as --device says.
    """

    folder: Path
    request: Request
    making: Making
    device: str | None

    def with_captions(self, tables: Mapping[str, Table]) -> Iterator[str]:
        """Bring features and captions together; says what is done.

        Raises:
            UserError: the importer refuses; the features stay, and what was there before.
        """
        tool = made_by(self.folder)
        features = [f"{name}={self.folder / table.file}" for name, table in tables.items()]
        asked = replace(self.request, features=features)
        with _making_room(self.folder) if tool == TOOL else nullcontext():
            yield from import_data_set(
                self.folder,
                asked,
                self.making,
                tool == IMPORTER,
                self.device,
                leave_out_experts=True,
            )

    def with_words(
        self, tables: Mapping[str, Table], said: Said, scratch: Path, videos: int
    ) -> list[str]:
        """Give words the vectors that they have in captions, and import these too.

        Returns what the import has to say; nothing where there are no words.

        Args:
            tables: of the other experts.
            said: by the experts that give words alone.
            scratch: a folder for what is being made.
            videos: number of items of the data set.
        """
        said = {name: one for name, one in said.items() if one[0]}
        # Videos that come in by their words alone may have captions, of which vectors are made.
        lines: list[str] = []
        for _ in range(_MOST_ROUNDS if said else 0):
            before = self._text_state()
            spoken = dict(self._word_tables(said, scratch, videos))
            lines = [*self.with_captions({**tables, **spoken})]
            if self._text_state() == before:
                break
        return lines

    def _word_tables(self, said: Said, scratch: Path, videos: int) -> Iterator[tuple[str, Table]]:
        from misc.extract_experts.texts import word_vectors  # loads what encodes text

        text, entry = self._text_features()
        for name, (words, facts) in said.items():
            vectors = word_vectors(self.folder, words, entry, select_device(self.device))
            facts = {**facts, "vectors": text}
            table = write_word_features(self.folder, name, vectors, scratch, facts, videos)
            if table:
                yield name, table

    def _text_features(self) -> tuple[str, dict[str, Any]]:
        """Return name and entry of the text features, as the data set describes them."""
        described = read_json(self.folder / FILE_NAME, "data set description")
        return next(iter(described["text_features"].items()))

    def _text_state(self) -> list[Any]:
        """Return what changes when the text features do."""
        _, entry = self._text_features()
        file = str(entry.get("word_vectors") or entry.get("file"))
        return [entry, state_of(self.folder / file)]


@contextmanager
def _making_room(folder: Path) -> Iterator[None]:
    """Take away a data set without captions, and put it back if the one with them fails."""
    paths = [folder / name for name in (_CAPTIONS, _ALL, FILE_NAME)]
    before = {path: path.read_bytes() for path in paths if path.is_file()}
    for path in reversed(paths):  # the description first: it is never there without the others
        path.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        for path, data in before.items():
            make_folder(path.parent)
            with replacing(path) as handle:
                handle.write(data)
        raise


def finish_without_captions(
    folder: Path, tables: Mapping[str, Table], videos: Sequence[str]
) -> None:
    """Describe a data set that can be searched, but not trained on."""
    make_folder((folder / _ALL).parent)
    with replacing(folder / _ALL, "w", encoding="utf-8") as handle:
        handle.writelines(f"{video}\n" for video in videos)
    write_json(folder / _CAPTIONS, {})
    description = {
        "name": folder.resolve().name,
        "experts": {name: _entry(folder, table) for name, table in tables.items()},
        "captions": _CAPTIONS,
        "text_features": {},
        "splits": {"all": {"train": _ALL, "val": _ALL}},
        "made_by": {"tool": TOOL},
    }
    write_json(folder / FILE_NAME, description)


def _entry(folder: Path, table: Table) -> dict[str, Any]:
    varies = {"variable_length": True} if table.is_variable else {}
    record = read_json(folder / f"{table.file}.json", "record of features")
    return {"file": table.file, "size": table.size, **varies, "extractor": record["extractor"]}
