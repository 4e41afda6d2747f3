"""Ranking a similarity matrix of MSRVTT's test: 2,990 videos with 20 captions each."""

import numpy as np
import torch

from misc.benchmarks.measure import Job, Workload
from model.metric import t2v_metrics, v2t_metrics

VIDEOS, CAPTIONS = 2990, 20


def ours(scale: float) -> Job:
    sims, masks = inputs(scale)
    return Job(lambda: (t2v_metrics(sims, masks), v2t_metrics(sims, masks)))


def reference(scale: float) -> Job:
    sims, masks = (tensor.numpy() for tensor in inputs(scale))
    return Job(lambda: sorted_ranks(sims, masks), repeats=1, warmups=0)


def inputs(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a similarity matrix (N C, N) and the masks (N, C), of which few are 0."""
    videos = max(4, round(VIDEOS * scale))
    rng = np.random.default_rng(0)
    sims = rng.standard_normal((videos * CAPTIONS, videos), dtype=np.float32)
    masks = np.ones((videos, CAPTIONS), dtype=np.float32)
    masks[rng.integers(0, videos, 6), CAPTIONS - 1] = 0
    return torch.from_numpy(sims), torch.from_numpy(masks)


def sorted_ranks(sims: np.ndarray, masks: np.ndarray) -> tuple[list[float], list[float]]:
    """Rank as the definition has it: sort what each query and each video is compared with."""
    videos, captions = np.nonzero(masks)
    queries = videos * masks.shape[1] + captions
    t2v = [_place(sims[q], sims[q, video]) for q, video in zip(queries, videos, strict=True)]
    v2t = []
    for video in range(len(masks)):
        column = sims[queries, video]
        v2t.append(_place(column, column[videos == video].max()))
    return t2v, v2t


def _place(candidates: np.ndarray, own: float) -> float:
    ordered = np.sort(candidates)[::-1]
    return 1 + float(np.flatnonzero(ordered == own).mean())


WORKLOADS = (Workload("metrics", "t2v and v2t metrics, 59,800 x 2,990", ours, reference),)
