"""CE's retrieval written out plainly: what the evaluation is measured against.

It uses the layers of a net, one sample, pair of experts and expert after the other, and holds
every intermediate result: samples collated one by one in float64, pairs concatenated, a weight for
each caption, video and expert.

Axes: B videos, Q queries, N videos, M experts, D embedding size.
"""

import numpy as np
import torch
from torch import Tensor, nn

from data_loader.retrieval_set import RetrievalSet
from model.similarity import TextEmbeddings


def collate_videos(retrieval: RetrievalSet) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Stage all videos, one after the other."""
    samples = list(retrieval.video_blocks(1))
    experts, ind = {}, {}
    for name in samples[0].experts:
        rows = [sample.experts[name][0].numpy().astype(np.float64) for sample in samples]
        experts[name] = torch.from_numpy(np.stack(rows)).float()
        ind[name] = torch.tensor([float(sample.ind[name][0]) for sample in samples])
    return experts, ind


def collate_texts(retrieval: RetrievalSet, videos: int) -> Tensor:
    """Stage the captions of the first videos, one after the other: (Q, 1, T, D)."""
    count = videos * retrieval.query_masks.shape[1]
    rows = [
        retrieval.queries(np.array([query]))[0][0].numpy().astype(np.float64)
        for query in range(count)
    ]
    return torch.from_numpy(np.stack(rows)).float()


def encode_videos(
    net: nn.Module, experts: dict[str, Tensor], ind: dict[str, Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Embed videos: M times (B, D), and availability (B, M)."""
    pooled, availability = net.pool_experts(experts, ind)
    ce = net.ce
    x = [reduce(p) for reduce, p in zip(ce.video_dim_reduce, pooled, strict=True)]
    for i, gate in enumerate(ce.video_GU):
        reasons, both = [], []
        for j in range(len(x)):
            first = ce.g_reason_1(torch.cat([x[i], x[j]], dim=1))  # (B, D)
            reasons.append(ce.g_reason_shared(first.unsqueeze(1)).squeeze(1))
            both.append(availability[:, i] * availability[:, j])
        there = torch.stack(both, dim=1).unsqueeze(2)  # (B, M, 1)
        mean = (torch.stack(reasons, dim=1) * there).sum(dim=1) / (there.sum(dim=1) + 1e-11)
        x[i] = gate(x[i], mean)
    return x, availability


def similarities(text: TextEmbeddings, embeddings: list[Tensor], availability_NM: Tensor) -> Tensor:
    """Compare captions and videos with a weight for each of them and expert: (Q, N)."""
    weights = text.weights.unsqueeze(1) * availability_NM.unsqueeze(0)  # (Q, N, M)
    total = weights.sum(dim=2, keepdim=True)
    weights = weights / torch.where(total > 0, total, 1.0)
    pairs = zip(text.embeddings, embeddings, strict=True)
    products = torch.stack([t @ v.T for t, v in pairs], dim=2)  # (Q, N, M)
    return (weights * products).sum(dim=2)
