"""The videos of a data set as a model takes them, and what the data set knows of each of them.

V videos, M experts.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.formats.read import read_plain_mapping
from data_loader.sets.declared import ModelInputs
from data_loader.sets.description import DataDescription, SplitEntry
from data_loader.sets.layout import FileFinder, expert_source, read_videos, videos_of
from data_loader.sets.near_ids import hint
from data_loader.store.feature_store import ExpertView, FeatureStore, RawCaptions
from logger.page.videos import SHOWN_SUFFIXES
from misc.search.index import VideoFacts
from utils.errors import UserError, listed
from utils.files import exists, files_below, is_there, read_json

_log = logging.getLogger(__name__)

# Written by `misc.extract_experts`: files and times of videos, words of experts.
VIDEOS_FILE, TEXTS_FOLDER = "videos.json", "texts"
# Bytes of a file of captions that may hold none.
_NOTHING = 8
ALL = "all"
LISTS = (ALL, "train", "val", "test")


@dataclass(frozen=True)
class Place:
    """A data set, as a model's config looks at it.

    Attributes:
        description: of the data set.
        split: the split, which may replace experts' files.
        finder: looks its files up.
        store: loads them.
        args: the config's `data_loader.args`, of which the experts' files depend.
        face_dim: size of the expert "face", as published configs declare it.
    """

    description: DataDescription
    split: SplitEntry
    finder: FileFinder
    store: FeatureStore
    args: Mapping[str, Any]
    face_dim: int | None = None

    @classmethod
    def of(
        cls, description: DataDescription, args: Mapping[str, Any], face_dim: int | None = None
    ) -> "Place":
        """Open the data set that a description describes; with the config's split or its first."""
        splits = description.splits
        split = splits.get(args.get("split_name", "")) or next(iter(splits.values()))
        finder = FileFinder(description, args.get("root_feat_folder", ""))
        store = FeatureStore(finder, args.get("cache_dir"))
        return cls(description, split, finder, store, args, face_dim)


