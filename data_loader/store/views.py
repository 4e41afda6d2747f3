"""The experts and captions of one list of videos, ready to be gathered by index.

B samples, T tokens, D feature size, V videos of the list.
"""

import logging

import numpy as np
import torch

from data_loader.sets.declared import Expert
from data_loader.store.devices import send
from data_loader.store.feature_store import ExpertFeatures, TextFeatures

logger = logging.getLogger(__name__)


class ExpertView:
    """One expert for the videos of one list."""

    def __init__(self, features: ExpertFeatures, expert: Expert, video_ids: list[str]) -> None:
        self.expert = expert
        self._values, self._pages = features.values, features.pages
        self._binarise = features.source.binarise
        self._rows = features.rows(video_ids)
        self.availability = (self._rows >= 0).astype(np.float32)
        if features.offsets is not None:
            rows = np.maximum(self._rows, 0)
            starts, stops = features.offsets[rows], features.offsets[rows + 1]
            self._starts = np.asarray(starts)
            self._counts = np.where(self._rows >= 0, stops - starts, 0)

    @property
    def device(self) -> torch.device:
        """Where the features lie, and what is gathered of them."""
        return self._values.device

    def gather(self, videos: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features of videos, (B, D) or (B, T, D), and their availability (B,)."""
        available = send(self.availability[videos], self._values.device)
        if self.expert.variable_length:
            starts, counts = self._starts[videos], self._counts[videos]
            width = self.expert.max_tokens
            features, counts = gather_tokens(self._values, starts, counts, width)
            self._pages.were_read(int(counts.sum()))
        else:
            features = gather_rows(self._values, self._rows[videos])
            self._pages.were_read(len(videos))
        if self._binarise:
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

    Attributes:
        caption_counts: (V,) number of captions of each video.
        max_tokens: T, 1 if the words are averaged.
        size: D.
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
        self._values, self._pages = features.values, features.pages
        self._offsets = np.asarray(features.offsets)
        self._fuse, self._average = fuse, average
        self._first, self.caption_counts = features.caption_ranges(video_ids, where)
        if first_captions:
            self.caption_counts = np.minimum(self.caption_counts, first_captions)
        self.max_tokens = 1 if average else max_tokens
        self.size = features.size

    @property
    def device(self) -> torch.device:
        """Where the word features lie, and what is gathered of them."""
        return self._values.device

    @property
    def queries_per_video(self) -> np.ndarray:
        """(V,) number of captions to choose from: one where all are fused."""
        return np.ones_like(self.caption_counts) if self._fuse else self.caption_counts

    def word_counts(self, videos: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """Return the number of words of each caption before any cut, (B,)."""
        return self._spans(videos, captions)[1]

    def gather(
        self, videos: np.ndarray, captions: np.ndarray, keep: np.ndarray | None = None
    ) -> tuple[torch.Tensor, np.ndarray]:
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
        words, counts = gather_tokens(self._values, starts, counts, width, keep)
        self._pages.were_read(int(counts.sum()))
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


def gather_rows(values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Return `values[rows]` as (B, D) float32; a row of -1 gives zeros."""
    present = np.flatnonzero(rows >= 0)
    result = values.new_zeros((len(rows), values.shape[1]), dtype=torch.float32)
    return _copy_rows(values, rows[present], result, present)


def gather_tokens(
    values: torch.Tensor,
    starts: np.ndarray,
    counts: np.ndarray,
    width: int,
    keep: np.ndarray | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
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
    return result.view(len(starts), width, -1), counts


def _copy_rows(
    values: torch.Tensor, rows: np.ndarray, result: torch.Tensor, places: np.ndarray
) -> torch.Tensor:
    """Copy `values[rows]` to `result[places]`, on the device where both lie."""
    chosen = values.index_select(0, send(rows, values.device)).float()
    return result.index_copy_(0, send(places, values.device), chosen)
