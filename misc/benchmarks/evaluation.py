"""Evaluating MSRVTT's largest model (9 experts, 183M parameters) from features to metrics."""

from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from torch import nn

from data_loader.retrieval_set import RetrievalSet
from misc.benchmarks import plain_model, synthetic
from misc.benchmarks.measure import Job, Workload, count_flops
from misc.benchmarks.metrics import sorted_ranks
from trainer.build import build_net
from trainer.evaluation import evaluate, evaluating
from trainer.memory import keeping_freed_memory
from utils.config import Config

METRICS = ("t2v_metrics", "v2t_metrics")
# How many videos' captions the plain formulation takes at once, all videos being embedded for each.
TEXT_BLOCK = 65
# Of how many videos and captions the operations are counted.
COUNTED = 128


def ours(scale: float, videos: int, captions: int, repeats: int) -> Job:
    net, retrieval = parts(scale, videos, captions)
    # As a training and a test do.
    keeping = ExitStack()
    keeping.enter_context(keeping_freed_memory())
    return Job(
        lambda: evaluate(net, retrieval, METRICS, torch.device("cpu")),
        flops=operations(net, retrieval),
        repeats=repeats,
        warmups=min(1, repeats - 1),
        close=keeping.close,
    )


def reference(scale: float, videos: int, captions: int) -> Job:
    net, retrieval = parts(scale, videos, captions)
    num_videos = len(retrieval)
    block = num_videos if captions == 1 else min(num_videos, TEXT_BLOCK)
    needed = None
    if block < num_videos:
        text = num_videos * captions * retrieval.queries(np.array([0]))[0].numel()
        weights = num_videos * captions * num_videos * len(synthetic.EXPERTS)
        # Features staged in float64 and copied to float32; weights and products of each triple.
        needed = (8 + 4) * text + 2 * 4 * weights

    def run() -> object:
        with torch.inference_mode(), evaluating(net):
            experts, ind = plain_model.collate_videos(retrieval)
            text = net.encode_text(plain_model.collate_texts(retrieval, block))
            videos_side = plain_model.encode_videos(net, experts, ind)
            sims = plain_model.similarities(text, *videos_side)
            if block == num_videos:
                return sorted_ranks(sims.numpy(), retrieval.query_masks)
            return sims

    return Job(run, repeats=1, warmups=0, part=block / num_videos, needed=needed)


def parts(scale: float, videos: int, captions: int) -> tuple[nn.Module, RetrievalSet]:
    """Return a model and a retrieval set, whose files go when the process ends."""
    folder = synthetic.temporary_files(train=2, test=max(4, round(videos * scale)))
    config = Config.from_file(synthetic.CONFIG)
    loader = synthetic.open_loader(folder, config, captions)
    torch.manual_seed(0)
    return build_net(config, loader), loader.retrieval


def operations(net: nn.Module, retrieval: RetrievalSet) -> float:
    """Count the operations of the matrix products: of each video, each caption and each pair.

    Those of a video depend on the experts that it has: they are the mean over some.
    """
    some = next(retrieval.video_blocks(COUNTED))
    text, tokens = retrieval.queries(np.arange(min(COUNTED, len(retrieval))))
    sides = []
    with torch.inference_mode(), evaluating(net):
        of_videos = count_flops(lambda: sides.append(net.encode_video(some.experts, some.ind)))
        of_texts = count_flops(lambda: net.encode_text(text, tokens))
    of_video, of_text = of_videos / len(sides[0]), of_texts / len(text)
    of_pair = 2 * sum(embedding.shape[1] for embedding in sides[0].embeddings)
    queries = float(retrieval.query_masks.sum())
    return len(retrieval) * (of_video + queries * of_pair) + queries * of_text


WORKLOADS = (
    Workload(
        "validation",
        "validation, 497 videos with 1 caption, CE",
        partial(ours, videos=497, captions=1, repeats=5),
        partial(reference, videos=497, captions=1),
    ),
    Workload(
        "test",
        "test, 2,990 videos with 20 captions, CE",
        partial(ours, videos=2990, captions=20, repeats=1),
        partial(reference, videos=2990, captions=20),
    ),
)
