"""The recall curve of a rankings page as coordinates of an SVG drawing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.rank_summary import recall_curve

WIDTH, HEIGHT = 320, 170
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
