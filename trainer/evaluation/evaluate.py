"""Retrieval evaluation: every video and caption embedded once, ranked block by block.

Axes: Q queries (captions), N videos, C captions per video, M experts.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from data_loader.retrieval_set import RetrievalSet
from data_loader.sets.description import Counts
from logger.predictions import VIDEOS_PER_QUERY
from model.fast import products_by
from model.metric import METRICS
from model.ranks import (
    ALL,
    BlockSource,
    Ranks,
    blocks_of,
    compute_ranks,
    find_best,
    rank_captions,
    rank_videos,
)
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings, similarity_to
from trainer.processes.alone import ALONE, Processes
from utils.errors import UserError

VIDEOS_PER_BLOCK = 256
QUERIES_PER_BLOCK = 512
# A block of similarities has at most this many (256 MiB), however many videos there are.
BLOCK_VALUES = 2**26
# A similarity matrix up to this size is kept; a larger one is made anew, block by block, in each
# of the two passes that ranking takes.
KEPT_MATRIX_BYTES = 2 * 1024**3
# Embeddings of captions up to this size are kept while single rankings are looked at.
KEPT_CAPTION_BYTES = 2**27


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """The queries of a retrieval set beside its videos, before anything is ranked."""

    video: VideoEmbeddings
    blocks: BlockSource  # the rows (q, N) of the similarity matrix, kept or made anew
    sims: Tensor | None  # that matrix; None where it is too large to keep
    averaged: bool  # a query is the mean over a video's captions: Q is N
    masks: Tensor  # (N, C) or, averaged, (N, 1): 1 for queries that exist
    shares: list[slice]  # for each process, the videos whose captions' rows its blocks give


@dataclass(frozen=True)
class Evaluation(Compared):
    """What a model makes of a retrieval set; the matrix lies on the CPU."""

    ranks: Ranks
    metrics: dict[str, dict[str, float]]  # metric name -> R1, R5, ... (see `model.metric`)


@torch.inference_mode()
def evaluate(
    net: RetrievalModel,
    retrieval: RetrievalSet,
    metric_names: Sequence[str],
    device: torch.device,
    processes: Processes = ALONE,
) -> Evaluation:
    """Embed a retrieval set, rank both directions, and summarise the ranks.

    Several processes share the work, and get the same ranks; the rows of the matrix are whole with
    the first one alone.

    Raises:
        UserError: the model gives NaN.
    """
    compared = compare(net, retrieval, device, processes)
    try:
        if processes is ALONE:
            ranks = compute_ranks(compared.blocks, compared.masks)
        else:
            ranks = _shared_ranks(compared, processes)
            compared = _whole(compared, Queries(net, retrieval, device), processes)
    except ValueError as error:
        raise UserError(
            f"The model cannot be evaluated: {error} If it has just been trained, its training "
            "has diverged: lower optimizer.args.lr."
        ) from error
    metrics = {name: METRICS[name](ranks) for name in metric_names}
    sims = None if compared.sims is None else compared.sims.cpu()
    return Evaluation(**vars(compared) | {"sims": sims, "ranks": ranks, "metrics": metrics})


def flat_metrics(stage: str, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Name metrics as in logs and monitors: `val_t2v_metrics_R1`."""
    return {
        f"{stage}_{name}_{key}": value
        for name, values in metrics.items()
        for key, value in values.items()
    }


@torch.inference_mode()
def compare(
    net: RetrievalModel,
    retrieval: RetrievalSet,
    device: torch.device,
    processes: Processes = ALONE,
) -> Compared:
    """Embed a retrieval set, and make the rows of its similarity matrix ready to be walked.

    Of several processes each has the rows of some videos' captions.
    """
    with evaluating(net):
        video = embed_videos(net, retrieval, device, processes)
        masks = torch.from_numpy(np.asarray(retrieval.query_masks))
        averaged = net.test_caption_mode == "avg" and masks.shape[1] > 1
        queries = Queries(net, retrieval, device)
        shares = processes.shares(len(masks), queries.videos_per_block)
        queries = replace(queries, videos=shares[processes.rank])
        blocks, sims = _similarity_blocks(queries, video, averaged)
    return Compared(video, blocks, sims, averaged, masks[:, :1] if averaged else masks, shares)


def _shared_ranks(compared: Compared, processes: Processes) -> Ranks:
    """Rank in each process the rows that it has; every process gets all ranks."""
    masks, shares = compared.masks, compared.shares
    own = shares[processes.rank]
    t2v, best_own = rank_videos(compared.blocks, masks, own)
    t2v = processes.gather_rows(t2v, [int(masks[share].count_nonzero()) for share in shares])
    best_own_N = processes.gather_rows(best_own, [len(masks[share]) for share in shares])
    # Twice a rank, less one, is how many captions are above: these add up.
    above_N = 2 * rank_captions(compared.blocks, masks, best_own_N, own) - 1
    return Ranks(t2v, (processes.sum(above_N) + 1) / 2)


