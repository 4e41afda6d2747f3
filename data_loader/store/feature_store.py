"""The feature store: a data set's experts, text features and captions as a few large arrays.

Everything is packed once and mapped afterwards, see `packed.py`. A list of videos sees it through
views, which gather by index on the device where the arrays lie.

N videos of a file, V of a list, B samples that are gathered, T tokens, D feature size.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loader.sets.declared import Expert, declared_text_size
from data_loader.sets.description import TextEntry
from data_loader.sets.layout import ExpertSource, FileFinder
from data_loader.sets.near_ids import hint
from data_loader.store.packed import MappedPages, Packed, load_or_make
from data_loader.store.packing import (
    captions_recipe,
    expert_recipe,
    text_recipe,
    word_vector_recipe,
)
from utils.errors import UserError
from utils.files import exists, read_json

logger = logging.getLogger(__name__)

# Features may take this share of a device's free memory; the rest is for model and activations.
RESIDENT_SHARE = 0.5


def fits_on(device: torch.device, tensors: Iterable[Tensor]) -> bool:
    """Whether a GPU has room for all of some tensors beside a model; never for the CPU."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return sum(values.nbytes for values in tensors) <= RESIDENT_SHARE * free


def send(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """Bring host values to a device without waiting until they are there.

    What the device computes with them comes after them in any case; the host goes on at once.
    """
    tensor = torch.as_tensor(values)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)


