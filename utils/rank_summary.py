"""What the ranks of all queries look like: a histogram, and the recall at every K."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CURVE_POINTS = 60


@dataclass(frozen=True)
class Bin:
    """Queries whose true match is at the places `first` to `last`."""

    first: int
    last: int
    count: int
    percent: float  # of all queries

    @property
    def label(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


def place_of(rank: float) -> int:
    """The place that a rank counts as: recall at K is the share of places up to K.

    Ranks are halves where ties are. A half counts as the place before it, but only an untied
    first place is the first, as R@1 has it.
    """
    return 1 if rank == 1 else max(2, math.floor(rank))


def histogram(ranks: Sequence[float], num_candidates: int) -> list[Bin]:
    """Count ranks in bins that end at 1, 5, 10, 20, 50, 100, 200, 500, ... candidates."""
    if not len(ranks):
        return []
    places = _places(ranks)
    bins, first = [], 1
    for last in _ends(max(num_candidates, int(places.max()))):
        count = int(((places >= first) & (places <= last)).sum())
        bins.append(Bin(first, last, count, 100 * count / len(places)))
        first = last + 1
    return bins


def recall_curve(ranks: Sequence[float], num_candidates: int) -> list[tuple[int, float]]:
    """Recall (percent) at some K from 1 to the number of candidates, evenly spread in log K."""
    if not len(ranks):
        return []
    places = np.sort(_places(ranks))
    most = max(num_candidates, 1)
    at = np.unique(np.geomspace(1, most, _CURVE_POINTS).round().astype(np.int64))
    recalls = 100 * np.searchsorted(places, at, side="right") / len(places)
    return list(zip(at.tolist(), recalls.tolist(), strict=True))


def _places(ranks: Sequence[float]) -> np.ndarray:
    return np.array([place_of(rank) for rank in ranks])


def _ends(most: int) -> list[int]:
    ends, end = [1], 5
    while end < most:
        ends.append(end)
        end = end * 5 // 2 if str(end).startswith("2") else end * 2
    return ends + [most] * (most > 1)