def _whole(compared: Compared, queries: "Queries", processes: Processes) -> Compared:
    """Give the first process all rows of the similarity matrix; the others keep theirs."""
    if compared.sims is None:

        @torch.inference_mode()
        def blocks() -> Iterator[Tensor]:
            with evaluating(queries.net):  # embeds the captions once more, where they are wanted
                yield from _similarity_blocks(queries, compared.video, compared.averaged)[0]()

        return replace(compared, blocks=blocks)
    sizes = [compared.masks[share].numel() for share in compared.shares]
    sims = processes.rows_to_first(compared.sims, sizes)
    return replace(compared, sims=sims, blocks=blocks_of(sims))


@contextmanager
def evaluating(net: RetrievalModel) -> Iterator[None]:
    """Switch a model to evaluation (no dropout, stored batch statistics) and back again."""
    was_training = net.training
    net.eval()
    try:
        with products_by(net.products):
            yield
    finally:
        net.train(was_training)


def embed_videos(
    net: RetrievalModel,
    retrieval: RetrievalSet,
    device: torch.device,
    processes: Processes = ALONE,
) -> VideoEmbeddings:
    """Embed all N videos, a block at a time; of several processes each embeds some of them."""
    shares = processes.shares(len(retrieval), VIDEOS_PER_BLOCK)
    own = shares[processes.rank]
    # Where there is none, one that another process has is embedded, and left out again.
    chosen = own if own.stop > own.start else slice(0, 1)
    blocks = []
    for batch in retrieval.video_blocks(VIDEOS_PER_BLOCK, chosen):
        experts = {name: x.to(device) for name, x in batch.experts.items()}
        availability = {name: x.to(device) for name, x in batch.ind.items()}
        blocks.append(net.encode_video(experts, availability))
    video = VideoEmbeddings.cat(blocks)
    if processes is ALONE:
        return video
    video = video[: own.stop - own.start]
    sizes = [share.stop - share.start for share in shares]
    embeddings = tuple(processes.gather_rows(e, sizes) for e in video.embeddings)
    return VideoEmbeddings(embeddings, processes.gather_rows(video.availability, sizes))


