"""What the user is told: what was taken for what, and how many ids meet."""

import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from data_loader.sets.near_ids import near_miss
from misc.import_data_set.gather import Gathered
from misc.import_data_set.splits import ROLES
from utils.errors import short


def recognised(gathered: Gathered) -> Iterator[str]:
    """Tell what each file was taken for."""
    for found in gathered.found:
        videos = len({entry.video for entry in found.entries})
        captions = sum(len(entry.captions) for entry in found.entries)
        held = f"{captions} captions of {videos} videos" if captions else f"{videos} videos"
        yield f"{_shown(found.path)}: {held}; {found.layout}"
    for name, sources in gathered.sources.items():
        for source in sources:
            kind = "a vector each"
            if source.is_variable and source.lengths is not None and len(source.lengths):
                least, most = min(source.lengths), max(source.lengths)
                kind = f"{least} to {most} vectors each" if least < most else f"{most} vectors each"
            count = str(len(source.ids))
            if source.missing:
                count = f"{len(source.ids) - len(source.missing)} of {count}"
            yield f"expert {name}: {count} videos, {kind}, size {source.size}"
    if gathered.changed:
        old, new = gathered.changed
        if unicodedata.normalize("NFC", old) == new:
            yield f'ids are written in one Unicode form (NFC), as "{short(new)}" is'
        else:
            yield f'ids are written without {gathered.form}: "{short(old)}" is "{short(new)}"'
    yield from gathered.said
    yield from gathered.splits.said


def ids_table(gathered: Gathered) -> Iterator[str]:
    """Lay out how many ids of captions and lists each expert knows, with near misses below."""
    experts = {name: gathered.has_expert(name) for name in gathered.experts}
    rows: list[list[str]] = [["", "videos", "with captions", *experts]]
    notes: list[str] = []
    groups: dict[str, Collection[str]] = {"captions": gathered.captions}
    groups |= {role: gathered.splits.lists[role] for role in ROLES}
    for title, ids in groups.items():
        there = [len({*ids} & known) for known in experts.values()]
        with_captions = len({*ids} & {*gathered.captions})
        rows.append([title, str(len(ids)), str(with_captions), *map(str, there)])
    for name, known in experts.items():
        near = near_miss(gathered.captions, known)
        if near:
            notes.append(f"expert {name}: {near}")
    for name, sources in gathered.sources.items():
        empty = set().union(*(source.missing for source in sources))
        lacking = sorted({*gathered.captions} & empty)
        if lacking:
            notes.append(
                f"expert {name}: no vector (empty, or not a number) for {len(lacking)} videos with "
                f"captions, such as {short(lacking[0])}"
            )
    listed_ids = {video for ids in gathered.splits.lists.values() for video in ids}
    unused = len({*gathered.captions} - listed_ids)
    if unused:
        notes.append(f"{unused} videos with captions are in no list")
    yield from _table(rows)
    yield from notes


def _shown(path: Path) -> str:
    """Return a path as the user would type it: without the working directory in front."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("../..") else near


def _table(rows: Iterable[Iterable[str]]) -> Iterator[str]:
    rows = [list(map(short, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
