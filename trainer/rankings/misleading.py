"""Which expert misled a query: how its true video would rank if no video had that expert.

Axes: Q queries (captions), N videos, M experts, D embedding size of an expert.
"""

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from model.similarity import TextEmbeddings, VideoEmbeddings


def similarities_without(text: TextEmbeddings, video: VideoEmbeddings) -> Iterator[Tensor]:
    """Give, for each expert in turn, `similarity` (Q, N) as it would be if no video had it.

    Each expert's own product is made once; sums over all but one are those up to it and those from
    behind it, so that nothing is subtracted and small weights lose no digits.
    """
    weights_QM, availability_NM = text.weights, video.availability
    parts, shares = [], []  # (Q, N) each: what an expert adds, and its share of the weights
    for m, (text_QD, video_ND) in enumerate(zip(text.embeddings, video.embeddings, strict=True)):
        if weights_QM is None:
            parts.append(text_QD @ video_ND.T)
            continue
        share_QN = torch.outer(weights_QM[:, m], availability_NM[:, m])
        parts.append((text_QD @ video_ND.T).mul_(share_QN))
        shares.append(share_QN)
    sums = _sums_without(parts)
    if weights_QM is None:
        yield from sums
        return
    for sum_QN, total_QN in zip(sums, _sums_without(shares), strict=True):
        # Without any other expert the sum is 0 as well.
        yield sum_QN / torch.where(total_QN > 0, total_QN, 1.0)


def _sums_without(parts: list[Tensor]) -> Iterator[Tensor]:
    """The sum of all parts but one, for each of them in turn."""
    nothing = torch.zeros_like(parts[0])
    behind = list(accumulate(reversed(parts[1:]), initial=nothing))[::-1]
    before = nothing
    for part, rest in zip(parts, behind, strict=True):
        yield before + rest
        before = before + part
