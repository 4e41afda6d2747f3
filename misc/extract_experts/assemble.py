"""Puts the files of a data set together from the journals: features, texts, the list of videos.

They depend on what was seen alone, not on who has seen it when: shards give the bytes of one
process. A file that comes out the same stays as it lies, so that what was packed of it is valid.
"""

import filecmp
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_loader.store.packed import offsets_of
from misc.extract_experts.expert import Words
from misc.extract_experts.journal import Done, read_rows
from utils.files import make_folder, remove_abandoned, replacing, temporary_name

FEATURES, TEXTS, VIDEOS = "experts", "texts", "videos.json"
MOST_DECIMALS = 3  # of the times in the id of a segment


@dataclass(frozen=True)
class Table:
    """One expert's features of a whole data set.

    Attributes:
        file: as seen from the data set's folder.
        size: of a vector.
        is_variable: whether a video has a number of vectors.
        videos: number of items that have any.
        lacking: number of items that have none.
    """

    file: str
    size: int
    is_variable: bool
    videos: int
    lacking: int


def item_ids(name: str, done: Done, segments: str) -> list[str]:
    """Return the ids of a video's items: its own, or one for each segment."""
    if not segments:
        return [name]
    return [f"{name}_{_time(start)}_{_time(end)}" for start, end in done.items]


def _time(seconds: float) -> str:
    text = f"{seconds:.{MOST_DECIMALS}f}".rstrip("0").rstrip(".")
    return text or "0"


def write_videos(folder: Path, done: Mapping[str, Done], segments: str) -> None:
    """Write down which videos there are, and of which video and time each segment is."""
    listed: dict[str, dict[str, Any]] = {}
    for name, one in usable(done):
        for item, (start, end) in zip(item_ids(name, one, segments), one.items, strict=True):
            listed[item] = {"file": one.file, "seconds": round(end - start, MOST_DECIMALS)}
            if segments:
                times = {"start": round(start, MOST_DECIMALS), "end": round(end, MOST_DECIMALS)}
                listed[item] |= {"parent": name, **times}
    _write_if_changed(folder / VIDEOS, _json(listed))


def write_features(
    folder: Path,
    expert: str,
    done: Mapping[str, Done],
    segments: str,
    is_variable: bool,
    facts: dict[str, Any],
) -> Table | None:
    """Write one expert's features and what made them; None where no video has any.

    Args:
        folder: of the data set.
        expert: its name.
        done: the videos that it has seen, see `seen_by`.
        segments: as `items_of` takes it.
        is_variable: whether a video has a number of vectors.
        facts: what made them.
    """
    seen = [(name, one, one.experts[expert]) for name, one in done.items()]
    rows = [
        (item, count)
        for name, one, place in seen
        for item, count in zip(item_ids(name, one, segments), place.rows, strict=True)
    ]
    present = {item: count for item, count in rows if count}
    size = max((place.size for _, _, place in seen), default=0)
    values = (rows for _, _, place in seen for rows in read_rows(place))
    written = _write_table(folder, expert, present, size, is_variable, values, facts)
    return (
        Table(written, size, is_variable, len(present), len(rows) - len(present))
        if written
        else None
    )


def write_word_features(
    folder: Path,
    expert: str,
    vectors: Iterator[tuple[str, np.ndarray]],
    scratch: Path,
    facts: dict[str, Any],
    videos: int,
) -> Table | None:
    """Write the vectors of an expert's words; None where no video has any.

    Args:
        folder: of the data set.
        expert: its name.
        vectors: video, and the vectors of its words, (m, D).
        scratch: a folder for the vectors until all are there.
        facts: what made them.
        videos: number of all items.
    """
    counts: dict[str, int] = {}
    size = 0
    with tempfile.TemporaryFile(dir=scratch) as raw:
        for name, rows in vectors:
            counts[name], size = len(rows), rows.shape[1]
            raw.write(np.ascontiguousarray(rows, "<f4").tobytes())
        raw.seek(0)
        values = (np.fromfile(raw, "<f4", count * size) for count in counts.values())
        written = _write_table(folder, expert, counts, size, True, values, facts)
    return Table(written, size, True, len(counts), videos - len(counts)) if written else None


def _write_table(
    folder: Path,
    expert: str,
    counts: Mapping[str, int],
    size: int,
    is_variable: bool,
    values: Iterable[np.ndarray],
    facts: dict[str, Any],
) -> str:
    """Write a file of features and its record; return its name, empty where there is nothing."""
    name = f"{FEATURES}/{expert}.npz"
    path, record = folder / name, folder / f"{name}.json"
    if not counts or not size:
        for old in (path, record):
            old.unlink(missing_ok=True)
        return ""

    def write(handle: IO[bytes]) -> None:
        with zipfile.ZipFile(handle, "w") as archive:
            with archive.open("feats.npy", "w", force_zip64=True) as member:
                shape = (sum(counts.values()), size)
                head = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, head)
                for rows in values:
                    member.write(rows.tobytes())
            arrays = {"ids": np.array(list(counts))}
            if is_variable:
                arrays["offsets"] = offsets_of([*counts.values()])
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    make_folder(path.parent)
    _write_if_changed(path, write)
    _write_if_changed(record, _json({"extractor": facts}))
    return name


def write_texts(
    folder: Path, expert: str, done: Mapping[str, Done], segments: str
) -> dict[str, tuple[Words, ...]]:
    """Write down, and return, what an expert has read or heard, item by item."""
    told: dict[str, tuple[Words, ...]] = {}
    for name, one in done.items():
        words_of_items = one.experts[expert].words
        for item, words in zip(item_ids(name, one, segments), words_of_items, strict=True):
            if words:
                told[item] = words
    make_folder(folder / TEXTS)
    plain = {item: [vars(word) for word in words] for item, words in told.items()}
    _write_if_changed(folder / TEXTS / f"{expert}.json", _json(plain))
    return told


def usable(done: Mapping[str, Done]) -> Iterator[tuple[str, Done]]:
    """Give the videos that are not broken, in order of their ids."""
    return ((name, done[name]) for name in sorted(done) if not done[name].broken)


def seen_by(expert: str, digest: str, done: Mapping[str, Done]) -> dict[str, Done]:
    """Return the videos that an expert has seen, in order of their ids.

    What another one of the same name saw, in videos that are gone, is left out.
    """
    return {
        name: one
        for name, one in usable(done)
        if expert in one.experts and one.experts[expert].digest == digest
    }


def _json(value: Any) -> Any:
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return lambda handle: handle.write(text.encode())


def _write_if_changed(path: Path, write: Any) -> None:
    """Write a file beside its place, and let it take that place only if it differs."""
    remove_abandoned(path.parent, age=0)
    fresh = temporary_name(path)
    try:
        with replacing(fresh) as handle:
            write(handle)
        if path.is_file() and filecmp.cmp(fresh, path, shallow=False):
            return
        os.replace(fresh, path)  # noqa: PTH105
    finally:
        fresh.unlink(missing_ok=True)
