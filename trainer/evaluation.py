"""Retrieval evaluation: every video and caption embedded once, ranked block by block.

Axes: Q queries (captions), N videos, C captions per video, M experts.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_loader.retrieval_set import RetrievalSet
from data_loader.sets.description import Counts
from logger.predictions import VIDEOS_PER_QUERY
from model.fast import products_by
from model.metric import METRICS
from model.ranks import BlockSource, Ranks, blocks_of, compute_ranks, find_best
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings, similarity_to
from utils.errors import UserError

VIDEOS_PER_BLOCK = 256
QUERIES_PER_BLOCK = 512
# A block of similarities has at most this many (256 MiB), however many videos there are.
BLOCK_VALUES = 2**26
# A similarity matrix up to this size is kept; a larger one is made anew, block by block, in each
# of the two passes that ranking takes.
KEPT_MATRIX_BYTES = 2 * 1024**3


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """The queries of a retrieval set beside its videos, before anything is ranked."""

    video: VideoEmbeddings
    blocks: BlockSource  # the rows (q, N) of the similarity matrix, kept or made anew
    sims: Tensor | None  # that matrix; None where it is too large to keep
    averaged: bool  # a query is the mean over a video's captions: Q is N
    masks: Tensor  # (N, C) or, averaged, (N, 1): 1 for queries that exist


@dataclass(frozen=True)
class Evaluation(Compared):
    """What a model makes of a retrieval set; the matrix lies on the CPU."""

    ranks: Ranks
    metrics: dict[str, dict[str, float]]  # metric name -> R1, R5, ... (see `model.metric`)


@torch.inference_mode()
def evaluate(
    net: RetrievalModel, retrieval: RetrievalSet, metric_names: Sequence[str], device: torch.device
) -> Evaluation:
    """Embed a retrieval set, rank both directions, and summarise the ranks.

    Raises:
        UserError: the model gives NaN.
    """
    compared = compare(net, retrieval, device)
    try:
        ranks = compute_ranks(compared.blocks, compared.masks)
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
def compare(net: RetrievalModel, retrieval: RetrievalSet, device: torch.device) -> Compared:
    """Embed a retrieval set, and make the rows of its similarity matrix ready to be walked."""
    with evaluating(net):
        video = embed_videos(net, retrieval, device)
        masks = torch.from_numpy(np.asarray(retrieval.query_masks))
        averaged = net.test_caption_mode == "avg" and masks.shape[1] > 1
        blocks, sims = _similarity_blocks(Queries(net, retrieval, device), video, averaged)
    return Compared(video, blocks, sims, averaged, masks[:, :1] if averaged else masks)


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
    net: RetrievalModel, retrieval: RetrievalSet, device: torch.device
) -> VideoEmbeddings:
    """Embed all N videos, a block at a time."""
    blocks = []
    for batch in retrieval.video_blocks(VIDEOS_PER_BLOCK):
        experts = {name: x.to(device) for name, x in batch.experts.items()}
        availability = {name: x.to(device) for name, x in batch.ind.items()}
        blocks.append(net.encode_video(experts, availability))
    return VideoEmbeddings.cat(blocks)


@dataclass(frozen=True)
class Queries:
    """Embeds the captions of a retrieval set, and those alone that exist."""

    net: RetrievalModel
    retrieval: RetrievalSet
    device: torch.device

    @property
    def rows_per_block(self) -> int:
        """The captions of whole videos."""
        num_captions = self.retrieval.query_masks.shape[1]
        return max(1, QUERIES_PER_BLOCK // num_captions) * num_captions

    def blocks(self) -> Iterator[tuple[Tensor, TextEmbeddings]]:
        """Give (q,) which of a block's captions exist, and the embeddings of those."""
        exists = np.asarray(self.retrieval.query_masks).reshape(-1) > 0
        for start in range(0, len(exists), self.rows_per_block):
            here = exists[start : start + self.rows_per_block]
            chosen = start + np.flatnonzero(here)
            # Where there is none, one that is not there is embedded, and left out again.
            text, tokens = self.retrieval.queries(chosen if len(chosen) else np.array([start]))
            embedded = self.net.encode_text(text.to(self.device), tokens.to(self.device))
            yield torch.from_numpy(here), embedded[: len(chosen)]


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

    rows = num_videos if average else num_videos * num_captions
    if rows * num_videos * 4 <= KEPT_MATRIX_BYTES:
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
