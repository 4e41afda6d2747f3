"""Training batches: one video with one of its captions, drawn anew each epoch.

Draws have no state: each depends on (seed, epoch, video) alone, whatever the batch, the order or
the process, so that a training that goes on after a kill draws what an unbroken one would have.

B videos of a batch, T tokens, D feature size, V videos of the training list.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

from data_loader.store.feature_store import ExpertView, TextView, numbered, send
from utils.errors import UserError

logger = logging.getLogger(__name__)

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_PERMUTATION = 0x7065726D  # sets this use of a seed apart from others
# Which caption, whether it loses words, and from here on which words (one stream a position).
_CAPTION_STREAM, _DROPOUT_STREAM, _WORD_STREAM = 0, 1, 2
_KEEP_WORD = 0.5


@dataclass(frozen=True)
class Whole:
    """The batch of which several processes have a part each.

    Attributes:
        video_indices, caption_indices: as those of a `Batch`, of all B videos.
        shares: for each process, its rows of the whole, see `shares_of`.
        process: the one that has this part.
    """

    video_indices: torch.Tensor
    caption_indices: torch.Tensor
    shares: list[list[slice]]
    process: int

    @property
    def own_rows(self) -> np.ndarray:
        """The rows of this process, in their order."""
        return _rows_of(self.shares[self.process])

    @property
    def sizes(self) -> list[int]:
        """How many rows each process has."""
        return [sum(rows.stop - rows.start for rows in share) for share in self.shares]

    @property
    def places(self) -> torch.Tensor | None:
        """Where each row of the whole lies among the rows of one process after the other.

        None where it lies in its own place.
        """
        rows = np.concatenate([_rows_of(share) for share in self.shares])
        if (rows[1:] > rows[:-1]).all():
            return None
        return torch.from_numpy(np.argsort(rows))

    def part(self, number: int) -> "Whole":
        """Return one of the parts in which it goes through the model, as a whole."""
        shares = [share[number] for share in self.shares]
        first, last = min(s.start for s in shares), max(s.stop for s in shares)
        return Whole(
            self.video_indices[first:last],
            self.caption_indices[first:last],
            [[slice(rows.start - first, rows.stop - first)] for rows in shares],
            self.process,
        )


def _rows_of(share: list[slice]) -> np.ndarray:
    return np.concatenate([np.arange(rows.start, rows.stop) for rows in share])


def shares_of(size: int, processes: int, parts: int = 1) -> list[list[slice]]:
    """Share a batch out among processes, each of the parts in which it goes through the model.

    Nobody gets a single row, which batch normalisation cannot take: some processes get none then.

    Returns:
        For each process, its rows of each part; those of a part are consecutive.
    """
    shares: list[list[slice]] = [[] for _ in range(processes)]
    for part in split_rows(size, parts):
        own = split_rows(part.stop - part.start, processes)
        own += [slice(0, 0)] * (processes - len(own))
        for share, rows in zip(shares, own, strict=True):
            share.append(slice(part.start + rows.start, part.start + rows.stop))
    return shares


def split_rows(size: int, count: int) -> list[slice]:
    """Split rows into `count` parts of nearly one size, fewer where one would be of one row."""
    count = max(1, min(count, size // 2))
    edges = [size * part // count for part in range(count + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


@dataclass(frozen=True)
class Batch:
    """One training batch, or the part of it that one process has.

    Attributes:
        experts: name -> (B, D) or (B, T, D) float32, zeros where an expert is missing.
        ind: name -> (B,) float32, 1 where the expert is there and 0 where it is missing.
        text: (B, 1, T, D) float32 word features.
        text_token_mask: (B, 1) float32, the number of tokens of each caption.
        video_indices: (B,) int64 places in the training list.
        caption_indices: (B,) int64 which of the video's captions; (B, C) where a step takes
            several, and `text` and its mask have C in place of 1.
        whole: the batch of which this is the part of one process; None: it is a whole batch.
    """

    experts: dict[str, torch.Tensor]
    ind: dict[str, torch.Tensor]
    text: torch.Tensor
    text_token_mask: torch.Tensor
    video_indices: torch.Tensor
    caption_indices: torch.Tensor
    whole: Whole | None = None

    @property
    def compared(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the videos, and of their captions, that are compared with one another."""
        of = self.whole or self
        return of.video_indices, of.caption_indices

    def with_caption(self, place: int) -> "Batch":
        """Return the same batch with one of the C captions of each video."""
        if self.caption_indices.dim() == 1:
            return self
        one = slice(place, place + 1)
        whole = self.whole
        return replace(
            self,
            text=self.text[:, one],
            text_token_mask=self.text_token_mask[:, one],
            caption_indices=self.caption_indices[:, place],
            whole=whole and replace(whole, caption_indices=whole.caption_indices[:, place]),
        )

    def rows(self, rows: slice) -> "Batch":
        """Return some of its rows as a batch."""
        return replace(
            self._each(lambda x: x[rows]),
            video_indices=self.video_indices[rows],
            caption_indices=self.caption_indices[rows],
        )

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
        return self.draw_several(videos, uniform, 1)[:, 0]

    def draw_several(self, videos: np.ndarray, uniform: np.ndarray, count: int) -> np.ndarray:
        """Return (B, count) captions for each video: the drawn one, and those that follow it.

        After its last one a video begins with its first again.
        """
        first = self.offsets[videos]
        available = self.offsets[videos + 1] - first
        drawn = np.minimum((uniform * available).astype(np.int64), available - 1)
        places = (drawn[:, None] + np.arange(count)) % available[:, None]
        return self.captions[first[:, None] + places]


