"""Ranking a similarity matrix of MSRVTT's test: 2,990 videos with 20 captions each."""

import numpy as np
import torch

from misc.benchmarks.measure import Job, Workload
from model.metric import t2v_metrics, v2t_metrics

VIDEOS, CAPTIONS = 2990, 20


def ours(scale: float) -> Job:
    sims, masks = inputs(scale)
    return Job(lambda: (t2v_metrics(sims, masks), v2t_metrics(sims, masks)))


def inputs(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a similarity matrix (N C, N) and the masks (N, C), of which few are 0."""
    videos = max(4, round(VIDEOS * scale))
    rng = np.random.default_rng(0)
    sims = rng.standard_normal((videos * CAPTIONS, videos), dtype=np.float32)
    masks = np.ones((videos, CAPTIONS), dtype=np.float32)
    masks[rng.integers(0, videos, 6), CAPTIONS - 1] = 0
    return torch.from_numpy(sims), torch.from_numpy(masks)


WORKLOADS = (Workload("metrics", "t2v and v2t metrics, 59,800 x 2,990", ours),)
