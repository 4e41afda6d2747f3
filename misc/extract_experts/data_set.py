"""The data set that features become: with captions by the importer, without them for search."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_loader.sets.description import FILE_NAME
from misc.extract_experts.assemble import Table
from misc.import_data_set.asked import TOOL as IMPORTER
from misc.import_data_set.asked import Making
from misc.import_data_set.data_set import import_data_set
from misc.import_data_set.fields import Known
from misc.import_data_set.gather import Request
from misc.import_data_set.ids import FORMS
from misc.import_data_set.layouts import read_layout
from utils.errors import UserError, listed, short
from utils.files import exists, make_folder, read_json, replacing, write_json

TOOL = "misc.extract_experts"
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


def finish_with_captions(
    folder: Path,
    tables: Mapping[str, Table],
    request: Request,
    making: Making,
    device: str | None,
) -> Iterator[str]:
    """Make, or bring up to date, a data set to train on; says what it does.

    Raises:
        UserError: the importer refuses; the features stay.
    """
    tool = made_by(folder)
    if tool == TOOL:
        for name in (FILE_NAME, _CAPTIONS, _ALL):
            (folder / name).unlink(missing_ok=True)
    features = [f"{name}={folder / table.file}" for name, table in tables.items()]
    asked = Request(**{**vars(request), "features": features})
    yield from import_data_set(folder, asked, making, tool == IMPORTER, device)


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
