"""What would stop or spoil a training on a data set, found all at once.

The loader stops at the first thing that it cannot use; this looks at everything that a description
names, by the loader's own readers and rules, and collects what is wrong with the ids it concerns.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import astuple
from pathlib import Path
from typing import TypeVar

import numpy as np

from data_loader.formats.apart import apart
from data_loader.formats.read import read_plain_mapping
from data_loader.sets.description import (
    DataDescription,
    ExpertEntry,
    ListEntry,
    SplitEntry,
    TextEntry,
)
from data_loader.sets.layout import FileFinder, TextSource, read_videos
from data_loader.sets.near_ids import near_miss
from data_loader.store.packing import (
    all_finite,
    read_captions,
    read_parts,
    read_text_source,
    rows_of,
)
from data_loader.store.word_vectors import WordCount, read_word_vectors, wanted_words
from logger.progress import progress
from misc.check_data_set.report import Finding, Report, Row
from misc.check_data_set.use import Use, usual_use
from utils.errors import UserError, short

R = TypeVar("R")
Counts = dict[str, int]
"""Video id -> number of vectors of an expert, or of words or captions; absent where missing."""


def check_data_set(
    description: DataDescription, split_names: list[str] | None = None, use: Use | None = None
) -> Report:
    """Look at everything that a description names.

    Args:
        description: the data set.
        split_names: the splits to look at; None takes those that are used, or all.
        use: what is used of it; what is wrong with the rest is a note. None: the usual.

    Raises:
        UserError: there is no split of such a name.
    """
    use = usual_use(description) if use is None else use
    chosen = split_names or [name for name in use.splits if name in description.splits]
    splits = {name: description.split(name) for name in chosen or description.splits}
    return _Check(description, splits, use).run()


class _Check:
    def __init__(
        self, description: DataDescription, splits: dict[str, SplitEntry], use: Use
    ) -> None:
        self.description, self.splits, self.use = description, splits, use
        self.finder = FileFinder(description)
        self.report = Report()
        self.lists: dict[tuple[str, str], list[str]] = {}
        self.captions: dict[str, list[str]] = {}
        self.captions_files: tuple[Path, ...] = ()
        self.known: set[str] = set()

    def run(self) -> Report:
        self._compare_use()
        for name, split in self.splits.items():
            for role, entry in (("train", split.train), ("val", split.val)):
                self.lists[name, role] = self._ids(name, role, entry)
            self._compare_lists(name)
        self._read_captions()
        experts = self._experts()
        for split_name in self.splits:
            self._compare_with_experts(split_name, experts)
        for name, entry in self.description.text_features.items():
            with self.report.as_notes(not self.use.uses_text(name)):
                self._text(name, entry)
        for name, split in self.splits.items():
            if split.test_caption_index:
                self._caption_index(name, split.test_caption_index)
        return self.report

    # --- What a config names ----------------------------------------------------------------------

    def _compare_use(self) -> None:
        """Find names of a config that the description lacks, as the loader would one by one."""
        description = self.description
        try:
            for name in self.use.splits:
                split = description.split(name)
                for expert in sorted(self.use.experts or ()):
                    description.check_expert(expert, split)
            for name in sorted(self.use.text_features or ()):
                description.text_entry(name)
        except UserError as error:
            self.report.problem("config", str(error))

    # --- Lists ------------------------------------------------------------------------------------

    def _ids(self, split: str, role: str, entry: ListEntry) -> list[str]:
        where = f'split "{split}", {role}'
        try:
            path = self.finder.find((entry.file,), "the list of videos")
            ids = read_videos(path, self.description, entry.key)
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
            self.captions, self.captions_files = read_captions(path), (path,)
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
        cause = self._cause(without, self.captions)
        self.report.problem_of_videos(where, "listed videos without captions", without, cause)

    def _caption_index(self, split: str, name: str) -> None:
        where = f'split "{split}", test_caption_index ({name})'
        try:
            path = self.finder.find((name,), "the test captions' index")
            index = read_plain_mapping(path, "caption indices")
        except UserError as error:
            self.report.problem(where, str(error))
            return
        wrong = [
            f"{key} ({short(repr(index.get(key)))})"
            for key in self.lists[split, "val"]
            if type(index.get(key)) is not int
            or not 0 <= index[key] < len(self.captions.get(key, ()))
        ]
        cause = self._cause(self.lists[split, "val"], index)
        self.report.problem_of_videos(where, "videos whose number names no caption", wrong, cause)

    # --- Experts ----------------------------------------------------------------------------------

    def _experts(self) -> dict[tuple[str, str], Counts]:
        """Return the number of vectors of each video, by expert and split ("" for all)."""
        entries = {(name, ""): entry for name, entry in self.description.experts.items()}
        for split_name, split in self.splits.items():
            entries |= {(name, split_name): entry for name, entry in split.experts.items()}
        if self.description.aggregated_experts:
            self.report.note("experts", "those whose files a config names are not looked at")
        found = {}
        for place, entry in progress(entries.items(), description="experts"):
            with self.report.as_notes(not self.use.uses_expert(place[0])):
                counts = self._expert(place[0], entry)
            if counts is not None:
                found[place] = counts
        return found

    def _expert(self, name: str, entry: ExpertEntry) -> Counts | None:
        """Return the number of vectors of each video; None where the file cannot be used."""
        where = f'expert "{name}" ({entry.files[0]})'
        try:
            paths = self.finder.find_expert(entry, name)
            ids, there = self._apart(paths, lambda: self._expert_files(where, paths, entry))
        except UserError as error:
            self.report.problem(where, str(error))
            return None
        self.known.update(ids)
        return there

    def _expert_files(
        self, where: str, paths: Iterable[Path], entry: ExpertEntry
    ) -> tuple[list[str], Counts | None]:
        """Return the videos of an expert's files, and the number of vectors of each that has it."""
        table = read_parts(paths)
        if not table:
            self.report.problem(where, "it holds no video")
            return [], None
        rows = {key: rows_of(array) for key, array in table.items()}
        self._vectors(where, rows.items(), entry.size)
        there = {
            key: len(array) if array.size else 0
            for key, array in rows.items()
            if array.size or (entry.variable_length is not False and table[key] is not None)
        }
        if entry.variable_length is False:
            several = [f"{key} {rows[key].shape}" for key, count in there.items() if count > 1]
            self.report.problem_of_videos(
                where,
                "videos with several vectors (mark the expert as variable_length, or aggregate)",
                several,
            )
        listed = set(self._listed())
        unused = [key for key in table if key not in listed]
        self.report.note_of_videos(where, "videos that no list names", unused)
        return list(table), there

    def _apart(self, sources: Iterable[Path], look: Callable[[], R]) -> R:
        """Look at files in a limited process of its own; what is reported there is added here."""
        report = self.report

        def looked() -> tuple[R, list[tuple], list[tuple]]:
            self.report = Report()
            try:
                found, told = look(), self.report
            finally:
                self.report = report
            return found, *(list(map(astuple, kind)) for kind in (told.problems, told.notes))

        found, problems, notes = apart(sources, looked)
        report.problems += [Finding(*finding) for finding in problems]
        report.notes += [Finding(*finding) for finding in notes]
        return found

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
            cause = self._cause(unknown, self.known)
            self.report.problem_of_videos(where, "videos of which no file knows", unknown, cause)
            used = [found for name, found in counts.items() if self.use.uses_expert(name)]
            bare = [key for key in ids if not any(key in found for found in used)]
            if ids and used and len(bare) == len(ids) and not self.description.aggregated_experts:
                self.report.problem(where, "no video has any of the experts")
            else:
                self.report.note_of_videos(where, "videos that have none of the experts", bare)
            for name, found in counts.items():
                missing = [key for key in ids if key not in found]
                tokens = tuple(found[key] for key in ids if key in found)
                self.report.rows.append(Row(name, split_name, role, len(ids), len(missing), tokens))
                with self.report.as_notes(not self.use.uses_expert(name)):
                    self._missing(where, name, ids, missing, found)

    def _missing(
        self, where: str, name: str, ids: list[str], missing: list[str], found: Counts
    ) -> None:
        cause = self._cause(missing, found)
        if ids and len(missing) == len(ids):
            because = f"; {cause}" if cause else ""
            self.report.problem(where, f'no video has the expert "{name}"{because}')
        else:
            what = f'videos without the expert "{name}"'
            self.report.note_of_videos(where, what, missing, cause)

    @staticmethod
    def _cause(missing: list[str], known: Collection[str]) -> str:
        """Say why ids may be missing; an empty string if it cannot be told."""
        found = near_miss(missing, known)
        return str(found) if found else ""

    # --- Text features ----------------------------------------------------------------------------

    def _text(self, name: str, entry: TextEntry) -> None:
        where = f'text features "{name}" ({entry.files[0]})'
        try:
            source = self.finder.find_text(entry, f'the text features "{name}"')
            files = (*source.files, *self.captions_files)
            words = self._apart(files, lambda: self._words_of(where, source, entry))
        except UserError as error:
            self.report.problem(where, str(error))
            return
        for (split, role), ids in self.lists.items():
            counts = tuple(count for key in ids for count in words.get(key, ()))
            without = sum(not words.get(key) for key in ids)
            self.report.rows.append(Row(name, split, role, len(ids), without, counts))

    def _words_of(self, where: str, source: TextSource, entry: TextEntry) -> dict[str, list[int]]:
        """Return the number of words of each caption, by video."""
        if entry.is_word_vectors:
            return self._looked_up(where, source.files[0], entry.size)
        return self._text_file(where, source, entry.size)

    def _text_file(self, where: str, source: TextSource, size: int | None) -> dict[str, list[int]]:
        table = read_text_source(source)
        entries = [
            (key, caption[None] if caption.ndim == 1 and caption.size else caption)
            for key, captions in table.items()
            for caption in captions
        ]
        if not any(array.size for _, array in entries):
            self.report.problem(where, "it holds no word of any caption")
            return {}
        self._vectors(where, entries, size)
        listed = self._listed()
        without = [key for key in listed if not table.get(key)]
        cause = self._cause(without, table)
        self.report.problem_of_videos(where, "listed videos without text features", without, cause)
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
        listed = [(key, text) for key in self._listed() for text in self.captions.get(key, ())]
        texts = [text for _, text in listed]
        vectors = read_word_vectors(path, wanted_words(texts))
        if size and vectors.size != size:
            self.report.problem(where, f"vectors of size {vectors.size}, not {size} as declared")
        count = WordCount()
        words: dict[str, list[int]] = {}
        for (key, _), array in zip(listed, vectors.look_up(texts, count), strict=True):
            words.setdefault(key, []).append(len(array))
        count.check("these word vectors", self.description.captions)
        unknown = [
            f"{key} (caption {number})"
            for key in words
            for number, caption in enumerate(self.captions.get(key, ()))
            if not any(form in vectors.rows for form in wanted_words([caption]))
        ]
        self.report.note_of_videos(where, "captions none of whose words is known", unknown)
        return words
