"""Random draws without state: each depends on what it is for alone, not on any draw before it.

Whatever the batch, the order or the process, an item gets the same draw in the same epoch, so that
a training that goes on after a kill draws what an unbroken one would have drawn.
"""

import numpy as np

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_PERMUTATION = 0x7065726D  # sets this use of a seed apart from others


def item_uniform(seed: int, epoch: int, items: np.ndarray, stream: int) -> np.ndarray:
    """Draw one number in [0, 1) for each item, by hashing the four integers.

    The mixing is the finaliser of SplitMix64 (Steele, Lea and Flood 2014), once per integer.

    Args:
        seed: seed of the run.
        epoch: epoch of the training.
        items: whole numbers, of any shape; equal items get equal draws.
        stream: tells different uses of one item apart (its caption, a word of it, ...).

    Returns:
        float64, shaped like `items`.
    """
    items = np.asarray(items)
    assert np.issubdtype(items.dtype, np.integer), "items are whole numbers"
    state = np.zeros((), dtype=np.uint64)
    for number in (seed, epoch, stream):
        state = _mixed(state, np.array(number & _MASK, dtype=np.uint64))
    bits = _mixed(state, items.astype(np.int64).view(np.uint64))
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(items.shape)


def epoch_permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order in which an epoch visits `n` items: int64, a permutation of 0 .. n - 1."""
    return np.random.default_rng([seed, epoch, _PERMUTATION]).permutation(n)


def _mixed(state: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Take a number into the state; arithmetic is modulo 2^64."""
    # Arrays of one entry at least: numpy warns of overflow in scalars, and here it is meant.
    z = np.atleast_1d(state) + np.uint64(_GOLDEN)
    z = z ^ number
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
