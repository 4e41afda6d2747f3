"""The layouts of captions and lists of videos: each a row of a table, with its recogniser.

To add a layout, add a row: what it is called, how it is told from the others, how it is read.
Files of strangers are read behind the wall (`data_loader.formats.apart`).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from data_loader.formats.apart import behind_wall
from data_loader.formats.pickles import read_pickle
from data_loader.formats.read import errors_of
from data_loader.formats.records import TABLES, Table, open_table, open_text
from data_loader.formats.rows import parquet_records
from misc.import_data_set.fields import (
    NAMED_FIELDS,
    SPLIT_FIELDS,
    Entry,
    Fields,
    Known,
    captions_of,
    choose_fields,
    entries_of,
    first_field,
    id_text,
    role_of,
)
from utils.errors import BadContent, short
from utils.files import parse_json

_NUMBERED = re.compile(r"(\S+?)#\S*\s+(\S.*)", re.DOTALL)
# Charades-STA: a video, start and end, a caption.
_TIMED = re.compile(r"(\S+) ([\d.]+) ([\d.]+)##(.*\S.*)", re.DOTALL)
_LABELLED = re.compile(r"(\S+)(?:\s+[\d.]+)+")
_NAMED = re.compile(r"(\S+)\s+(\S.*)", re.DOTALL)
# Records of videos, beside those of captions.
_VIDEOS = ("videos", "images", "clips")
_LOOKED_AT = 4096


class Lines(list[str]):
    """The lines of a text, without empty ones and remarks (`# ...`)."""


class Texts(dict[str, str]):
    """The texts of a folder by name of the file."""


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
        path: the file.
        layout: which layout it has, and which field was taken for what.
        entries: its captions; a list of videos has entries without captions.
    """

    path: Path
    layout: str
    entries: list[Entry]


@dataclass(frozen=True)
class Layout:
    """A layout.

    Attributes:
        name: as the user is told.
        fits: recognises the content of a file.
        read: gives its captions, and says which fields it took for what.
    """

    name: str
    fits: Callable[[Any, Known], bool]
    read: Callable[[Any, Known, bool], tuple[str, Iterator[Entry]]]


def read_layout(path: Path, known: Known, needs_captions: bool = True) -> Found:
    """Read a file of captions, or a list of videos, in any layout of the table.

    Args:
        path: the file, or a folder with a text for each video.
        known: what the user says of its columns, and the ids that the experts have.
        needs_captions: False for a list of videos, which may have captions or not.

    Raises:
        UserError: no layout fits, or several fields would do.
    """
    layout, entries = _read(path, known, needs_captions)
    return Found(path, layout, [Entry(*entry) for entry in entries])


@behind_wall
def _read(path: str | Path, known: Known, needs_captions: bool) -> tuple[str, list[tuple]]:
    path = Path(path)
    what = "captions" if needs_captions else "a list of videos"
    with errors_of(path, what):
        content = _content(path, known)
        for layout in LAYOUTS:
            if layout.fits(content, known):
                fields, entries = layout.read(content, known, needs_captions)
                # Plain tuples: the wall lets nothing else through.
                plain = [tuple(e) for e in entries if e.captions or not needs_captions]
                if not plain:
                    raise BadContent(f"it has the layout {layout.name}, but none of {what}")
                return f"{layout.name}{f' ({fields})' if fields else ''}", plain
        raise BadContent(
            "it has none of the known layouts: write id -> list of captions as JSON, or a CSV "
            'file with the columns "video_id" and "caption"'
        )


# --- What a file holds, before anybody asks what it means -----------------------------------------


def _content(path: Path, known: Known) -> Any:
    if path.is_dir():
        texts = sorted(inner for inner in path.rglob("*.txt") if inner.is_file())
        if not texts:
            raise BadContent("it is a folder without texts (.txt), one for each video")
        return Texts({str(inner.relative_to(path)): _text(inner) for inner in texts})
    if path.suffix == ".parquet":
        return parquet_records(path)
    _insist_on_content(path)
    if path.suffix in TABLES:
        return open_table(path, NAMED_FIELDS, known.has)
    if path.suffix in (".pkl", ".pickle"):
        with path.open("rb") as handle:
            return read_pickle(handle)
    if path.suffix == ".json":
        try:
            return parse_json(path.read_bytes())
        except BadContent as error:
            if "Extra data" in str(error):  # JSON lines under another name
                names = dict.fromkeys(key for r in islice(Table(path, []), 1000) for key in r)
                return Table(path, list(names))
            raise BadContent(f"it {error}") from error
    with open_text(path) as handle:
        lines = Lines(line.strip() for line in handle if line.strip() and line[:2] != "# ")
    is_numbered = all(_NUMBERED.fullmatch(line) for line in lines[:50])
    if lines and not is_numbered and all("\t" in line for line in lines[:50]):
        return open_table(path, NAMED_FIELDS, known.has)
    return lines


