"""The videos of a data set as a model takes them.

V videos, M experts.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.sets.declared import ModelInputs
from data_loader.sets.description import DataDescription, SplitEntry
from data_loader.sets.layout import FileFinder, expert_source, read_videos, videos_of
from data_loader.sets.near_ids import hint
from data_loader.store.feature_store import ExpertView, FeatureStore
from misc.build_index.facts import words_of_experts
from utils.errors import UserError, did_you_mean, listed, short
from utils.files import is_there

_log = logging.getLogger(__name__)

ALL = "all"
LISTS = (ALL, "train", "val", "test")


def check_list(asked: str) -> None:
    """Insist that a list of videos has a name that is known, or is a file.

    Raises:
        UserError: it is neither.
    """
    if asked not in LISTS and not is_there(Path(asked), Path.is_file):
        raise UserError(
            f"--videos {short(asked)} is no file{did_you_mean(asked, LISTS)}: a list of video ids "
            f"was expected, or one of {', '.join(LISTS)}."
        )


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


def _no_experts(description: DataDescription, inputs: ModelInputs) -> UserError:
    wanted = ", ".join(e.name for e in inputs.experts)
    return UserError(
        f"The data set {description.name} has none of the experts that the model takes ({wanted}): "
        f"it has {', '.join(sorted(description.experts)) or 'none'}."
    )