class Videos:
    """Some videos of a data set.

    Args:
        place: the data set.
        inputs: the experts that the model takes; one that the data set lacks is missing for all.
        asked: a list's name (`LISTS`), or a file of ids.
        splits: names of the splits for "train" and "val", and for "test".
        words: experts of words that count as experts too, after the others; `gather` has them not.

    Attributes:
        place: the data set.
        ids: V ids.
        availability: (V, M) float32.

    Raises:
        UserError: an expert has another size or length than the model takes, or there is no video
            that has any expert.
    """

    def __init__(
        self,
        place: Place,
        inputs: ModelInputs,
        asked: str,
        splits: tuple[str, str],
        words: Sequence[str] = (),
    ) -> None:
        self.place, self._inputs = place, inputs
        found = {}
        for expert in inputs.experts:
            if self._has(expert.name):
                found[expert.name] = self._features(expert.name)
        spoken = words_of_experts(place.description.root)
        self._words = {name: spoken.get(name, {}) for name in words}
        if not found and not words:
            raise _no_experts(place.description, inputs)
        known = {key for features in found.values() for key in features.ids}
        known |= {key for of_expert in self._words.values() for key in of_expert}
        self.ids = self._chosen(asked, splits, known)
        self._views = {
            e.name: ExpertView(found[e.name], e, self.ids)
            for e in inputs.experts
            if e.name in found
        }
        for view in self._views.values():
            view.log("index")
        nowhere = np.zeros(len(self.ids), dtype=np.float32)
        columns = [
            self._views[e.name].availability if e.name in self._views else nowhere
            for e in inputs.experts
        ]
        for of_expert in self._words.values():
            columns.append(np.array([key in of_expert for key in self.ids], dtype=np.float32))
        self.availability = np.stack(columns, axis=1)
        if not self.availability.any():
            raise UserError(
                f"None of the {len(self.ids)} videos has any of the experts "
                f'{", ".join([*found, *words])}: their files do not know "{self.ids[0]}" or any '
                f"other of these ids{hint(self.ids, known)}."
            )

    def _has(self, name: str) -> bool:
        description, split = self.place.description, self.place.split
        known = (*description.experts, *split.experts, *description.aggregated_experts)
        if name not in known:
            _log.warning(
                'The data set %s has no expert "%s": it is missing for all of its videos.',
                description.name,
                name,
            )
        return name in known

    def _features(self, name: str) -> Any:
        place = self.place
        aggregation = place.args.get("feat_aggregation", {}).get(name, {})
        source = expert_source(name, place.finder, place.split, aggregation, place.face_dim)
        features = place.store.expert(source)
        [expert] = [e for e in self._inputs.experts if e.name == name]
        has_tokens = features.offsets is not None
        if has_tokens != expert.variable_length or features.size != expert.size:
            kinds = {True: "tokens", False: "one vector"}
            raise UserError(
                f'The expert "{name}" of {place.description.name} has {kinds[has_tokens]} of size '
                f"{features.size}, the model takes {kinds[expert.variable_length]} of size "
                f"{expert.size}: it was trained on features of another extractor."
            )
        return features

    def _chosen(self, asked: str, splits: tuple[str, str], known: set[str]) -> list[str]:
        description, finder = self.place.description, self.place.finder
        if asked == ALL:
            return sorted(known)
        if asked in LISTS:
            split = description.split(splits[asked == "test"])
            return videos_of(split.train if asked == "train" else split.val, finder)
        path = Path(asked)
        if not is_there(path, Path.is_file):
            raise UserError(
                f"--videos {asked} is no file: a list of video ids was expected, or one of "
                f"{', '.join(LISTS)}."
            )
        ids = read_videos(path, description)
        strange = [key for key in ids if key not in known]
        if strange:
            _log.warning(
                "%d of the %d videos of %s have no expert (%s)%s.",
                len(strange),
                len(ids),
                path,
                listed(strange, 3),
                hint(strange, known),
            )
        if not ids:
            raise UserError(f"The list of videos {path} is empty.")
        return ids

    def __len__(self) -> int:
        return len(self.ids)

    def gather(self, places: np.ndarray) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return the experts of some videos, zeros where one is missing, and which are there."""
        experts, ind = {}, {}
        for e in self._inputs.experts:
            if e.name in self._views:
                experts[e.name], ind[e.name] = self._views[e.name].gather(places)
            else:
                shape = (e.max_tokens, e.size) if e.variable_length else (e.size,)
                experts[e.name] = torch.zeros(len(places), *shape)
                ind[e.name] = torch.zeros(len(places))
        return experts, ind

    def words(self, place: int, expert: str) -> list[str]:
        """Return what an expert of words heard or read in a video."""
        return [word[1] for word in self._words[expert].get(self.ids[place], ())]

    # ---- what is known of each ----

    def facts(self, video_folder: Path | None) -> list[VideoFacts]:
        """Return what the data set knows of its videos: files, times, words, captions."""
        folder = self.place.description.root
        told = _read(folder / VIDEOS_FILE, "the list of files")
        files = {} if told else _files_in(video_folder)
        spoken = words_of_experts(folder).values()
        captions = self._raw_captions()
        return [
            VideoFacts(
                **_file_and_times(told.get(key), files.get(key)),
                words=[word for of_expert in spoken for word in of_expert.get(key, ())],
                captions=captions.of(key) if captions else (),
            )
            for key in self.ids
        ]

    def _raw_captions(self) -> RawCaptions | None:
        """Return the captions, None where there are none: what is only searched needs none."""
        place = self.place
        paths = [folder / place.description.captions for folder in place.finder.folders]
        there = [path for path in paths if exists(path)]
        if not there or (there[0].stat().st_size < _NOTHING and not read_json(there[0])):
            return None
        return place.store.captions()

    def video_folder(self, given: Path | None, usual: Path | None) -> Path | None:
        """Return what the paths of videos are relative to: absolute, as the index may move."""
        folder = self.place.description.root
        if exists(folder / VIDEOS_FILE):
            return folder.resolve()
        for path in (given, folder / "videos", usual):
            if path is not None and is_there(path, Path.is_dir):
                return path.resolve()
        return None


def _no_experts(description: DataDescription, inputs: ModelInputs) -> UserError:
    wanted = ", ".join(e.name for e in inputs.experts)
    return UserError(
        f"The data set {description.name} has none of the experts that the model takes ({wanted}): "
        f"it has {', '.join(sorted(description.experts)) or 'none'}."
    )


def _read(path: Path, what: str) -> dict[str, Any]:
    return read_plain_mapping(path, what) if exists(path) else {}


def _files_in(folder: Path | None) -> dict[str, str]:
    """Map ids to files in a folder of videos; of several files of an id the most playable one."""
    found: dict[str, str] = {}
    if folder is None:
        return found
    videos = SHOWN_SUFFIXES[:4]  # the others are of pictures
    for path in files_below(folder):
        if path.suffix in videos:
            relative = path.relative_to(folder)
            key, before = str(relative.with_suffix("")), found.get(str(relative.with_suffix("")))
            if before is None or videos.index(path.suffix) < videos.index(Path(before).suffix):
                found[key] = str(relative)
    return found


def _file_and_times(told: Any, file: str | None) -> dict[str, Any]:
    if not isinstance(told, dict):
        return {"path": file}
    path, parent = told.get("file"), told.get("parent")
    start, end = told.get("start"), told.get("end")
    found = {"path": path if isinstance(path, str) else None}
    if isinstance(parent, str) and _is_time(start) and _is_time(end):
        found |= {"parent": parent, "start": start, "end": end}
    return found


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value


_Words = dict[str, list[tuple[Any, ...]]]


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
