"""Training batches: one video with one of its captions, drawn anew each epoch.

B videos of a batch, T tokens, D feature size, V videos of the training list. What is drawn depends
on (seed, epoch, video) alone, so that a resumed training draws what an unbroken one would have.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from data_loader.draws import epoch_permutation, item_uniform
from data_loader.store.devices import numbered, prefetch, send
from data_loader.store.views import ExpertView, TextView
from utils.errors import UserError

logger = logging.getLogger(__name__)

# Which caption, whether it loses words, and from here on which words (one stream a position).
_CAPTION_STREAM, _DROPOUT_STREAM, _WORD_STREAM = 0, 1, 2
_KEEP_WORD = 0.5


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        experts: name -> (B, D) or (B, T, D) float32, zeros where an expert is missing.
        ind: name -> (B,) float32, 1 where the expert is there and 0 where it is missing.
        text: (B, 1, T, D) float32 word features.
        text_token_mask: (B, 1) float32, the number of tokens of each caption.
        video_indices: (B,) int64 places in the training list.
        caption_indices: (B,) int64 which of the video's captions.
    """

    experts: dict[str, torch.Tensor]
    ind: dict[str, torch.Tensor]
    text: torch.Tensor
    text_token_mask: torch.Tensor
    video_indices: torch.Tensor
    caption_indices: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on a device (the indices stay on the host)."""
        device = numbered(device)
        return self if self.text.device == device else self._each(lambda x: send(x, device))

    def pinned(self) -> "Batch":
        """Return the same batch in memory from which a GPU fetches by itself."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return replace(
            self,
            experts={name: change(x) for name, x in self.experts.items()},
            ind={name: change(x) for name, x in self.ind.items()},
            text=change(self.text),
            text_token_mask=change(self.text_token_mask),
        )


@dataclass(frozen=True)
class CaptionChoice:
    """The captions that may be drawn for each training video, one after the other.

    Attributes:
        captions: (sum of choices,) which of the video's captions.
        offsets: (V + 1,) into `captions`.
    """

    captions: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def among_first(counts: np.ndarray) -> "CaptionChoice":
        """Allow the first `counts[v]` captions of each video v."""
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return CaptionChoice(np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts), offsets)

    def where(self, allowed: np.ndarray) -> "CaptionChoice":
        """Keep only the choices that are marked in `allowed`, (sum of choices,) bool."""
        kept = np.concatenate([[0], np.cumsum(allowed)])
        return CaptionChoice(self.captions[allowed], kept[self.offsets])

    def draw(self, videos: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return one caption for each video, from a uniform number in [0, 1)."""
        first = self.offsets[videos]
        count = self.offsets[videos + 1] - first
        place = np.minimum((uniform * count).astype(np.int64), count - 1)
        return self.captions[first + place]


class TrainingSet:
    """The training videos of a split. Its length is the number of batches of an epoch."""

    def __init__(
        self,
        video_ids: list[str],
        experts: list[ExpertView],
        text: TextView,
        choice: CaptionChoice,
        batch_size: int,
        text_dropout: float = 0.0,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if batch_size < 2:
            raise UserError(
                f"batch_size is {batch_size}, at least 2 is needed: the ranking loss compares "
                "each video with the others of its batch."
            )
        if len(video_ids) < 2:
            raise UserError(
                f"The training list has {len(video_ids)} videos, at least 2 are needed."
            )
        self.video_ids = video_ids
        self.batch_size = batch_size
        self._experts, self._text, self._choice = experts, text, choice
        self._text_dropout, self._seed = text_dropout, seed
        self._device = numbered(device)
        # A single video has no negative, and batch normalisation cannot take it.
        self._used = len(video_ids) - (len(video_ids) % batch_size == 1)
        if self._used < len(video_ids):
            logger.info(
                "%d videos in batches of %d leave one over: one video, another each epoch, "
                "is left out",
                len(video_ids),
                batch_size,
            )

    def __len__(self) -> int:
        return -(-self._used // self.batch_size)

    def batches(self, epoch: int, limit: int | None = None, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch on the device: those from `start` on, of the first `limit`.

        Where a device computes and the features are with the host, a thread gathers the next ones.
        """
        batches = self._gathered(epoch, limit, start)
        if self._device.type != "cpu" and not self._is_resident:
            # Pinned in that thread too: the host that launches the steps has no time for copies.
            batches = prefetch(batch.pinned() for batch in batches)
        return (batch.to(self._device) for batch in batches)

    @property
    def _is_resident(self) -> bool:
        return self._text.device == self._device and all(
            view.device == self._device for view in self._experts
        )

    def _gathered(self, epoch: int, limit: int | None, start: int) -> Iterator[Batch]:
        order = epoch_permutation(self._seed, epoch, len(self.video_ids))[: self._used]
        for number in range(start, len(self) if limit is None else min(limit, len(self))):
            videos = order[number * self.batch_size : (number + 1) * self.batch_size]
            videos = np.asarray(videos, dtype=np.int64)
            captions = self.draw_captions(epoch, videos)
            yield self.collate(videos, captions, self._draw_words(epoch, videos, captions))

    def draw_captions(self, epoch: int, videos: np.ndarray) -> np.ndarray:
        """Return which caption is drawn for each video (places in the training list)."""
        uniform = item_uniform(self._seed, epoch, videos, stream=_CAPTION_STREAM)
        return self._choice.draw(videos, uniform)

    def collate(
        self,
        video_indices: np.ndarray,
        caption_indices: np.ndarray,
        word_keep: np.ndarray | None = None,
    ) -> Batch:
        """Return the tensors of given videos with given captions, where their features lie.

        Args:
            video_indices: (B,) places in the training list.
            caption_indices: (B,) which of each video's captions.
            word_keep: (B, words) bool, the words that text dropout leaves; None keeps all.
        """
        videos = np.asarray(video_indices, dtype=np.int64)
        captions = np.asarray(caption_indices, dtype=np.int64)
        text, tokens = self._text.gather(videos, captions, word_keep)
        experts, ind = gather_experts(self._experts, videos)
        return Batch(
            experts=experts,
            ind=ind,
            text=text[:, None],
            text_token_mask=send(tokens[:, None].astype(np.float32), text.device),
            video_indices=torch.from_numpy(videos),
            caption_indices=torch.from_numpy(captions),
        )

    def _draw_words(
        self, epoch: int, videos: np.ndarray, captions: np.ndarray
    ) -> np.ndarray | None:
        """Return which words text dropout leaves, (B, words) bool.

        A caption that would lose every word keeps them all: without words there is no query.
        """
        if not self._text_dropout:
            return None
        counts = self._text.word_counts(videos, captions)
        shortened = item_uniform(self._seed, epoch, videos, stream=_DROPOUT_STREAM)
        kept = np.stack(
            [
                item_uniform(self._seed, epoch, videos, stream=_WORD_STREAM + word) < _KEEP_WORD
                for word in range(max(1, int(counts.max())))
            ],
            axis=1,
        )
        exists = np.arange(kept.shape[1]) < counts[:, None]
        whole = (shortened >= self._text_dropout) | ~(kept & exists).any(axis=1)
        return kept | whole[:, None]


def gather_experts(
    views: list[ExpertView], videos: np.ndarray
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the experts' features and availability of some videos, by name."""
    experts, ind = {}, {}
    for view in views:
        experts[view.expert.name], ind[view.expert.name] = view.gather(videos)
    return experts, ind
