"""Puts the files of a data set together from the journals: features, texts, the list of videos.

Then these files alone have the features, and the journals know them by their checksums: of a file
that was changed or removed since then nothing counts, and the expert looks at the videos again.

They depend on what was seen alone, not on who has seen it when: shards give the bytes of one
process. A file that comes out the same stays as it lies, so that what was packed of it is valid.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from misc.extract_experts.expert import Words
from misc.extract_experts.feature_file import (
    FeatureFile,
    as_json,
    checksum,
    name_of,
    write_features_file,
    write_if_changed,
    write_record,
)
from misc.extract_experts.journal import Done, Place, let_go, read_rows
from utils.files import make_folder

TEXTS, VIDEOS = "texts", "videos.json"
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
    write_if_changed(folder / VIDEOS, as_json(listed))


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
    before = FeatureFile(folder, expert)
    if present == before.counts and present and all(place.is_kept for _, _, place in seen):
        written = name_of(expert)
        write_record(folder, expert, facts)
    else:
        values = (
            array
            for name, one, place in seen
            for array in _rows_of(place, before, item_ids(name, one, segments))
        )
        written = write_features_file(folder, expert, present, size, is_variable, values, facts)
    if not written:
        return None
    return Table(written, size, is_variable, len(present), len(rows) - len(present))


def _rows_of(place: Place, before: FeatureFile, items: list[str]) -> Iterator[np.ndarray]:
    return map(before.rows, items) if place.is_kept else read_rows(place)


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
        written = write_features_file(folder, expert, counts, size, True, values, facts)
    return Table(written, size, True, len(counts), videos - len(counts)) if written else None


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
    write_if_changed(folder / TEXTS / f"{expert}.json", as_json(plain))
    return told


def usable(done: Mapping[str, Done]) -> Iterator[tuple[str, Done]]:
    """Give the videos that are not broken, in order of their ids."""
    return ((name, done[name]) for name in sorted(done) if not done[name].broken)


def only(digests: Mapping[str, str], done: Mapping[str, Done]) -> dict[str, Done]:
    """Return what is known of all videos by the experts of today: name -> digest.

    What another one of the same name saw, in videos that are gone, is left out.
    """
    return {
        name: replace(
            one,
            experts={k: p for k, p in one.experts.items() if digests.get(k) == p.digest},
        )
        for name, one in done.items()
    }


def seen_by(expert: str, done: Mapping[str, Done]) -> dict[str, Done]:
    """Return the videos that an expert has seen, in order of their ids."""
    return {name: one for name, one in usable(done) if expert in one.experts}


# --- Features that the files alone have -----------------------------------------------------------


Lost = frozenset[tuple[str, str]]
"""Videos and experts whose features were in a file of the data set, and are there no more."""


def lost_features(folder: Path, done: Mapping[str, Done], segments: str) -> Lost:
    """Compare the files of a data set with what the journals know of them."""
    file_of = cache(partial(FeatureFile, folder))
    lost = set()
    for video, one in done.items():
        items = item_ids(video, one, segments)
        for expert, place in one.experts.items():
            if place.is_kept and not _has(file_of(expert), items, place):
                lost.add((video, expert))
    return frozenset(lost)


def without(done: Mapping[str, Done], lost: Lost) -> dict[str, Done]:
    """Return what is known of all videos but for the features that are lost."""
    return {
        video: replace(
            one,
            experts={
                expert: place
                for expert, place in one.experts.items()
                if not (place.is_kept and (video, expert) in lost)
            },
        )
        for video, one in done.items()
    }


def free(work: Path, name: str, folder: Path, done: Mapping[str, Done], segments: str) -> None:
    """Let the journals leave features to the files of the data set, if these have all of them.

    Args:
        work: folder of the journals.
        name: of the journal that remains.
        folder: of the data set, whose files are written.
        done: what is known of all videos.
        segments: as `items_of` takes it.

    Raises:
        UserError: the journal cannot be written.
    """
    if all(place.is_kept for one in done.values() for place in one.experts.values()):
        return
    file_of = cache(partial(FeatureFile, folder))
    kept = {}
    for video, one in done.items():
        items, places = item_ids(video, one, segments), {}
        for expert, place in one.experts.items():
            check = place.check if place.is_kept else checksum(read_rows(place))
            places[expert] = replace(place, journal=None, start=0, check=check)
            if not _has(file_of(expert), items, places[expert]):
                return
        kept[video] = replace(one, experts=places)
    let_go(work, name, kept)


def _has(file: FeatureFile, items: list[str], place: Place) -> bool:
    """Tell whether a file has the features of a video as they were."""
    counts = tuple(file.counts.get(item, 0) for item in items)
    return counts == place.rows and file.check(items) == place.check
