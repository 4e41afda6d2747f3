"""Dropout that depends on (seed, epoch, item) alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.batches import _mixed as naive_mixed
from model.dropout import Dropout, keeps

whole = st.integers(0, 2**31)


@settings(deadline=None)
@given(whole, whole, st.integers(1, 9), st.sampled_from([0.1, 0.5, 0.9]))
def test_the_hash_is_that_of_the_other_draws(seed: int, epoch: int, count: int, p: float) -> None:
    items = [3, 0, 2**40]
    found = keeps(seed, epoch, torch.tensor(items), count, p, stream=7)
    for row, item in enumerate(items):
        state = np.zeros((), dtype=np.uint64)
        for number in (seed, epoch, 7, item):
            state = naive_mixed(state, np.array(number, dtype=np.uint64))
        for place in range(count):
            bits = int(naive_mixed(state, np.array(place // 4, dtype=np.uint64))[0])
            draw = (bits >> (16 * (place % 4))) % 2**16
            assert found[row, place].item() == (draw >= round(p * 2**16))


def test_an_item_loses_the_same_in_every_batch() -> None:
    whole = keeps(1, 2, torch.arange(50), 30, 0.3, 0)
    some = torch.tensor([41, 3, 17])
    assert torch.equal(keeps(1, 2, some, 30, 0.3, 0), whole[some])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(share: float) -> None:
    dropped = ~keeps(0, 0, torch.arange(400), 500, share, 0)
    assert dropped.float().mean().item() == pytest.approx(share, abs=0.005)
    # No row, column or pair of neighbours stands out.
    assert dropped.float().mean(0).std().item() == pytest.approx(
        (share * (1 - share) / 400) ** 0.5, rel=0.15
    )
    both = (dropped[:, 1:] & dropped[:, :-1]).float().mean().item()
    assert both == pytest.approx(share**2, abs=0.01)


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"stream": 1}])
def test_seed_epoch_and_stream_each_matter(change: dict[str, int]) -> None:
    numbers = {"seed": 0, "epoch": 0, "stream": 0}
    draws = [
        keeps(items=torch.arange(20), count=40, share=0.5, **some)
        for some in (numbers, numbers | change)
    ]
    assert 0.4 < (draws[0] == draws[1]).float().mean() < 0.6


def test_what_stays_of_pooled_features_makes_up_for_what_goes() -> None:
    drop = Dropout(features=0.25).pooled(torch.arange(200), epoch=1)
    x = torch.ones(200, 100)
    dropped = drop("rgb", x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(drop("audio", x), dropped) and torch.equal(drop("rgb", x), dropped)
    assert drop("text", x) is x


def test_captions_of_one_video_lose_different_features() -> None:
    drop = Dropout(text=0.5).pooled(torch.tensor([4, 9]), epoch=1)
    first, second, other, _ = drop("text", torch.ones(4, 64))
    assert not torch.equal(first, second) and not torch.equal(first, other)
    assert drop("rgb", first) is first


def test_nothing_is_dropped_by_default() -> None:
    ind = {"rgb": torch.ones(2)}
    assert not Dropout() and Dropout(text=0.1)
    assert Dropout().pooled(torch.arange(2), 0) is None
    assert Dropout().availability(ind, torch.arange(2), 0) is ind


def test_experts_go_but_never_the_last_one() -> None:
    items = torch.arange(300)
    ind = {"b": torch.ones(300), "a": (items % 2).float(), "c": torch.zeros(300)}
    left = Dropout(experts=0.6).availability(ind, items, epoch=3)
    assert left.keys() == ind.keys()
    for name in ind:
        assert (left[name] <= ind[name]).all()
    assert 0 < left["a"].sum() < ind["a"].sum() and 0 < left["b"].sum() < 300
    assert all(sum(left[name][row] for name in ind) >= 1 for row in range(300))
    some = torch.tensor([7, 250])
    again = Dropout(experts=0.6).availability({n: v[some] for n, v in ind.items()}, some, 3)
    assert all(torch.equal(again[name], left[name][some]) for name in ind)
