"""What would stop or spoil a training on a data set, found all at once.

The loader stops at the first thing that it cannot use; this looks at everything that a description
names, by the loader's own readers and rules, and collects what is wrong with the ids it concerns.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_loader.description import DataDescription, ExpertEntry, ListEntry, SplitEntry, TextEntry
from data_loader.errors import UserError
from data_loader.formats import (
    read_feature_file,
    read_id_list,
    read_plain_mapping,
    read_text_feature_file,
)
from data_loader.layout import FileFinder
from data_loader.packing import all_finite, read_captions, rows_of
from data_loader.word_vectors import read_word_vectors, wanted_words
from logger.progress import progress
from misc.checking.report import Finding, Report, Row

Counts = dict[str, int]
"""Video id -> number of vectors of an expert, or of words or captions; absent where missing."""


def check_data_set(description: DataDescription, split_names: list[str] | None = None) -> Report:
    """Look at everything that a description names.

    Args:
        description: the data set.
        split_names: the splits to look at; None takes all.

    Raises:
        UserError: there is no split of such a name.
    """
    chosen = split_names or list(description.splits)
    splits = {name: description.split(name) for name in chosen}
    return _Check(description, splits).run()


class _Check:
    def __init__(self, description: DataDescription, splits: dict[str, SplitEntry]) -> None:
        self.description, self.splits = description, splits
        self.finder = FileFinder(description)
        self.report = Report()
        self.lists: dict[tuple[str, str], list[str]] = {}
        self.captions: dict[str, list[str]] = {}
        self.known: set[str] = set()

    def run(self) -> Report:
        for name, split in self.splits.items():
            for role, entry in (("train", split.train), ("val", split.val)):
                self.lists[name, role] = self._ids(name, role, entry)
            self._compare_lists(name)
        self._read_captions()
        experts = self._experts()
        for split_name in self.splits:
            self._compare_with_experts(split_name, experts)
        for name, entry in self.description.text_features.items():
            self._text(name, entry)
        for name, split in self.splits.items():
            if split.test_caption_index:
                self._caption_index(name, split.test_caption_index)
        return self.report

    # --- Lists ------------------------------------------------------------------------------------

    def _ids(self, split: str, role: str, entry: ListEntry) -> list[str]:
        where = f'split "{split}", {role}'
        try:
            path = self.finder.find((entry.file,), "the list of videos")
            ids = read_id_list(path, entry.key)
        except UserError as error:
            self.report.problem(where, str(error))
            return []
        least = 2 if role == "train" else 1
        if len(ids) < least:
            self.report.problem(where, f"it has {len(ids)} videos, at least {least} are needed")
        return ids

    def _compare_lists(self, split: str) -> None:
        val = set(self.lists[split, "val"])
        both = [key for key in self.lists[split, "train"] if key in val]
        where = f'split "{split}"'
        self.report.problem_of_videos(where, "in the training list and the retrieval set", both)

    def _listed(self) -> list[str]:
        return list(dict.fromkeys(key for ids in self.lists.values() for key in ids))

    # --- Captions ---------------------------------------------------------------------------------

    def _read_captions(self) -> None:
        where = f"captions ({self.description.captions})"
        try:
            path = self.finder.find((self.description.captions,), "the raw captions")
            self.captions = read_captions(path)
        except UserError as error:
            self.report.problem(where, str(error))
            return
        self.known.update(self.captions)
        empty = [
            f"{key} (caption {number})"
            for key in self._listed()
            for number, caption in enumerate(self.captions.get(key, ()))
            if not caption.strip()
        ]
        self.report.problem_of_videos(where, "empty captions", empty)
        without = [key for key in self._listed() if not self.captions.get(key)]
        self.report.problem_of_videos(where, "listed videos without captions", without)

    def _caption_index(self, split: str, name: str) -> None:
        where = f'split "{split}", test_caption_index ({name})'
        try:
            path = self.finder.find((name,), "the test captions' index")
            index = read_plain_mapping(path, "caption indices")
        except UserError as error:
            self.report.problem(where, str(error))
            return
        wrong = [
            f"{key} ({index.get(key)!r})"
            for key in self.lists[split, "val"]
            if type(index.get(key)) is not int
            or not 0 <= index[key] < len(self.captions.get(key, ()))
        ]
        self.report.problem_of_videos(where, "videos whose number names no caption", wrong)

    # --- Experts ----------------------------------------------------------------------------------

    def _experts(self) -> dict[tuple[str, str], Counts]:
        """Return the number of vectors of each video, by expert and split ("" for all)."""
        entries = {(name, ""): entry for name, entry in self.description.experts.items()}
        for split_name, split in self.splits.items():
            entries |= {(name, split_name): entry for name, entry in split.experts.items()}
        if self.description.aggregated_experts:
            self.report.notes.append(
                Finding("experts", "those whose files a config names are not looked at")
            )
        return {
            place: self._expert(place[0], entry)
            for place, entry in progress(entries.items(), description="experts")
        }

    def _expert(self, name: str, entry: ExpertEntry) -> Counts:
        where = f'expert "{name}" ({entry.files[0]})'
        try:
            path = self.finder.find(entry.files, f'the expert "{name}"')
            table = read_feature_file(path)
        except UserError as error:
            self.report.problem(where, str(error))
            return {}
        self.known.update(table)
        rows = {key: rows_of(array) for key, array in table.items()}
        self._vectors(where, rows.items(), entry.size)
        there = {
            key: len(array) if array.size else 0
            for key, array in rows.items()
            if array.size or (entry.variable_length and table[key] is not None)
        }
        if not entry.variable_length:
            several = [f"{key} {rows[key].shape}" for key, count in there.items() if count > 1]
            self.report.problem_of_videos(
                where,
                "videos with several vectors (mark the expert as variable_length, or aggregate)",
                several,
            )
        listed = set(self._listed())
        unused = [key for key in table if key not in listed]
        self.report.note_of_videos(where, "videos that no list names", unused)
        return there

    def _vectors(
        self, where: str, entries: Iterable[tuple[str, np.ndarray]], size: int | None
    ) -> None:
        """Look at the size and the values of all vectors."""
        present = [(key, array) for key, array in entries if array.size]
        if not present and size is None:
            self.report.problem(where, "it is missing for every video of the file")
            return
        sizes = Counter(array.shape[-1] for _, array in present)
        size = size or sizes.most_common(1)[0][0]
        wrong = {
            f"{key} {array.shape}"
            for key, array in present
            if array.ndim != 2 or array.shape[-1] != size
        }
        self.report.problem_of_videos(
            where, f"arrays of another shape than vectors of size {size}", sorted(wrong)
        )
        sick = dict.fromkeys(key for key, array in present if not all_finite(array))
        self.report.problem_of_videos(where, "videos with a non-finite value", sick)

    def _compare_with_experts(
        self, split_name: str, experts: dict[tuple[str, str], Counts]
    ) -> None:
        replaced = self.splits[split_name].experts
        counts = {
            name: found
            for (name, split), found in experts.items()
            if split == split_name or (split == "" and name not in replaced)
        }
        for role in ("train", "val"):
            ids = self.lists[split_name, role]
            where = f'split "{split_name}", {role}'
            unknown = [key for key in ids if key not in self.known]
            self.report.problem_of_videos(where, "videos of which no file knows", unknown)
            bare = [key for key in ids if not any(key in found for found in counts.values())]
            self.report.note_of_videos(where, "videos that have none of the experts", bare)
            for name, found in counts.items():
                missing = [key for key in ids if key not in found]
                tokens = tuple(found[key] for key in ids if key in found)
                self.report.rows.append(Row(name, split_name, role, len(ids), len(missing), tokens))
                what = f'videos without the expert "{name}"'
                if ids and len(missing) == len(ids):
                    self.report.problem(where, f'no video has the expert "{name}"')
                else:
                    self.report.note_of_videos(where, what, missing)

    # --- Text features ----------------------------------------------------------------------------

    def _text(self, name: str, entry: TextEntry) -> None:
        where = f'text features "{name}" ({entry.files[0]})'
        try:
            path = self.finder.find(entry.files, f'the text features "{name}"')
            if entry.is_word_vectors:
                words = self._looked_up(where, path, entry.size)
            else:
                words = self._text_file(where, path, entry.size)
        except UserError as error:
            self.report.problem(where, str(error))
            return
        for (split, role), ids in self.lists.items():
            counts = tuple(count for key in ids for count in words.get(key, ()))
            without = sum(not words.get(key) for key in ids)
            self.report.rows.append(Row(name, split, role, len(ids), without, counts))

    def _text_file(self, where: str, path: Path, size: int | None) -> dict[str, list[int]]:
        table = read_text_feature_file(path)
        entries = [
            (key, caption[None] if caption.ndim == 1 and caption.size else caption)
            for key, captions in table.items()
            for caption in captions
        ]
        self._vectors(where, entries, size)
        listed = self._listed()
        without = [key for key in listed if not table.get(key)]
        self.report.problem_of_videos(where, "listed videos without text features", without)
        other = [
            f"{key} ({len(table[key])} for {len(self.captions.get(key, ()))} captions)"
            for key in listed
            if table.get(key) and len(table[key]) != len(self.captions.get(key, ()))
        ]
        self.report.problem_of_videos(
            where, "videos whose number of captions differs from the raw captions", other
        )
        return {
            key: [len(caption) if caption.size else 0 for caption in captions]
            for key, captions in table.items()
        }

    def _looked_up(self, where: str, path: Path, size: int | None) -> dict[str, list[int]]:
        vectors = read_word_vectors(path)
        if size and vectors.size != size:
            self.report.problem(where, f"vectors of size {vectors.size}, not {size} as declared")
        words = {
            key: [len(array) for array in vectors.look_up(self.captions.get(key, ()))]
            for key in self._listed()
        }
        unknown = [
            f"{key} (caption {number})"
            for key in words
            for number, caption in enumerate(self.captions.get(key, ()))
            if not any(form in vectors.rows for form in wanted_words([caption]))
        ]
        self.report.note_of_videos(where, "captions none of whose words is known", unknown)
        return words