class TrainingSet:
    """The training videos of a split. Its length is the number of batches of an epoch.

    Attributes:
        video_ids: V ids.
        batch_size: B, of all batches but perhaps the last.
        captions_per_video: C.
        device: where batches go.
        process, processes, parts: which process this is, of how many that share each batch (0: it
            is not shared), and the parts in which it goes through the model (see `shares_of`).
    """

    process, processes, parts = 0, 0, 1

    def __init__(
        self,
        video_ids: list[str],
        experts: list[ExpertView],
        text: TextView,
        choice: CaptionChoice,
        batch_size: int,
        text_dropout: float = 0.0,
        captions_per_video: int = 1,
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
        self.captions_per_video = captions_per_video
        self.device = numbered(device)
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
        if self.device.type != "cpu" and not self._is_resident:
            # Pinned in that thread too: the host that launches the steps has no time for copies.
            is_fetched = self.device.type == "cuda"
            batches = prefetch(batch.pinned() if is_fetched else batch for batch in batches)
        return (batch.to(self.device) for batch in batches)

    @property
    def _is_resident(self) -> bool:
        views: list[ExpertView | TextView] = [self._text, *self._experts]
        return all(view.features.values.device == self.device for view in views)

    def _gathered(self, epoch: int, limit: int | None, start: int) -> Iterator[Batch]:
        order = epoch_permutation(self._seed, epoch, len(self.video_ids))[: self._used]
        for number in range(start, len(self) if limit is None else min(limit, len(self))):
            videos = order[number * self.batch_size : (number + 1) * self.batch_size]
            videos = np.asarray(videos, dtype=np.int64)
            captions = self.draw_captions(epoch, videos)
            if not self.processes:
                yield self.collate(videos, captions, self._draw_words(epoch, videos, captions))
                continue
            shares = shares_of(len(videos), self.processes, self.parts)
            indices = torch.from_numpy(videos), torch.from_numpy(captions)
            whole = Whole(*indices, shares, self.process)
            videos, captions = videos[whole.own_rows], captions[whole.own_rows]
            batch = self.collate(videos, captions, self._draw_words(epoch, videos, captions))
            yield replace(batch, whole=whole)

    def draw_captions(self, epoch: int, videos: np.ndarray) -> np.ndarray:
        """Return which caption is drawn for each video (places in the training list), (B,).

        With several captions a video in a step, (B, C).
        """
        uniform = item_uniform(self._seed, epoch, videos, stream=_CAPTION_STREAM)
        if self.captions_per_video > 1:
            return self._choice.draw_several(videos, uniform, self.captions_per_video)
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
            caption_indices: (B,) which of each video's captions, or (B, C).
            word_keep: (B C, words) bool, the words that text dropout leaves; None keeps all.
        """
        videos = np.asarray(video_indices, dtype=np.int64)
        captions = np.asarray(caption_indices, dtype=np.int64)
        width = captions.shape[1] if captions.ndim > 1 else 1
        text, tokens = self._text.gather(videos.repeat(width), captions.reshape(-1), word_keep)
        experts, ind = gather_experts(self._experts, videos)
        return Batch(
            experts=experts,
            ind=ind,
            text=text.view(len(videos), width, *text.shape[1:]),
            text_token_mask=send(
                tokens.reshape(len(videos), width).astype(np.float32), text.device
            ),
            video_indices=torch.from_numpy(videos),
            caption_indices=torch.from_numpy(captions),
        )

    def _draw_words(
        self, epoch: int, videos: np.ndarray, captions: np.ndarray
    ) -> np.ndarray | None:
        """Return which words text dropout leaves, (B C, words) bool.

        A caption that would lose every word keeps them all: without words there is no query.
        """
        if not self._text_dropout:
            return None
        width = captions.shape[1] if captions.ndim > 1 else 1
        items = (videos[:, None] * width + np.arange(width)).reshape(-1)  # each caption is one
        counts = self._text.word_counts(videos.repeat(width), captions.reshape(-1))
        shortened = item_uniform(self._seed, epoch, items, stream=_DROPOUT_STREAM)
        kept = np.stack(
            [
                item_uniform(self._seed, epoch, items, stream=_WORD_STREAM + word) < _KEEP_WORD
                for word in range(int(counts.max(initial=1)))
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


def item_uniform(seed: int, epoch: int, items: np.ndarray, stream: int) -> np.ndarray:
    """Draw one number in [0, 1) for each item, by hashing the four integers.

    The mixing is the finaliser of SplitMix64 (Steele, Lea and Flood 2014), once per integer.

    Args:
        seed: seed of the run.
        epoch: epoch of the training.
        items: whole numbers, of any shape; equal items get equal draws.
        stream: tells different uses of one item apart (its caption, a word of it, ...).

    Returns:
        float64, shaped like `items`.
    """
    items = np.asarray(items)
    assert np.issubdtype(items.dtype, np.integer), "items are whole numbers"
    state = np.zeros((), dtype=np.uint64)
    for number in (seed, epoch, stream):
        state = _mixed(state, np.array(number & _MASK, dtype=np.uint64))
    bits = _mixed(state, items.astype(np.int64).view(np.uint64))
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(items.shape)


def epoch_permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order in which an epoch visits `n` items: int64, a permutation of 0 .. n - 1."""
    return np.random.default_rng([seed, epoch, _PERMUTATION]).permutation(n)


def _mixed(state: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Take a number into the state; arithmetic is modulo 2^64."""
    # Arrays of one entry at least: numpy warns of overflow in scalars, and here it is meant.
    z = np.atleast_1d(state) + np.uint64(_GOLDEN)
    z = z ^ number
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


Item = TypeVar("Item")

_END = object()


def prefetch(items: Iterator[Item], ahead: int = 2) -> Iterator[Item]:
    """Give the same items in the same order, made up to `ahead` before they are asked for.

    What goes wrong in the making is raised here, in its place. Where the items are not asked for to
    their end, the thread ends too.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(outcome: tuple[object, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(outcome, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:  # noqa: BLE001 - all are raised where the items are used
            put((_END, error))
        else:
            put((_END, None))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
