"""Retrieval metrics: recall at K, median and mean rank, in both directions.

All take the similarity matrix (Q, N) of Q captions and N videos as a numpy array or tensor. With
C captions per video, query q belongs to video q // C and `query_masks` (N, C) marks the captions
that exist.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.ranks import (
    BlockSource,
    Ranks,
    best_own,
    blocks_of,
    holds_nan,
    rank_captions,
    rank_videos,
    ranks_in_rows,
)

Array = np.ndarray | Tensor

RECALL_AT = (1, 5, 10, 50)

# What `metrics` of a config may name: functions of the ranks of a retrieval set. To add one is to
# add a row.
METRICS: dict[str, Callable[[Ranks], dict[str, float]]] = {
    "t2v_metrics": lambda ranks: rank_metrics(ranks.t2v),
    "v2t_metrics": lambda ranks: rank_metrics(ranks.v2t),
}
_OF_LABELS = "it needs labels, and a retrieval set has captions"
REFUSED_METRICS = {
    "retrieval_as_classification": _OF_LABELS,
    "mean_average_precision": _OF_LABELS,
}


def t2v_metrics(sims: Array, query_masks: Array | None = None) -> dict[str, float]:
    """Text-to-video retrieval: the place of each caption's own video among all videos.

    Returns:
        R1, R5, R10, R50 (percent), MedR, MeanR (1-based), geometric_mean_R1-R5-R10.

    Raises:
        ValueError: a similarity is NaN, a video has no caption, or the sizes do not fit.
    """
    t2v, _ = rank_videos(*_source(sims, query_masks))
    return rank_metrics(t2v)


def v2t_metrics(sims: Array, query_masks: Array | None = None) -> dict[str, float]:
    """Video-to-text retrieval: the best place of a video's own captions among all captions.

    Returns and raises as `t2v_metrics`.
    """
    source, masks = _source(sims, query_masks)
    return rank_metrics(rank_captions(source, masks, best_own(source, masks)))


def rank_metrics(ranks: Tensor) -> dict[str, float]:
    """Summarise 1-based ranks (halves where ties are) as recalls and average ranks."""
    values = ranks.double().cpu().numpy()
    # R1 counts the rank 1 itself: `retrieval_as_classification` has ranks below it.
    metrics = {"R1": 100 * float(np.mean(values == 1))}
    metrics |= {f"R{k}": 100 * float(np.mean(values < k + 1)) for k in RECALL_AT[1:]}
    metrics["MedR"] = float(np.median(values))
    metrics["MeanR"] = float(np.mean(values))
    product = metrics["R1"] * metrics["R5"] * metrics["R10"]
    metrics["geometric_mean_R1-R5-R10"] = float(np.cbrt(product))
    return metrics


def retrieval_as_classification(sims: Array, label_masks: Array) -> dict[str, float]:
    """Rank the labels of each video by similarity; every true label of a video counts.

    As in the published results, the place of a video's k-th true label (in the order of the
    labels) is lowered by k - 1, so that true labels do not stand in each other's way. It may
    therefore fall below 1, where it counts for R5 to R50 but not for R1.

    Args:
        sims: (L, N), similarity of L label texts to N videos.
        label_masks: (L, N), 1 where the label is true of the video.

    Raises:
        ValueError: the sizes do not fit, or a similarity is NaN.
    """
    sims, true = _labelled(sims, label_masks)
    ranks = []
    for sims_L, true_L in zip(sims.unbind(1), true.unbind(1), strict=True):
        own = sims_L[true_L].unsqueeze(1)  # (labels of this video, 1)
        places = ranks_in_rows(sims_L.expand(len(own), -1), own)
        ranks.append(places - torch.arange(len(own), device=places.device))
    return rank_metrics(torch.cat(ranks))


def mean_average_precision(sims: Array, label_masks: Array) -> dict[str, float]:
    """Mean over labels of the average precision of the videos ranked for them.

    Labels that are true of no video count 0. Arguments and errors as in
    `retrieval_as_classification`.
    """
    sims, true = _labelled(sims, label_masks)
    # Not a stable sort: the published figures have tied videos in the order of torch's own sort.
    order = sims.argsort(dim=1, descending=True)
    hits = true.gather(1, order).double()  # (L, N)
    places = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    precision = hits.cumsum(dim=1) / places
    per_label = (precision * hits).sum(dim=1) / hits.sum(dim=1).clamp(min=1)
    return {"mAP": per_label.mean().item()}


def _labelled(sims: Array, label_masks: Array) -> tuple[Tensor, Tensor]:
    sims, true = torch.as_tensor(sims), torch.as_tensor(label_masks).bool()
    if sims.dim() != 2 or sims.shape != true.shape or not true.any():
        raise ValueError(
            f"Expected a matrix and label masks of the same shape with a true label, found "
            f"{tuple(sims.shape)} and {tuple(true.shape)}."
        )
    if holds_nan(sims):
        raise ValueError("The similarity matrix holds NaN: it cannot be ranked.")
    return sims, true


def _source(sims: Array, query_masks: Array | None) -> tuple[BlockSource, Tensor]:
    sims = torch.as_tensor(sims)
    if sims.dim() != 2 or not len(sims):
        raise ValueError(f"Expected a similarity matrix, found the shape {tuple(sims.shape)}.")
    num_queries, num_videos = sims.shape
    if num_queries % num_videos:
        raise ValueError(
            f"{num_queries} queries cannot be shared out evenly among {num_videos} videos."
        )
    shape = (num_videos, num_queries // num_videos)
    masks = torch.ones(shape) if query_masks is None else torch.as_tensor(query_masks)
    if tuple(masks.shape) != shape:
        raise ValueError(f"query_masks has the shape {tuple(masks.shape)}, expected {shape}.")
    return blocks_of(sims), masks
