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

ALL = slice(None)

# Rows and columns that are compared at once: what lies in a core's cache, or keeps a GPU busy.
CACHE_TILE = (64, 4096)
DEVICE_TILE = (1024, 2**16)


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
    t2v, best_own_N = rank_videos(source, query_masks)
    return Ranks(t2v, rank_captions(source, query_masks, best_own_N))


@torch.no_grad()
def rank_videos(
    source: BlockSource, query_masks: Tensor, videos: slice = ALL
) -> tuple[Tensor, Tensor]:
    """Rank the videos for each caption; arguments and errors as in `compute_ranks`.

    Args:
        source, query_masks: as in `compute_ranks`, but for
        videos: those whose captions are the source's rows.

    Returns:
        The ranks of these captions, of those that exist, and what `best_own` returns of the videos.
    """
    check_query_masks(query_masks)
    t2v, own = [], []
    for valid_q, own_q, block in _checked(source, query_masks, videos):
        t2v.append(ranks_in_rows(block, own_q.unsqueeze(1))[valid_q].cpu())
        own.append(own_q.masked_fill(~valid_q, -torch.inf))
    return torch.cat(t2v), torch.cat(own).view(query_masks[videos].shape).amax(dim=1)


@torch.no_grad()
def best_own(source: BlockSource, query_masks: Tensor) -> Tensor:
    """Similarity of each video and the most similar of its own captions, (N,).

    Arguments and errors as in `compute_ranks`, but for NaN, which is not looked for.
    """
    check_query_masks(query_masks)
    numbered = _numbered(source, query_masks)
    own = [own_q.masked_fill(~valid_q, -torch.inf) for valid_q, own_q, _ in numbered]
    return torch.cat(own).view(query_masks.shape).amax(dim=1)


@torch.no_grad()
def rank_captions(
    source: BlockSource, query_masks: Tensor, best_own_N: Tensor, videos: slice = ALL
) -> Tensor:
    """Return the best rank of each video's own captions among the source's captions, (N,).

    Arguments and errors as in `rank_videos`, which returns `best_own_N`.
    """
    check_query_masks(query_masks)
    counts_N = torch.zeros(len(best_own_N), dtype=torch.float64, device=best_own_N.device)
    for valid_q, _, block in _checked(source, query_masks, videos):
        if not valid_q.all():
            block = block[valid_q]
        for _, columns, tile in _tiles(block):
            counts_N[columns] += _place_counts(tile, best_own_N[columns], dim=0)
    return ((counts_N + 1) / 2).cpu()


@torch.no_grad()
def ranks_in_rows(candidates: Tensor, own: Tensor) -> Tensor:
    """Rank `own` (q, 1), one of the candidates of its row, among the candidates (q, N)."""
    counts_q = torch.zeros(len(own), dtype=torch.float64, device=candidates.device)
    for rows, _, tile in _tiles(candidates):
        counts_q[rows] += _place_counts(tile, own[rows], dim=1)
    return (counts_q + 1) / 2


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
    found = [torch.empty((0, k), dtype=torch.int64)]
    for valid_q, _, block in _checked(source, query_masks):
        found.append(best_in_rows(block[valid_q], k).cpu())
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


def _place_counts(tile: Tensor, own: Tensor, dim: int) -> Tensor:
    """How many candidates are more similar, plus how many are at least as similar: 2 rank - 1.

    The comparisons give 0.0 and 1.0: sums of floats run over whole vector registers, those of
    booleans do not, and as long as a tile has less than 2^24 rows and columns they are exact.
    """
    marks = torch.empty(tile.shape, dtype=torch.float32, device=tile.device)
    above = torch.gt(tile, own, out=marks).sum(dim=dim)
    return above + torch.ge(tile, own, out=marks).sum(dim=dim)


def _tiles(block: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    height, width = CACHE_TILE if block.device.type == "cpu" else DEVICE_TILE
    for top in range(0, len(block), height):
        for left in range(0, block.shape[1], width):
            rows, columns = slice(top, top + height), slice(left, left + width)
            yield rows, columns, block[rows, columns]


def _numbered(
    source: BlockSource, query_masks: Tensor, videos: slice = ALL
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give each block with its queries' validity and their own videos' similarities, (q,) each."""
    num_videos, num_captions = query_masks.shape
    valid_Q = query_masks[videos].bool().flatten()
    first, start = videos.indices(num_videos)[0] * num_captions, 0
    for block in source():
        if block.shape[1] != num_videos:
            raise ValueError(f"Expected {num_videos} videos in a row, found {block.shape[1]}.")
        stop = start + len(block)
        if stop > len(valid_Q):
            raise ValueError(f"Expected {len(valid_Q)} queries, found at least {stop}.")
        own_Q = torch.arange(first + start, first + stop, device=block.device)
        own_videos_q1 = own_Q.unsqueeze(1) // num_captions
        own_q = block.gather(1, own_videos_q1).squeeze(1)
        yield valid_Q[start:stop].to(block.device), own_q, block
        start = stop
    if start != len(valid_Q):
        raise ValueError(f"Expected {len(valid_Q)} queries, found {start}.")


def _checked(
    source: BlockSource, query_masks: Tensor, videos: slice = ALL
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give the same as `_numbered`, and refuse NaN."""
    for valid_q, own_q, block in _numbered(source, query_masks, videos):
        if holds_nan(block):
            raise ValueError("The similarity matrix holds NaN: it cannot be ranked.")
        yield valid_q, own_q, block


def holds_nan(block: Tensor) -> bool:
    """Whether a block holds NaN; quick where it does not."""
    # A sum with a NaN is NaN. So is one of both infinities: then it has to be looked up.
    return bool(torch.isnan(block.sum())) and bool(torch.isnan(block).any())
