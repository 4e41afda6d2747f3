"""The feature store: a data set's experts, text features and captions as a few large arrays.

N videos, D feature size. Everything is packed once and memory-mapped afterwards, see `packed.py`.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch

from data_loader.sets.description import TextEntry
from data_loader.sets.layout import ExpertSource, FileFinder, declared_text_size
from data_loader.sets.near_ids import hint
from data_loader.store.packed import MappedPages, Packed, load_or_make
from data_loader.store.packing import (
    captions_recipe,
    expert_recipe,
    text_recipe,
    word_vector_recipe,
)
from utils.errors import UserError


class ExpertFeatures:
    """One expert's features for all videos of its file.

    Attributes:
        source: the files, and what is declared about them.
        variable_length: whether a video has a varying number of tokens.
        size: D.
        values: (N, D), zeros for missing videos, or (sum of tokens, D); float32 or float16.
        offsets: (N + 1,) into the tokens, None for a fixed size.
        available: (N,) bool.
        pages: of `values`.
    """

    def __init__(self, source: ExpertSource, packed: Packed) -> None:
        self.source = source
        self.variable_length = source.variable_length
        self.values = torch.from_numpy(packed.arrays["values"])
        self.pages = MappedPages(packed.arrays["values"])
        self.offsets = packed.arrays.get("offsets")
        self.available = packed.arrays["available"]
        self.size = self.values.shape[1]
        self._row_of = {key: row for row, key in enumerate(packed.facts["ids"])}

    @property
    def ids(self) -> list[str]:
        """The videos that have this expert."""
        return [key for key, row in self._row_of.items() if self.available[row]]

    def rows(self, video_ids: list[str]) -> np.ndarray:
        """Return each video's row, -1 where this expert is missing."""
        rows = np.array([self._row_of.get(key, -1) for key in video_ids], dtype=np.int64)
        found = rows >= 0
        rows[found] = np.where(self.available[rows[found]], rows[found], -1)
        return rows


class TextFeatures:
    """Word features of all captions.

    Attributes:
        values: (sum of words, D) float32 or float16.
        offsets: (captions + 1,) into the words.
        caption_offsets: (N + 1,) into the captions.
        size: D.
        pages: of `values`.
    """

    def __init__(self, name: str, packed: Packed) -> None:
        self.name = name
        self.values = torch.from_numpy(packed.arrays["values"])
        self.pages = MappedPages(packed.arrays["values"])
        self.offsets = packed.arrays["offsets"]
        self.caption_offsets = packed.arrays["caption_offsets"]
        self.size = self.values.shape[1]
        self._row_of = {key: row for row, key in enumerate(packed.facts["ids"])}

    def caption_ranges(
        self, video_ids: list[str], where: str = "the split"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return each video's first caption and its number of captions, (N,) each.

        Messages say that the videos are those of `where`.

        Raises:
            UserError: a video has no captions.
        """
        rows = np.array([self._row_of.get(key, -1) for key in video_ids], dtype=np.int64)
        first = self.caption_offsets[rows]
        counts = np.where(rows >= 0, self.caption_offsets[rows + 1] - first, 0)
        if len(rows) and not counts.all():
            bare = [video_ids[at] for at in np.flatnonzero(counts == 0)]
            raise UserError(
                f"{len(bare)} videos of {where} have no captions in the text features "
                f'"{self.name}" (the first is "{bare[0]}"): add them, or take the videos out of '
                f"the list{hint(bare, self._row_of.keys())}."
            )
        return np.asarray(first), counts


class RawCaptions:
    """The captions as people wrote them, decoded when asked for."""

    def __init__(self, packed: Packed) -> None:
        self._text = packed.arrays["text"]
        self._offsets = packed.arrays["offsets"]
        self._caption_offsets = packed.arrays["caption_offsets"]
        self._row_of = {key: row for row, key in enumerate(packed.facts["ids"])}

    def counts(self, video_ids: list[str]) -> np.ndarray:
        """Return the number of captions of each video, 0 for one that is unknown."""
        rows = np.array([self._row_of.get(key, -1) for key in video_ids], dtype=np.int64)
        counts = self._caption_offsets[rows + 1] - self._caption_offsets[rows]
        return np.where(rows >= 0, counts, 0)

    @property
    def ids(self) -> list[str]:
        """The videos that have captions."""
        return list(self._row_of)

    def of(self, video_id: str) -> list[str]:
        """Return all captions of a video, an empty list if it has none."""
        row = self._row_of.get(video_id)
        if row is None:
            return []
        captions = range(self._caption_offsets[row], self._caption_offsets[row + 1])
        return [self._decode(self._offsets[at], self._offsets[at + 1]) for at in captions]

    def _decode(self, start: int, stop: int) -> str:
        return self._text[start:stop].tobytes().decode("utf-8")


class FeatureStore:
    """Loads the parts of one data set, through packed files in its folder.

    Args:
        finder: finds the files of the data set.
        cache_dir: folder of the packed files. By default `.cache` in the data set's folder, or,
            where that cannot be written, a folder of its own under `$XDG_CACHE_HOME` (`~/.cache`).
    """

    def __init__(self, finder: FileFinder, cache_dir: str | Path | None = None) -> None:
        self.finder = finder
        self.folders = _cache_folders(finder.description.root, cache_dir)

    def expert(self, source: ExpertSource) -> ExpertFeatures:
        """Load an expert.

        Raises:
            UserError: a file cannot be used, or its content is not what was declared.
        """
        return ExpertFeatures(source, load_or_make(expert_recipe(source), self.folders))

    def text(self, name: str, size: int | None) -> TextFeatures:
        """Load text features by name; `size` is what the config declares, if it does.

        Raises:
            UserError: they are unknown, a file cannot be used, or the size differs.
        """
        description = self.finder.description
        entry: TextEntry = description.text_entry(name)
        source = self.finder.find_text(entry, f'the text features "{name}"')
        size = declared_text_size(name, description, size)
        if entry.is_word_vectors:
            captions = self._captions_path()
            recipe = word_vector_recipe(name, source.files[0], captions, size, description.name)
        else:
            recipe = text_recipe(name, source, size, description.name)
        return TextFeatures(name, load_or_make(recipe, self.folders))

    def captions(self) -> RawCaptions:
        """Load the raw captions."""
        return RawCaptions(load_or_make(captions_recipe(self._captions_path()), self.folders))

    def _captions_path(self) -> Path:
        return self.finder.find((self.finder.description.captions,), "the raw captions")


def _cache_folders(root: Path, cache_dir: str | Path | None) -> list[Path]:
    if cache_dir:
        return [Path(cache_dir)]
    base = _user_cache()
    if base is None:
        return [root / ".cache"]
    own = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    return [root / ".cache", base / "text-video-retrieval" / f"{root.name}-{own}"]


def _user_cache() -> Path | None:
    """Return the user's folder for caches, None where the environment names none."""
    # A relative path counts as none, by the XDG specification.
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".cache" if home.is_absolute() else None
