"""Ranks by counting, block by block: exact, and bounded in memory whatever the matrix.

A rank is 1 plus the number of candidates that are more similar, plus half of the other candidates
that are equally similar: ties count the mean of the tied places. Nothing is sorted.

Axes: Q queries (captions), N videos, C captions per video; query q belongs to video q // C.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Calling it starts one pass over the similarity matrix: blocks of rows (q, N) from the top down.
BlockSource = Callable[[], Iterable[Tensor]]


@dataclass(frozen=True)
class Ranks:
    """Ranks (1-based; halves where ties are) of a retrieval set."""

    t2v: Tensor  # (valid queries,) float64: place of the caption's own video among all videos
    v2t: Tensor  # (N,) float64: best place of a video's own captions among all captions


def blocks_of(sims: Tensor, rows: int = 1024) -> BlockSource:
    """Make a matrix that lies in memory a source of blocks."""
    return lambda: sims.split(rows)


def check_query_masks(query_masks: Tensor) -> None:
    """Refuse a retrieval set in which a video has no caption: it has no rank.

    Raises:
        ValueError: with the number of such videos and the first of them.
    """
    without = (~query_masks.bool()).all(dim=1).nonzero().flatten()
    if len(without):
        raise ValueError(
            f"{len(without)} of {len(query_masks)} videos have no caption (the first is number "
            f"{without[0].item()}): a retrieval set needs at least one caption for each video."
        )


def compute_ranks(source: BlockSource, query_masks: Tensor) -> Ranks:
    """Rank both directions in two passes over the blocks.

    The first pass ranks the videos for each caption and notes each video's most similar own
    caption; the second counts, for each video, the captions above that one. Both passes have to
    deliver the same numbers bit for bit, or ties would be lost.

    Args:
        source: gives the blocks of the (Q, N) similarity matrix; see `BlockSource`.
        query_masks: (N, C), 1 for captions that exist.

    Raises:
        ValueError: a similarity is NaN, a video has no caption, or the sizes do not fit.
    """
    check_query_masks(query_masks)
    num_videos, num_captions = query_masks.shape
    valid_Q = query_masks.bool().flatten()
    t2v = []
    best_own_N: Tensor | None = None
    for rows, block in _numbered(source, len(valid_Q), num_videos):
        own_q = torch.arange(rows.start, rows.stop, device=block.device) // num_captions
        own_sims = block.gather(1, own_q.unsqueeze(1))  # (q, 1)
        valid_q = valid_Q[rows].to(block.device)
        t2v.append(ranks_in_rows(block, own_sims)[valid_q].cpu())
        if best_own_N is None:
            best_own_N = block.new_full((num_videos,), -torch.inf)
        best_own_N.scatter_reduce_(0, own_q[valid_q], own_sims[valid_q].squeeze(1), "amax")
    above_N = torch.zeros(num_videos, dtype=torch.int64, device=best_own_N.device)
    equal_N = torch.zeros_like(above_N)
    for rows, block in _numbered(source, len(valid_Q), num_videos):
        block = block[valid_Q[rows].to(block.device)]
        above_N += (block > best_own_N).sum(dim=0)
        equal_N += (block == best_own_N).sum(dim=0)
    v2t = 1 + above_N.double() + (equal_N.double() - 1) / 2
    return Ranks(t2v=torch.cat(t2v), v2t=v2t.cpu())


def ranks_in_rows(candidates: Tensor, own: Tensor) -> Tensor:
    """Rank `own` (q, 1), one of the candidates of its row, among the candidates (q, N)."""
    above = (candidates > own).sum(dim=1)
    equal = (candidates == own).sum(dim=1)
    return 1 + above.double() + (equal.double() - 1) / 2


def find_best(source: BlockSource, query_masks: Tensor, k: int) -> Tensor:
    """Find the k most similar videos of each query in one pass over the blocks.

    Args:
        source: gives the blocks of the (Q, N) similarity matrix; see `BlockSource`.
        query_masks: (N, C), 1 for captions that exist.
        k: at most N.

    Returns:
        (valid queries, k) int64, the most similar first and of equals the lower index first, in
        the order of videos, then captions.

    Raises:
        ValueError: a similarity is NaN, or the sizes do not fit.
    """
    valid_Q = query_masks.bool().flatten()
    found = [torch.empty((0, k), dtype=torch.int64)]
    for rows, block in _numbered(source, len(valid_Q), len(query_masks)):
        found.append(best_in_rows(block[valid_Q[rows].to(block.device)], k).cpu())
    return torch.cat(found)


def best_in_rows(candidates: Tensor, k: int) -> Tensor:
    """Return (q, k) the places of the k largest of each row (q, N), of equals the lower first."""
    # topk knows the k-th value, but takes any of those that equal it, in any order.
    last = candidates.topk(k, dim=1).values[:, -1:]  # (q, 1)
    above, equal = candidates > last, candidates == last
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    places = chosen.nonzero()[:, 1].view(-1, k)  # (q, k), ascending
    order = candidates.gather(1, places).argsort(dim=1, descending=True, stable=True)
    return places.gather(1, order)


def _numbered(
    source: BlockSource, num_queries: int, num_videos: int
) -> Iterator[tuple[slice, Tensor]]:
    start = 0
    for block in source():
        if block.shape[1] != num_videos:
            raise ValueError(f"Expected {num_videos} videos in a row, found {block.shape[1]}.")
        if torch.isnan(block).any():
            raise ValueError("The similarity matrix holds NaN: it cannot be ranked.")
        yield slice(start, start + len(block)), block
        start += len(block)
    if start != num_queries:
        raise ValueError(f"Expected {num_queries} queries, found {start}.")
