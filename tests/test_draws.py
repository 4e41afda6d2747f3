"""Draws without state: even, the same in any order, and different for any other use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.batches import epoch_permutation, item_uniform

whole = st.integers(-(2**63), 2**63 - 1)
MASK = 2**64 - 1


def naive_draw(seed, epoch, item, stream):
    """One draw with Python's unbounded integers."""
    z = 0
    for number in (seed, epoch, stream, item):
        z = ((z + 0x9E3779B97F4A7C15) & MASK) ^ (number & MASK)
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
    return (z >> 11) / 2**53


@settings(deadline=None)
@given(whole, whole, st.lists(whole, max_size=5), whole)
def test_each_draw_is_its_naive_twin(seed, epoch, items, stream):
    draws = item_uniform(seed, epoch, np.array(items, dtype=np.int64), stream)
    assert draws.dtype == np.float64 and draws.shape == (len(items),)
    assert draws.tolist() == [naive_draw(seed, epoch, item, stream) for item in items]
    assert ((draws >= 0) & (draws < 1)).all()


def test_draws_depend_on_nothing_but_their_item():
    items = np.arange(1000)
    draws = item_uniform(0, 3, items, 1)
    order = np.random.default_rng(0).permutation(1000)
    assert (item_uniform(0, 3, items[order], 1) == draws[order]).all()
    assert (item_uniform(0, 3, items.reshape(10, 100), 1).ravel() == draws).all()
    assert (item_uniform(0, 3, items[::7].astype(np.int32), 1) == draws[::7]).all()
    assert item_uniform(0, 3, np.array(5), 1) == draws[5]


# Neighbours in any one argument must look as unrelated as any two draws.
SERIES = {
    "item": lambda n: item_uniform(0, 1, np.arange(n), 0),
    "seed": lambda n: np.array([item_uniform(s, 1, np.array([7]), 0)[0] for s in range(n)]),
    "epoch": lambda n: np.array([item_uniform(0, e, np.array([7]), 0)[0] for e in range(n)]),
    "stream": lambda n: np.array([item_uniform(0, 1, np.array([7]), s)[0] for s in range(n)]),
}


@pytest.mark.parametrize("argument", SERIES)
def test_draws_are_even_and_neighbours_unrelated(argument):
    n, bins = 4000, 40
    draws = SERIES[argument](n)
    assert len(np.unique(draws)) == n
    counts = np.histogram(draws, bins, (0, 1))[0]
    # Chi-square with 39 degrees of freedom exceeds 81 once in 10^4 fixed seeds.
    assert ((counts - n / bins) ** 2 / (n / bins)).sum() < 81
    pairs = np.histogram2d(draws[:-1], draws[1:], 8, ((0, 1), (0, 1)))[0]
    expected = (n - 1) / 64
    assert ((pairs - expected) ** 2 / expected).sum() < 115  # 63 degrees, the same share
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / np.sqrt(n)


def test_seed_epoch_stream_and_item_are_not_interchangeable():
    values = [
        item_uniform(seed, epoch, np.arange(8), stream)
        for seed in range(8)
        for epoch in range(8)
        for stream in range(8)
    ]
    assert len(np.unique(values)) == 8**4


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 50))
def test_an_epoch_visits_every_item_once(seed, epoch, n):
    order = epoch_permutation(seed, epoch, n)
    assert sorted(order.tolist()) == list(range(n))
    assert (epoch_permutation(seed, epoch, n) == order).all()


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(epoch_permutation(s, e, 50)) for s in range(5) for e in range(5)}
    assert len(orders) == 25