def numbered(device: str | torch.device) -> torch.device:
    """Return a device as tensors name it that lie there: "cuda" alone is the current GPU."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


class VideoIndex:
    """Where each video stands in the arrays of a packed file.

    Attributes:
        row_of: video id -> its row.
    """

    def __init__(self, packed: Packed) -> None:
        self.row_of: dict[str, int] = {key: row for row, key in enumerate(packed.facts["ids"])}
        self._caption_offsets = packed.arrays.get("caption_offsets")

    def rows(self, video_ids: list[str]) -> np.ndarray:
        """Return each video's row, (V,), -1 for one that is unknown."""
        return np.array([self.row_of.get(key, -1) for key in video_ids], dtype=np.int64)

    def captions(self, video_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return each video's first caption and its number of captions, (V,), 0 if unknown."""
        assert self._caption_offsets is not None, "the file holds captions"
        rows = self.rows(video_ids)
        first = np.asarray(self._caption_offsets[rows])
        return first, np.where(rows >= 0, self._caption_offsets[rows + 1] - first, 0)


class PackedFeatures:
    """Vectors of all videos of a file, under one another.

    Attributes:
        index: finds the videos.
        values: (rows, D) float32 or float16.
        pages: of `values`.
        size: D.
    """

    def __init__(self, packed: Packed) -> None:
        self.index = VideoIndex(packed)
        self.values = torch.from_numpy(packed.arrays["values"])
        self.pages = MappedPages(packed.arrays["values"])
        self.size = self.values.shape[1]


class ExpertFeatures(PackedFeatures):
    """One expert's features: a row for each video, zeros if missing, or runs of tokens.

    Attributes:
        source: the files, and what is declared about them.
        offsets: (N + 1,) into the tokens, None for a fixed size.
        available: (N,) bool.
    """

    def __init__(self, source: ExpertSource, packed: Packed) -> None:
        super().__init__(packed)
        self.source = source
        self.offsets = packed.arrays.get("offsets")
        self.available = packed.arrays["available"]

    @property
    def ids(self) -> list[str]:
        """The videos that have this expert."""
        return [key for key, row in self.index.row_of.items() if self.available[row]]

    def rows(self, video_ids: list[str]) -> np.ndarray:
        """Return each video's row, -1 where this expert is missing."""
        rows = self.index.rows(video_ids)
        found = rows >= 0
        rows[found] = np.where(self.available[rows[found]], rows[found], -1)
        return rows


class TextFeatures(PackedFeatures):
    """Word features of all captions.

    Attributes:
        name: what the description calls them.
        offsets: (captions + 1,) into the words.
    """

    def __init__(self, name: str, packed: Packed) -> None:
        super().__init__(packed)
        self.name = name
        self.offsets = packed.arrays["offsets"]


class RawCaptions:
    """The captions as people wrote them, decoded when asked for."""

    def __init__(self, packed: Packed) -> None:
        self.index = VideoIndex(packed)
        self._text, self._offsets = packed.arrays["text"], packed.arrays["offsets"]

    def of(self, video_id: str) -> list[str]:
        """Return all captions of a video, an empty list if it has none."""
        [first], [count] = self.index.captions([video_id])
        ends = self._offsets[first : first + count + 1].tolist()
        return [self._text[a:b].tobytes().decode("utf-8") for a, b in itertools.pairwise(ends)]


class ExpertView:
    """One expert for the videos of one list."""

    def __init__(self, features: ExpertFeatures, expert: Expert, video_ids: list[str]) -> None:
        self.expert, self.features = expert, features
        self._rows = features.rows(video_ids)
        self.availability = (self._rows >= 0).astype(np.float32)
        if features.offsets is not None:
            rows = np.maximum(self._rows, 0)
            starts, stops = features.offsets[rows], features.offsets[rows + 1]
            self._starts = np.asarray(starts)
            self._counts = np.where(self._rows >= 0, stops - starts, 0)

    def gather(self, videos: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the features of videos, (B, D) or (B, T, D), and their availability (B,)."""
        available = send(self.availability[videos], self.features.values.device)
        if self.expert.variable_length:
            starts, counts = self._starts[videos], self._counts[videos]
            width = self.expert.max_tokens
            features, counts = gather_tokens(self.features.values, starts, counts, width)
            self.features.pages.were_read(int(counts.sum()))
        else:
            features = gather_rows(self.features.values, self._rows[videos])
            self.features.pages.were_read(len(videos))
        if self.features.source.binarise:
            # The published system fills the whole padded array, so padding counts as present.
            is_there = available.view(-1, *[1] * (features.dim() - 1)) > 0
            features = features.masked_fill(is_there, 1.0)
        return features, available

    def log(self, role: str) -> None:
        """Log how many videos have this expert, and how many tokens."""
        missing = int((self._rows < 0).sum())
        line = f"{role}: {self.expert.name}: {len(self._rows)} videos, {missing} missing"
        if self.expert.variable_length and missing < len(self._rows):
            counts = self._counts[self._rows >= 0]
            line += f", tokens {counts.min()} / {counts.mean():.1f} / {counts.max()} (min/mean/max)"
            line += f", cut to {self.expert.max_tokens}"
        logger.info("%s", line)


class TextView:
    """The captions' word features for the videos of one list.

    Args:
        features: word features of all captions.
        video_ids: the list.
        max_tokens: words of a caption that are kept.
        fuse: join all captions of a video to one.
        average: give the mean of a caption's words.
        first_captions: use so many captions of a video, the first ones; 0 uses all.
        where: what messages call the list.

    Attributes:
        caption_counts: (V,) number of captions of each video.
        max_tokens: T, 1 if the words are averaged.

    Raises:
        UserError: a video has no captions.
    """

    def __init__(
        self,
        features: TextFeatures,
        video_ids: list[str],
        max_tokens: int,
        fuse: bool = False,
        average: bool = False,
        first_captions: int = 0,
        where: str = "the split",
    ) -> None:
        self.features, self._fuse, self._average = features, fuse, average
        self._offsets = np.asarray(features.offsets)
        self._first, self.caption_counts = features.index.captions(video_ids)
        self._check_captions(video_ids, where)
        if first_captions:
            self.caption_counts = np.minimum(self.caption_counts, first_captions)
        self.max_tokens = 1 if average else max_tokens

    def _check_captions(self, video_ids: list[str], where: str) -> None:
        bare = [video_ids[at] for at in np.flatnonzero(self.caption_counts == 0)]
        if bare:
            raise UserError(
                f"{len(bare)} videos of {where} have no captions in the text features "
                f'"{self.features.name}" (the first is "{bare[0]}"): add them, or take the videos '
                f"out of the list{hint(bare, self.features.index.row_of.keys())}."
            )

    @property
    def queries_per_video(self) -> np.ndarray:
        """(V,) number of captions to choose from: one where all are fused."""
        return np.ones_like(self.caption_counts) if self._fuse else self.caption_counts

    def word_counts(self, videos: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """Return the number of words of each caption before any cut, (B,)."""
        return self._spans(videos, captions)[1]

    def gather(
        self, videos: np.ndarray, captions: np.ndarray, keep: np.ndarray | None = None
    ) -> tuple[Tensor, np.ndarray]:
        """Return the words of one caption for each video.

        Args:
            videos: (B,) places in the list.
            captions: (B,) which caption of the video, ignored where captions are fused; -1 for
                none, which gives zeros.
            keep: (B, words) bool, words that are kept; None keeps all.

        Returns:
            (B, T, D) float32 and the (B,) number of tokens in it.
        """
        starts, counts = self._spans(videos, captions)
        width = max(1, int(counts.max(initial=0))) if self._average else self.max_tokens
        words, counts = gather_tokens(self.features.values, starts, counts, width, keep)
        self.features.pages.were_read(int(counts.sum()))
        if not self._average:
            return words, counts
        divisor = send(np.maximum(counts, 1), words.device)
        return words.sum(dim=1, keepdim=True) / divisor[:, None, None], np.minimum(counts, 1)

    def _spans(self, videos: np.ndarray, captions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = self._first[videos]
        if self._fuse:
            begin, end = first, first + self.caption_counts[videos]
        else:
            begin = first + np.maximum(captions, 0)
            end = begin + 1
        starts = self._offsets[begin]
        return starts, np.where(captions >= 0, self._offsets[end] - starts, 0)

    def log(self, role: str) -> None:
        """Log how many captions there are, and how many words."""
        queries = self.queries_per_video
        videos = np.repeat(np.arange(len(queries)), queries)
        captions = np.arange(len(videos)) - np.repeat(np.cumsum(queries) - queries, queries)
        words = self.word_counts(videos, captions)
        logger.info(
            "%s: text: %d videos, %d captions, words %d / %.1f / %d (min/mean/max), cut to %d",
            role,
            len(self.caption_counts),
            len(words),
            words.min(),
            words.mean(),
            words.max(),
            self.max_tokens,
        )


def gather_rows(values: Tensor, rows: np.ndarray) -> Tensor:
    """Return `values[rows]` as (B, D) float32; a row of -1 gives zeros."""
    present = np.flatnonzero(rows >= 0)
    result = values.new_zeros((len(rows), values.shape[1]), dtype=torch.float32)
    return _copy_rows(values, rows[present], result, present)


def gather_tokens(
    values: Tensor,
    starts: np.ndarray,
    counts: np.ndarray,
    width: int,
    keep: np.ndarray | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Cut or zero-pad runs of rows to `width` tokens.

    Args:
        values: (rows, D), all tokens under one another.
        starts: (B,) first row of each sample.
        counts: (B,) number of its rows.
        width: T.
        keep: (B, at least max(counts)) bool, tokens that are kept before cutting; None keeps all.

    Returns:
        (B, T, D) float32 and the (B,) number of tokens that are in it.
    """
    if keep is None:
        steps = np.arange(width)
        position = np.broadcast_to(steps, (len(starts), width))
        counts = np.minimum(counts, width)
    else:
        longest = int(counts.max(initial=0))
        kept = keep[:, :longest] & (np.arange(longest) < counts[:, None])
        # A stable sort brings the kept tokens to the front without changing their order.
        position = np.argsort(~kept, axis=1, kind="stable")[:, :width]
        steps = np.arange(position.shape[1])
        counts = np.minimum(kept.sum(axis=1), width)
    valid = steps < counts[:, None]
    index = (starts[:, None] + position)[valid]
    filled = np.zeros((len(starts), width), dtype=bool)
    filled[:, : valid.shape[1]] = valid
    result = values.new_zeros((len(starts) * width, values.shape[1]), dtype=torch.float32)
    _copy_rows(values, index, result, np.flatnonzero(filled))
    return result.view(len(starts), width, values.shape[1]), counts


def _copy_rows(values: Tensor, rows: np.ndarray, result: Tensor, places: np.ndarray) -> Tensor:
    """Copy `values[rows]` to `result[places]`, on the device where both lie."""
    chosen = values.index_select(0, send(rows, values.device)).float()
    return result.index_copy_(0, send(places, values.device), chosen)


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

    def text_encoder(self, name: str) -> dict[str, Any]:
        """Return what made text features, so that new captions can be encoded in the same way.

        It stands in the description, or in the record beside a file of
        `misc.prepare_text_embeddings`; of word vectors the name of their file is enough. Empty
        where it is not known.
        """
        entry: TextEntry = self.finder.description.text_entry(name)
        if entry.encoder:
            return entry.encoder
        path = self.finder.find_text(entry, f'the text features "{name}"').files[0]
        if entry.is_word_vectors:
            return {"kind": "word vectors", "file": path.name}
        record = path.with_name(f"{path.name}.json")
        told = read_json(record, "record") if exists(record) else None
        encoder = told.get("encoder") if isinstance(told, dict) else None
        return encoder if isinstance(encoder, dict) else {}

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