def _insist_on_content(path: Path) -> None:
    with path.open("rb") as handle:
        head = handle.read(_LOOKED_AT)
    if not head:
        raise BadContent("it is empty")
    is_pickle = path.suffix in (".pkl", ".pickle")
    if b"\0" in head and json.detect_encoding(head) == "utf-8" and not is_pickle:
        raise BadContent(
            "it is no text: JSON, JSON lines, CSV, TSV, lines of text, a pickle or parquet were "
            "expected (unpack an archive, save a spreadsheet as CSV)"
        )


def _text(path: Path) -> str:
    with open_text(path) as handle:
        return handle.read()


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _fields(records: Any, known: Known, needs_caption: bool, names: Any = None) -> Fields:
    if isinstance(records, Table):
        return choose_fields(records, records.names, known, records.has_names, needs_caption)
    names = list(dict.fromkeys(key for record in records[:1000] for key in record))
    return choose_fields(records, names, known, True, needs_caption)


def _checked(fields: Fields, names: str, needs_caption: bool) -> Fields:
    if fields.video is None:
        raise BadContent(f"no field is known to hold ids (choose with --id-column){names}")
    if fields.caption is None and needs_caption:
        raise BadContent(
            f"no field is known to hold captions (choose with --caption-column){names}"
        )
    return fields


# --- Readers --------------------------------------------------------------------------------------


def _read_records(records: Any, known: Known, needs_caption: bool) -> tuple[str, Iterator[Entry]]:
    names = records.names if isinstance(records, Table) else list(records[0])
    held = f"; there are {', '.join(map(short, names[:12]))}"
    fields = _checked(_fields(records, known, needs_caption), held, needs_caption)
    where = "" if not isinstance(records, Table) or records.has_names else "columns without names: "
    return f"{where}{fields}", entries_of(records, fields)


def _read_texts(texts: Texts, known: Known, _: bool) -> tuple[str, Iterator[Entry]]:
    return "", (
        Entry(name, [line.strip() for line in text.splitlines() if line.strip()])
        for name, text in texts.items()
    )


def _read_lines(
    pattern: re.Pattern[str],
) -> Callable[[Lines, Known, bool], tuple[str, Iterator[Entry]]]:
    def read(lines: Lines, known: Known, _: bool) -> tuple[str, Iterator[Entry]]:
        matches = (pattern.fullmatch(line) for line in lines)
        if pattern is _TIMED:
            return "", (Entry(m[1], [m[4]], "", float(m[2]), float(m[3])) for m in matches if m)
        return "", (Entry(m[1], [*m.groups()[1:]]) for m in matches if m)

    return read


def _read_ids(lines: Any, known: Known, _: bool) -> tuple[str, Iterator[Entry]]:
    return "", (Entry(name, []) for item in lines if (name := id_text(item)))


def _read_by_split(value: dict, known: Known, needs: bool) -> tuple[str, Iterator[Entry]]:
    """A value for each split: records, or ids."""
    said, parts = "", []
    for word, held in value.items():
        if role_of(word) is None or not held:
            continue
        if _is_records(held):
            said, entries = _read_records(held, known, needs)
        else:
            said, entries = (
                _read_mapping(held, known, needs)
                if isinstance(held, dict)
                else (_read_ids(held, known, needs))
            )
        parts.append((word, entries))
    return ", ".join(filter(None, (said, "splits from its keys"))), (
        entry._replace(split=word) for word, entries in parts for entry in entries
    )


def _read_annotations(value: dict, known: Known, needs: bool) -> tuple[str, Iterator[Entry]]:
    """Records of captions beside records of videos, as MSR-VTT and COCO have them."""
    captions = next(value[key] for key in ("sentences", "annotations") if key in value)
    kind = next((key for key in _VIDEOS if _is_records(value.get(key))), "")
    videos: list[dict[str, Any]] = value[kind] if kind else []
    names = list(dict.fromkeys(key for record in videos[:_LOOKED_AT] for key in record))
    own = replace(known, split_column=None) if known.split_column in names else known
    said, found = _read_records(captions, own, needs)
    entries = list(found)
    wanted = {entry.video for entry in entries}
    key, there = _most(videos, names, wanted.__contains__)
    if not there:
        return said, iter(entries)
    by_key = {id_text(video.get(key)): video for video in videos}
    # COCO numbers its images, and experts have the names of their files.
    name, known_names = _most(videos, names, known.has)
    if known_names > sum(map(known.has, by_key)):
        said += f", ids of videos from {name} of its {kind}"
    else:
        name = key
    split = known.split_column if own is not known else first_field(names, SPLIT_FIELDS)
    said += f", splits from {split} of its {kind}" if split else ""
    return said, (
        entry._replace(
            video=id_text(video.get(name)) or entry.video,
            split=entry.split or str(video.get(split) or ""),
        )
        for entry in entries
        for video in (by_key.get(entry.video, {}),)
    )


