"""What `growth` measures: an evaluation of N videos, a training step with M experts."""

import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from misc.benchmarks.measure import resident, restart_peak
from model.ce_net import CENet
from model.loss import MaxMarginRankingLoss
from model.ranks import BlockSource, rank_captions, rank_videos
from model.similarity import TextEmbeddings, VideoEmbeddings, similarity_to
from trainer.evaluation import QUERIES_PER_BLOCK, similarity_blocks
from trainer.memory import keeping_freed_memory
from trainer.optimisers import build_optimiser

# Small embeddings, so that those of a million videos fit in memory: 9 experts of 32 numbers.
EXPERTS, EMBEDDING_SIZE = 9, 32
# More pairs than this are not all compared: a part of the blocks is, and the time extrapolated.
MOST_PAIRS = 2**30

SHARED_SIZE, BATCH_SIZE, WORDS, TEXT_CLUSTERS = 768, 64, 37, 28
STEPS = 5


@dataclass(frozen=True)
class EvaluationFigures:
    """Ranking N videos by N captions and the other way round, from embeddings to ranks."""

    videos: int
    seconds: float  # of processor time, for all pairs
    is_whole: bool  # all pairs were compared, nothing is extrapolated
    embedding_bytes: int  # of the videos; captions are made when they are needed
    added_bytes: int  # most memory besides, while it worked


@dataclass(frozen=True)
class StepFigures:
    """One training step of CE, batch 64."""

    experts: int
    parameters: int
    seconds: float  # of processor time
    peak_bytes: int  # of the process


class _EnoughError(Exception):
    """Ends a pass over the blocks before its end."""


def evaluation(num_videos: int) -> EvaluationFigures:
    """Measure the two passes over the blocks of a matrix that is never there as a whole."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_videos, EMBEDDING_SIZE)
    video = VideoEmbeddings(
        tuple(torch.randn(shape, generator=generator) for _ in range(EXPERTS)),
        (torch.rand(num_videos, EXPERTS, generator=generator) < 0.8).float(),
    )
    masks = torch.ones(num_videos, 1)
    part = min(1.0, MOST_PAIRS / num_videos**2)
    restart_peak()
    held, started = resident("VmRSS"), time.process_time()
    with torch.inference_mode():
        compare = similarity_to(video)

        def blocks() -> Iterator[Tensor]:
            rows = 0
            for block in similarity_blocks(captions(num_videos), compare, num_videos):
                yield block
                rows += len(block)
                if rows >= part * num_videos and rows < num_videos:
                    reached.append(rows)
                    raise _EnoughError

        reached: list[int] = []
        _rank(blocks, masks)
    seconds = time.process_time() - started
    return EvaluationFigures(
        videos=num_videos,
        seconds=seconds * (num_videos / reached[0] if reached else 1),
        is_whole=not reached,
        embedding_bytes=sum(e.nbytes for e in video.embeddings),
        added_bytes=resident("VmHWM") - held,
    )


def _rank(source: BlockSource, masks: Tensor) -> None:
    best_own = torch.zeros(len(masks))  # of a pass that does not come to its end
    with suppress(_EnoughError):
        _, best_own = rank_videos(source, masks)
    with suppress(_EnoughError):
        rank_captions(source, masks, best_own)


def captions(count: int) -> Iterator[tuple[Tensor, TextEmbeddings]]:
    """Make random embeddings of captions block by block, the same in each pass."""
    for start in range(0, count, QUERIES_PER_BLOCK):
        generator = torch.Generator().manual_seed(1 + start)
        shape = (min(QUERIES_PER_BLOCK, count - start), EMBEDDING_SIZE)
        embeddings = tuple(torch.randn(shape, generator=generator) for _ in range(EXPERTS))
        weights = torch.rand(shape[0], EXPERTS, generator=generator).softmax(dim=1)
        yield torch.ones(shape[0], dtype=torch.bool), TextEmbeddings(embeddings, weights)


def step(num_experts: int) -> StepFigures:
    """Measure forward, loss, backward and update: experts of one vector, captions of words."""
    torch.manual_seed(0)
    names = [f"expert{number:02}" for number in range(num_experts)]
    net = CENet(
        expert_dims=dict.fromkeys(names, (SHARED_SIZE, SHARED_SIZE)),
        text_dim=SHARED_SIZE,
        vlad_clusters={"text": TEXT_CLUSTERS},
        ghost_clusters={"text": 1},
        use_ce="pairwise",
    )
    loss = MaxMarginRankingLoss(margin=0.2)
    optimiser = build_optimiser("Ranger", {"lr": 1e-4, "weight_decay": 1e-5}, net)
    experts = {name: torch.randn(BATCH_SIZE, SHARED_SIZE) for name in names}
    ind = dict.fromkeys(names, torch.ones(BATCH_SIZE))
    text = torch.randn(BATCH_SIZE, 1, WORDS, SHARED_SIZE)
    seconds = []
    with keeping_freed_memory():
        for _ in range(1 + STEPS):
            started = time.process_time()
            optimiser.zero_grad(set_to_none=True)
            matrix = net(experts=experts, ind=ind, text=text)["cross_view_conf_matrix"]
            loss(matrix).backward()
            optimiser.step()
            seconds.append(time.process_time() - started)
    return StepFigures(
        experts=num_experts,
        parameters=sum(p.numel() for p in net.parameters()),
        seconds=statistics.median(seconds[1:]),
        peak_bytes=resident("VmHWM"),
    )
