"""What a data set knows of its videos besides features: files, times, words, captions."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_loader.formats.read import read_plain_mapping
from data_loader.store.feature_store import FeatureStore, RawCaptions
from logger.page.videos import SHOWN_SUFFIXES
from misc.search.index.parts import VideoFacts
from utils.files import exists, files_below, is_there, read_json

# Written by `misc.extract_experts`: files and times of videos, words of experts.
VIDEOS_FILE, TEXTS_FOLDER = "videos.json", "texts"
# Bytes of a file of captions that may hold none.
_NOTHING = 8
_VIDEOS = SHOWN_SUFFIXES[:4]  # the others are of pictures
_Words = dict[str, list[tuple[Any, ...]]]


def facts_of(
    store: FeatureStore, ids: Sequence[str], given: Path | None, usual: Path | None
) -> tuple[Path | None, list[VideoFacts]]:
    """Return what a data set knows of videos.

    Args:
        store: of the data set.
        ids: the videos.
        given: the folder in which the user says that their files lie.
        usual: where they lie if nobody knows better.

    Returns:
        The folder that the paths of files are relative to, absolute, as the index may move; None
        where no file is known. And the facts of each video.
    """
    root = store.finder.description.root
    told = _read(root / VIDEOS_FILE, "files of videos")
    folder, files = _located(root, told, given, usual)
    spoken = words_of_experts(root).values()
    captions = _raw_captions(store)
    return folder, [
        VideoFacts(
            path=files.get(key),
            **_times(told.get(key)),
            words=[word for of_expert in spoken for word in of_expert.get(key, ())],
            captions=captions.of(key) if captions else (),
        )
        for key in ids
    ]


def words_of_experts(root: Path) -> dict[str, _Words]:
    """Return what experts heard or read: expert -> video -> (expert, text, start, end)."""
    folder = root / TEXTS_FOLDER
    paths = sorted(folder.glob("*.json")) if is_there(folder, Path.is_dir) else []
    found: dict[str, _Words] = {}
    for path in paths:
        of_expert: _Words = found.setdefault(path.stem, {})
        for key, words in _read(path, "words of an expert").items():
            for word in words if isinstance(words, list) else ():
                if isinstance(word, dict) and isinstance(word.get("text"), str):
                    times = [t if _is_time(t := word.get(at)) else None for at in ("start", "end")]
                    of_expert.setdefault(str(key), []).append((path.stem, word["text"], *times))
    return found


def _read(path: Path, what: str) -> dict[str, Any]:
    return read_plain_mapping(path, what) if exists(path) else {}


def _located(
    root: Path, told: dict[str, Any], given: Path | None, usual: Path | None
) -> tuple[Path | None, dict[str, str]]:
    """Return a folder, and video -> its file relative to that."""
    if told and given is None:
        files = {
            key: os.path.normpath(root.resolve() / entry["file"])
            for key, entry in told.items()
            if isinstance(entry, dict) and isinstance(entry.get("file"), str)
        }
        if files:
            folder = Path(os.path.commonpath({Path(path).parent for path in files.values()}))
            return folder, {key: os.path.relpath(path, folder) for key, path in files.items()}
    for folder_or_none in (given, root / "videos", usual):
        if folder_or_none is not None and is_there(folder_or_none, Path.is_dir):
            folder = folder_or_none.resolve()
            return folder, _files_in(folder)
    return None, {}


def _files_in(folder: Path) -> dict[str, str]:
    """Map ids to files in a folder of videos; of several files of an id the most playable one."""
    found: dict[str, str] = {}
    for path in files_below(folder):
        if path.suffix in _VIDEOS:
            relative = path.relative_to(folder)
            key = str(relative.with_suffix(""))
            before = found.get(key)
            if before is None or _VIDEOS.index(path.suffix) < _VIDEOS.index(Path(before).suffix):
                found[key] = str(relative)
    return found


def _times(told: Any) -> dict[str, Any]:
    """Return the parent and the times of a segment."""
    if not isinstance(told, dict):
        return {}
    parent, start, end = told.get("parent"), told.get("start"), told.get("end")
    if isinstance(parent, str) and _is_time(start) and _is_time(end):
        return {"parent": parent, "start": start, "end": end}
    return {}


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value


def _raw_captions(store: FeatureStore) -> RawCaptions | None:
    """Return the captions, None where there are none: what is only searched needs none."""
    finder = store.finder
    paths = [folder / finder.description.captions for folder in finder.folders]
    there = [path for path in paths if exists(path)]
    if not there or (there[0].stat().st_size < _NOTHING and not read_json(there[0])):
        return None
    return store.captions()
