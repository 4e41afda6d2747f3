"""The charts of a rankings page: ranks as a histogram, recall as a curve in SVG's coordinates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from logger.page.data import Curve

_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 308, 10, 136


@dataclass(frozen=True)
class Tick:
    """A label at a place of an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """The curve of one direction, and where its median rank lies."""

    direction: str
    points: str  # of an SVG polyline
    median: float  # x
    words: str  # what the curve says, for those who do not see it


@dataclass(frozen=True)
class Chart:
    """Recall (upwards, percent) at K (to the right, on a logarithmic scale)."""

    lines: list[Line]
    across: list[Tick]
    upwards: list[Tick]


def recall_chart(
    ranks: Mapping[str, Sequence[float]], candidates: Mapping[str, int]
) -> Chart | None:
    """Draw one curve for each direction ("t2v", "v2t"); None without ranks."""
    if not ranks:
        return None
    most = max(2, *(candidates[direction] for direction in ranks))
    lines = []
    for direction, values in ranks.items():
        curve = recall_curve(values, candidates[direction])
        points = " ".join(f"{_x(k, most):.1f},{_y(recall):.1f}" for k, recall in curve)
        median = float(np.median(np.asarray(values, dtype=np.float64)))
        at = {k: recall for k, recall in curve if k in (1, curve[-1][0])}
        words = f"from {at[1]:.1f} % at K = 1, median rank {median:g}"
        lines.append(Line(direction, points, round(_x(max(median, 1), most), 1), words))
    powers = [10**exponent for exponent in range(1 + int(math.log10(most)))]
    across = [Tick(round(_x(k, most), 1), str(k)) for k in powers]
    upwards = [Tick(round(_y(percent), 1), f"{percent}") for percent in (0, 25, 50, 75, 100)]
    return Chart(lines, across, upwards)


def _x(k: float, most: int) -> float:
    return _LEFT + (_RIGHT - _LEFT) * math.log(k) / math.log(most)


def _y(percent: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * percent / 100


@dataclass(frozen=True)
class CurveChart:
    """A curve of the training over its epochs."""

    name: str
    points: str
    words: str
    across: list[Tick]
    upwards: list[Tick]


def curve_charts(curves: Sequence[Curve]) -> list[CurveChart]:
    """Draw curves that have at least two finite points."""
    charts = []
    for curve in curves:
        points = [(epoch, value) for epoch, value in curve.points if math.isfinite(value)]
        if len(points) < 2:
            continue
        epochs, values = zip(*points, strict=True)
        low, high = min(values), max(values)
        height, width = (high - low) or 1.0, (epochs[-1] - epochs[0]) or 1

        def x(epoch: float, first: float = epochs[0], width: float = width) -> float:
            return round(_LEFT + (_RIGHT - _LEFT) * (epoch - first) / width, 1)

        def y(value: float, low: float = low, height: float = height) -> float:
            return round(_BOTTOM - (_BOTTOM - _TOP) * (value - low) / height, 1)

        charts.append(
            CurveChart(
                curve.name,
                " ".join(f"{x(epoch)},{y(value)}" for epoch, value in points),
                f"from {values[0]:.3g} to {values[-1]:.3g}",
                [Tick(x(e), f"{e}") for e in dict.fromkeys((epochs[0], epochs[-1]))],
                [Tick(y(v), f"{v:.2g}") for v in dict.fromkeys((low, high))],
            )
        )
    return charts


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