def _most(
    records: Iterable[dict[str, Any]], names: list[str], is_one: Callable[[str], bool]
) -> tuple[str, int]:
    """Return the field in which most records have such a text, and how many have."""
    counts = {name: sum(is_one(id_text(r.get(name))) for r in records) for name in names}
    best = max(counts, key=lambda name: counts[name], default="")
    return best, counts.get(best, 0)


def _read_mapping(value: dict, known: Known, needs: bool) -> tuple[str, Iterator[Entry]]:
    """Id -> captions, or a record of them, or a list of records (YouCook2: one a segment)."""
    nested = [held for held in value.values() if isinstance(held, dict)]
    if not nested:
        return "", (Entry(str(key), captions_of(held)) for key, held in value.items())
    inner = next((n for n in ("annotations", "segments") if _is_records(nested[0].get(n))), None)
    # The key is the id, whatever the records call by such a name.
    own = Known(caption_column=known.caption_column, split_column=known.split_column)
    outer = _without_id(_fields(nested, own, needs_caption=False))
    if inner is None:
        fields = _without_id(_fields(nested, own, needs))
        if fields.caption is None and needs:
            held = ", ".join(map(short, list(nested[0])[:12]))
            raise BadContent(
                f"no field is known to hold captions (choose with --caption-column); there are "
                f"{held}"
            )
        return f"ids of videos from its keys, {fields}", (
            entry
            for key, held in value.items()
            if isinstance(held, dict)
            for entry in entries_of([held], fields, str(key))
        )
    records = [record for held in nested for record in held.get(inner, ())][:1000]
    fields = _without_id(_fields(records, own, needs))
    return f"ids of videos from its keys, {fields}", (
        entry
        for key, held in value.items()
        if isinstance(held, dict)
        for entry in entries_of(
            [r for r in held.get(inner, ()) if isinstance(r, dict)],
            fields,
            str(key),
            str(held.get(outer.split) or "") if outer.split else "",
        )
    )


def _without_id(fields: Fields) -> Fields:
    return replace(fields, video=None)


# --- Recognisers ----------------------------------------------------------------------------------


def _fits_lines(pattern: re.Pattern[str]) -> Callable[[Any, Known], bool]:
    def fits(content: Any, known: Known) -> bool:
        return (
            isinstance(content, Lines)
            and bool(content)
            and all(pattern.fullmatch(line) for line in content[:1000])
            and not any(map(known.has, content[:1000]))  # ids with spaces
        )

    return fits


def _has_splits(content: Any, known: Known) -> bool:
    return (
        isinstance(content, dict)
        and {role_of(key) for key in content if isinstance(key, str)} >= {"train"}
        and all(isinstance(held, list | dict) for held in content.values())
    )


def _has_annotations(content: Any, known: Known) -> bool:
    return isinstance(content, dict) and any(
        _is_records(content.get(key)) for key in ("sentences", "annotations")
    )


def _records_in(content: Any, known: Known) -> list | None:
    """Return the only records of a dictionary, whose name is no video's."""
    if not isinstance(content, dict):
        return None
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    [(name, records), *others] = lists.items() or [("", None)]
    return records if not others and _is_records(records) and not known.has(name) else None


def _is_database(content: Any, known: Known) -> bool:
    return isinstance(content, dict) and isinstance(content.get("database"), dict)


LAYOUTS = (
    Layout("a text for each video", lambda c, k: isinstance(c, Texts), _read_texts),
    Layout("lines `id#number caption`", _fits_lines(_NUMBERED), _read_lines(_NUMBERED)),
    Layout("lines `id start end##caption`", _fits_lines(_TIMED), _read_lines(_TIMED)),
    Layout("lines of ids and numbers", _fits_lines(_LABELLED), _read_lines(_LABELLED)),
    Layout("lines `id caption`", _fits_lines(_NAMED), _read_lines(_NAMED)),
    Layout("lines of ids", lambda c, k: isinstance(c, Lines) and bool(c), _read_ids),
    Layout("a table", lambda c, k: isinstance(c, Table), _read_records),
    Layout("records", lambda c, k: _is_records(c), _read_records),
    Layout(
        "a list of ids",
        lambda c, k: isinstance(c, list) and bool(c) and all(id_text(item) for item in c),
        _read_ids,
    ),
    Layout("records beside records of videos", _has_annotations, _read_annotations),
    Layout(
        "a database of videos",
        _is_database,
        lambda content, known, needs: _read_mapping(content["database"], known, needs),
    ),
    Layout("a part for each split", _has_splits, _read_by_split),
    Layout(
        "records under a name",
        lambda content, known: _records_in(content, known) is not None,
        lambda content, known, needs: _read_records(_records_in(content, known), known, needs),
    ),
    Layout("a mapping from ids", lambda c, k: isinstance(c, dict) and bool(c), _read_mapping),
)
