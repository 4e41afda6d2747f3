"""What an import was asked for: `made_by` of its `dataset.json`, kept for the next one."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_loader.sets.description import FILE_NAME
from misc.import_data_set.gather import Request
from utils.errors import UserError
from utils.files import exists, read_json

TOOL = "misc.import_data_set"


@dataclass(frozen=True)
class Making:
    """How to make the data set of what was gathered.

    Attributes:
        name: of the data set.
        captions_as: a name in `config.PROTOCOLS`.
        text_encoder: a model, a file of word vectors, or None for vectors of the captions alone.
        aggregate: "avg" or "max", to one vector a video.
        videos: folder of the videos, for the page.
    """

    name: str | None = None
    captions_as: str = "each"
    text_encoder: str | None = None
    aggregate: str | None = None
    videos: str | None = None


def made_before(place: Path, add: bool) -> dict[str, Any]:
    """Return what `dataset.json` says of an earlier import, nothing where there was none."""
    path = place / FILE_NAME
    if not exists(path):
        if add:
            raise UserError(f"There is no data set in {place} to add to: leave --add out.")
        return {}
    found = read_json(path, "data set description")
    made_by = found.get("made_by") if isinstance(found, dict) else None
    keys = {"request", "making", "files"}
    if not isinstance(made_by, dict) or made_by.get("tool") != TOOL or not keys <= made_by.keys():
        raise UserError(
            f"{path} was not written by this tool, which does not change it: choose another "
            "--output."
        )
    files = made_by["files"]
    inside = isinstance(files, dict) and all(
        isinstance(recipe, str) and not Path(name).is_absolute() and ".." not in Path(name).parts
        for name, recipe in files.items()
    )
    if not inside:
        raise UserError(f'{path} is damaged: "made_by" names no files of its folder.')
    if files.get(FILE_NAME, digest_of_description(found)) != digest_of_description(found):
        raise UserError(
            f"{path} was changed since it was written, which importing would undo: choose another "
            "--output."
        )
    return made_by


def digest_of_description(description: Mapping[str, Any]) -> str:
    """Return what tells whether a description is as it was written, of all but `made_by`."""
    return digest_of([[key, description[key]] for key in sorted(description) if key != "made_by"])


def digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode("utf-8", "surrogatepass")).hexdigest()


def joined(before: Any, place: Path, new: Request) -> Request:
    """Return what was asked for before with the new sources behind it."""
    try:
        old = Request(**before)
        old = replace(
            old,
            captions=[(role, _from(place, path)) for role, path in old.captions],
            split_files=[(role, _from(place, path)) for role, path in old.split_files],
            features=[_spec(spec, lambda path: _from(place, path)) for spec in old.features],
            draw=tuple(map(int, old.draw)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{place / FILE_NAME} does not say what was imported before.") from error

    # A source that was given before is not added once more.
    more, there = recorded(new, place), recorded(old, place)

    def both(kind: str) -> list:
        pairs = zip(getattr(new, kind), getattr(more, kind), strict=True)
        return [
            *getattr(old, kind),
            *(item for item, seen in pairs if seen not in getattr(there, kind)),
        ]

    return replace(
        old,
        captions=both("captions"),
        features=both("features"),
        split_files=both("split_files"),
        segment_ids=new.segment_ids or old.segment_ids,
        leave_out=new.leave_out or old.leave_out,
    )


def earlier(before: Any, place: Path, new: Making) -> Making:
    """Return how the data set was made before, with what the user says now over it."""
    try:
        old = Making(**before)
        if old.text_encoder and old.text_encoder.startswith("."):
            old = replace(old, text_encoder=_from(place, old.text_encoder))
    except (TypeError, AttributeError) as error:
        raise UserError(f"{place / FILE_NAME} does not say how it was made before.") from error
    usual = Making()
    said = {k: v for k, v in vars(new).items() if v != getattr(usual, k)}
    return replace(old, **said)


def _from(place: Path, path: str) -> str:
    return os.path.normpath(place / path)


def _spec(spec: str, change: Any) -> str:
    name, _, path = spec.partition("=")
    return f"{name}={change(path)}"


def recorded(request: Request, place: Path) -> Request:
    """Return a request with paths as seen from the data set."""

    def seen(path: str) -> str:
        return relative(path, place)

    return replace(
        request,
        captions=[(role, seen(path)) for role, path in request.captions],
        split_files=[(role, seen(path)) for role, path in request.split_files],
        features=[_spec(spec, seen) for spec in request.features],
    )


def recorded_making(making: Making, place: Path) -> Making:
    encoder = making.text_encoder
    if encoder and exists(Path(encoder)):
        # A path, whatever it looks like.
        return replace(making, text_encoder=f"./{relative(encoder, place)}")
    return making


def relative(path: str, place: Path) -> str:
    # A link keeps its own name: what a file is called says of what kind it is.
    lies = Path(path)
    return os.path.relpath(lies.parent.resolve() / lies.name, place)
