"""Retrieval evaluation: every video and caption embedded once, ranked block by block.

Axes: Q queries (captions), N videos, C captions per video, M experts.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data_loader.errors import UserError
from data_loader.retrieval_set import RetrievalSet
from model.metric import rank_metrics
from model.ranks import BlockSource, Ranks, blocks_of, compute_ranks
from model.similarity import TextEmbeddings, VideoEmbeddings, similarity

VIDEOS_PER_BLOCK = 256
QUERIES_PER_BLOCK = 1024
# A similarity matrix up to this size is kept; a larger one is made anew, block by block, in each
# of the two passes that ranking takes.
KEPT_MATRIX_BYTES = 2 * 1024**3

RANK_METRICS = {"t2v_metrics": "t2v", "v2t_metrics": "v2t"}


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a retrieval set."""

    metrics: dict[str, dict[str, float]]  # metric name -> R1, R5, ... (see `model.metric`)
    ranks: Ranks
    sims: Tensor | None  # (Q, N) on the CPU; None where it is too large to keep
    blocks: BlockSource  # the rows of that matrix, kept or made anew
    video: VideoEmbeddings
    averaged: bool  # a query is the mean over a video's captions: Q is N


@dataclass(frozen=True)
class Compared:
    """The queries of a retrieval set beside its videos, before anything is ranked."""

    video: VideoEmbeddings
    blocks: BlockSource  # the rows (q, N) of the similarity matrix, kept or made anew
    sims: Tensor | None  # that matrix on the model's device, where it is kept
    averaged: bool  # a query is the mean over a video's captions: Q is N


@torch.inference_mode()
def evaluate(
    net: nn.Module, retrieval: RetrievalSet, metric_names: Sequence[str], device: torch.device
) -> Evaluation:
    """Embed a retrieval set, rank both directions, and summarise the ranks.

    Raises:
        UserError: the model gives NaN, or a metric does not fit a retrieval set.
    """
    for name in metric_names:
        if name not in RANK_METRICS:
            raise UserError(
                f'The metric "{name}" needs labels, and a retrieval set has captions: use '
                f"{' and '.join(RANK_METRICS)}."
            )
    compared = compare(net, retrieval, device)
    query_masks = torch.from_numpy(np.asarray(retrieval.query_masks))
    masks = query_masks[:, :1] if compared.averaged else query_masks
    try:
        ranks = compute_ranks(compared.blocks, masks)
    except ValueError as error:
        raise UserError(
            f"The model cannot be evaluated: {error} If it has just been trained, its training "
            "has diverged: lower optimizer.args.lr."
        ) from error
    metrics = {name: rank_metrics(getattr(ranks, RANK_METRICS[name])) for name in metric_names}
    sims = None if compared.sims is None else compared.sims.cpu()
    return Evaluation(metrics, ranks, sims, compared.blocks, compared.video, compared.averaged)


@torch.inference_mode()
def compare(net: nn.Module, retrieval: RetrievalSet, device: torch.device) -> Compared:
    """Embed a retrieval set, and make the rows of its similarity matrix ready to be walked."""
    with evaluating(net):
        video = embed_videos(net, retrieval, device)
        averaged = net.test_caption_mode == "avg" and retrieval.query_masks.shape[1] > 1
        blocks, sims = _similarity_blocks(net, retrieval, video, device, averaged)
    return Compared(video, blocks, sims, averaged)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation (no dropout, stored batch statistics) and back again."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


def embed_videos(net: nn.Module, retrieval: RetrievalSet, device: torch.device) -> VideoEmbeddings:
    """Embed all N videos, a block at a time."""
    blocks = []
    for batch in retrieval.video_blocks(VIDEOS_PER_BLOCK):
        experts = {name: x.to(device) for name, x in batch.experts.items()}
        availability = {name: x.to(device) for name, x in batch.ind.items()}
        blocks.append(net.encode_video(experts, availability))
    return VideoEmbeddings.cat(blocks)


def embed_texts(
    net: nn.Module, retrieval: RetrievalSet, device: torch.device
) -> Iterable[TextEmbeddings]:
    """Embed the captions of a few videos at a time, C queries for each."""
    videos = max(1, QUERIES_PER_BLOCK // retrieval.query_masks.shape[1])
    for batch in retrieval.text_blocks(videos):
        yield net.encode_text(batch.text.to(device), batch.text_token_mask.to(device))


def _similarity_blocks(
    net: nn.Module,
    retrieval: RetrievalSet,
    video: VideoEmbeddings,
    device: torch.device,
    average: bool,
) -> tuple[BlockSource, Tensor | None]:
    """Choose between a matrix kept in memory and blocks made anew in each pass."""
    query_masks = torch.from_numpy(np.asarray(retrieval.query_masks)).to(device)  # (N, C)
    num_videos, num_captions = query_masks.shape
    rows = num_videos if average else num_videos * num_captions

    def make_blocks(texts: Iterable[TextEmbeddings]) -> Iterable[Tensor]:
        start = 0
        for text in texts:
            block = similarity(text, video)  # (b C, N)
            count = len(text) // num_captions
            if average:
                mask = query_masks[start : start + count].to(block.dtype).unsqueeze(2)  # (b, C, 1)
                block = (block.view(count, num_captions, -1) * mask).sum(1) / mask.sum(1)
            start += count
            yield block

    if rows * num_videos * 4 <= KEPT_MATRIX_BYTES:
        sims = torch.cat(list(make_blocks(embed_texts(net, retrieval, device))))
        return blocks_of(sims), sims
    texts = list(embed_texts(net, retrieval, device))
    return lambda: make_blocks(texts), None
