"""Histogram and recall curve: they count what the metrics count."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logger.page.charts import histogram, place_of, recall_chart, recall_curve
from model.metric import RECALL_AT, rank_metrics

some_ranks = st.lists(st.integers(2, 1400).map(lambda halves: halves / 2), min_size=1, max_size=40)


@given(ranks=some_ranks)
def test_the_histogram_adds_up_to_the_recalls_of_the_metrics(ranks):
    bins = histogram(ranks, 700)
    metrics = rank_metrics(torch.tensor(ranks))
    assert sum(b.count for b in bins) == len(ranks)
    for k in RECALL_AT:
        percent = sum(b.percent for b in bins if b.last <= k)
        assert percent == pytest.approx(metrics[f"R{k}"])


@given(ranks=some_ranks, num_candidates=st.integers(1, 2000))
def test_bins_follow_each_other_and_hold_every_rank(ranks, num_candidates):
    bins = histogram(ranks, num_candidates)
    assert bins[0].first == bins[0].last == 1
    assert all(a.last + 1 == b.first for a, b in pairwise(bins))
    assert bins[-1].last == max(num_candidates, max(map(place_of, ranks)))
    for b in bins:
        assert b.count == sum(b.first <= place_of(rank) <= b.last for rank in ranks)


@given(ranks=some_ranks)
def test_the_curve_is_the_share_of_places_up_to_each_k(ranks):
    curve = recall_curve(ranks, 700)
    assert curve[0][0] == 1 and curve[-1] == (700, 100)
    assert [k for k, _ in curve] == sorted({k for k, _ in curve})
    for k, recall in curve:
        share = sum(place_of(rank) <= k for rank in ranks) / len(ranks)
        assert recall == pytest.approx(100 * share)


def test_a_half_is_the_place_before_it_but_never_the_first():
    assert [place_of(rank) for rank in (1, 1.5, 2, 2.5, 10.5, 11.0)] == [1, 2, 2, 2, 10, 11]


def test_without_ranks_there_is_nothing_to_draw():
    assert histogram([], 5) == [] and recall_curve([], 5) == []
    assert recall_chart({}, {}) is None


@given(ranks=some_ranks, num_videos=st.integers(1, 700))
def test_the_drawing_stays_within_its_axes(ranks, num_videos):
    ranks = [min(rank, num_videos) for rank in ranks]
    chart = recall_chart({"t2v": ranks}, {"t2v": num_videos, "v2t": 1})
    [line] = chart.lines
    points = [tuple(map(float, point.split(","))) for point in line.points.split()]
    assert all(34 <= x <= 308 and 10 <= y <= 136 for x, y in points)
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))
    assert 34 <= line.median <= 308
    assert chart.across[0].label == "1" and chart.upwards[-1].label == "100"