@dataclass(frozen=True)
class Queries:
    """Embeds the captions of a retrieval set, and those alone that exist."""

    net: RetrievalModel
    retrieval: RetrievalSet
    device: torch.device
    videos: slice = field(default_factory=lambda: ALL)  # those whose captions it embeds

    @property
    def videos_per_block(self) -> int:
        return max(1, QUERIES_PER_BLOCK // self.retrieval.query_masks.shape[1])

    def blocks(self) -> Iterator[tuple[Tensor, TextEmbeddings]]:
        """Give (q,) which of a block's captions exist, and the embeddings of those."""
        num_videos, num_captions = self.retrieval.query_masks.shape
        exists = np.asarray(self.retrieval.query_masks).reshape(-1) > 0
        first, end, _ = (place * num_captions for place in self.videos.indices(num_videos))
        rows = self.videos_per_block * num_captions
        for start in range(first, end, rows):
            here = exists[start : min(start + rows, end)]
            chosen = start + np.flatnonzero(here)
            # Where there is none, one that is not there is embedded, and left out again.
            text, tokens = self.retrieval.queries(chosen if len(chosen) else np.array([start]))
            embedded = self.net.encode_text(text.to(self.device), tokens.to(self.device))
            yield torch.from_numpy(here), embedded[: len(chosen)]


class CaptionEmbeddings:
    """Embeds captions when they are asked for; each once, where there is room for all of them.

    Args:
        net, retrieval, device: the model, the captions, and where they are embedded.
    """

    def __init__(self, net: RetrievalModel, retrieval: RetrievalSet, device: torch.device) -> None:
        self._net, self._retrieval, self._device = net, retrieval, device
        self._is_kept = torch.zeros(np.asarray(retrieval.query_masks).size, dtype=torch.bool)
        self._kept: TextEmbeddings | None = None

    def of(self, captions_q: Tensor) -> TextEmbeddings:
        """Return the embeddings of captions: number q is caption q % C of video q // C."""
        new = captions_q[~self._is_kept[captions_q]].unique()
        if len(new):
            made = self._embed(new)
            if self._kept is None:
                self._kept = self._room_for(made)
            if self._kept is None:
                return made[torch.searchsorted(new, captions_q).to(self._device)]
            for kept, part in zip(_tensors(self._kept), _tensors(made), strict=True):
                kept[new.to(self._device)] = part
            self._is_kept[new] = True
        assert self._kept is not None
        return self._kept[captions_q.to(self._device)]

    def _embed(self, captions_q: Tensor) -> TextEmbeddings:
        text, tokens = self._retrieval.queries(captions_q.numpy())
        with evaluating(self._net):
            return self._net.encode_text(text.to(self._device), tokens.to(self._device))

    def _room_for(self, like: TextEmbeddings) -> TextEmbeddings | None:
        """Make room for all captions, none where that would be much."""
        count, tensors = len(self._is_kept), _tensors(like)
        if count * sum(x[0].nbytes for x in tensors) > KEPT_CAPTION_BYTES:
            return None
        room = [x.new_empty(count, *x.shape[1:]) for x in tensors]
        embeddings = tuple(room[: len(like.embeddings)])
        return TextEmbeddings(embeddings, None if like.weights is None else room[-1])


def _tensors(text: TextEmbeddings) -> list[Tensor]:
    return [*text.embeddings, *([] if text.weights is None else [text.weights])]


def _similarity_blocks(
    queries: Queries, video: VideoEmbeddings, average: bool
) -> tuple[BlockSource, Tensor | None]:
    """Choose between a matrix kept in memory and blocks made anew in each pass."""
    num_videos, num_captions = queries.retrieval.query_masks.shape
    compare_with = similarity_to(video)

    def similarity_of(text: TextEmbeddings) -> Tensor:
        with products_by(queries.net.products):
            return compare_with(text)

    def make_blocks(texts: Iterable[tuple[Tensor, TextEmbeddings]]) -> Iterator[Tensor]:
        return similarity_blocks(texts, similarity_of, num_videos, num_captions, average)

    per_video = 1 if average else num_captions
    if num_videos * per_video * num_videos * 4 <= KEPT_MATRIX_BYTES:
        rows = per_video * len(range(num_videos)[queries.videos])
        sims = torch.empty(rows, num_videos, device=queries.device)
        start = 0
        for block in make_blocks(queries.blocks()):
            sims[start : start + len(block)] = block
            start += len(block)
        return blocks_of(sims), sims
    texts = list(queries.blocks())
    return lambda: make_blocks(texts), None


def similarity_blocks(
    texts: Iterable[tuple[Tensor, TextEmbeddings]],
    similarity_of: Callable[[TextEmbeddings], Tensor],
    num_videos: int,
    num_captions: int = 1,
    average: bool = False,
) -> Iterator[Tensor]:
    """Give the rows of a similarity matrix, at most `BLOCK_VALUES` values at a time.

    Args:
        texts: the captions of some videos at a time: (q,) bool, which of them exist, and the
            embeddings of those.
        similarity_of: gives the similarities (q, N) of embedded captions, see `similarity_to`.
        num_videos: N.
        num_captions: C.
        average: give the means over each video's captions. Otherwise a caption that does not exist
            is a row of zeros.
    """
    most_rows = max(1, BLOCK_VALUES // num_videos // num_captions) * num_captions
    for all_exist, text in texts:
        # Parts of one size: the memory of one serves for the next.
        parts = -(-len(all_exist) // most_rows)
        rows = -(-len(all_exist) // parts // num_captions) * num_captions
        start = 0
        for exists in all_exist.split(rows):
            count = int(exists.sum())
            block = similarity_of(text[start : start + count])
            start += count
            if count < len(exists):
                block = _with_gaps(block, exists)
            yield _means(block, exists, num_captions) if average else block


def _with_gaps(block: Tensor, exists: Tensor) -> Tensor:
    """Put rows of zeros where a caption does not exist."""
    result = block.new_zeros(len(exists), block.shape[1])
    result[exists.to(block.device)] = block
    return result


def _means(block: Tensor, exists: Tensor, num_captions: int) -> Tensor:
    """Mean over the existing captions of each video, (videos, N)."""
    sums = block.view(-1, num_captions, block.shape[1]).sum(dim=1)
    return sums / exists.view(-1, num_captions).sum(dim=1, keepdim=True).to(block.device)


@torch.inference_mode()
def predict(net: RetrievalModel, retrieval: RetrievalSet, device: torch.device) -> np.ndarray:
    """Find the ten most similar videos of each query that exists.

    Returns:
        (queries, 10) int64 places in the list of videos, the most similar first (of equals the
        first in the list); the queries in the order of videos, then captions.

    Raises:
        UserError: there are fewer than ten videos, queries are means over captions, or the model
            gives NaN.
    """
    if len(retrieval) < VIDEOS_PER_QUERY:
        raise UserError(
            f"A challenge asks for the {VIDEOS_PER_QUERY} best videos of each query, and this "
            f"retrieval set has {len(retrieval)}: set challenge_mode to false for metrics."
        )
    compared = compare(net, retrieval, device)
    if compared.averaged:
        raise UserError(
            "A challenge asks for a row for each caption, and this model averages a video's "
            'captions: set arch.args.test_caption_mode to "indep".'
        )
    try:
        return find_best(compared.blocks, compared.masks, VIDEOS_PER_QUERY).numpy()
    except ValueError as error:
        raise UserError(f"The model cannot predict: {error}") from error


def counts_of(retrieval: RetrievalSet) -> Counts:
    """Count what a retrieval set holds."""
    return Counts(len(retrieval), int(np.count_nonzero(retrieval.query_masks)))


def warn_of_other_counts(found: Counts, expected: Counts | None, what: str) -> None:
    """Say it where a retrieval set is not as large as the published one is."""
    if expected is not None and found != expected:
        _log.warning(
            "%s has %s here, but %s as published: predictions for it do not fit the challenge; "
            "look at its list of videos and at data_loader.args.num_test_captions.",
            what,
            found,
            expected,
        )
