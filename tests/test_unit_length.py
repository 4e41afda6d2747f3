"""Vectors of length 1 are those of torch, and so are their gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model.fast import unit_length


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    dim=st.sampled_from([-1, 0, 1]),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_and_gradients_are_those_of_torch(
    shape: list[int], dim: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(shape, generator=generator)
    x[0] = 0  # a vector without length
    weights = torch.randn(shape, generator=generator)
    results = []
    for function in (unit_length, F.normalize):
        leaf = x.clone().requires_grad_()
        y = function(leaf, dim=dim)
        y.backward(weights)
        results.append((y.detach(), leaf.grad))
    (y, gradient), (expected, expected_gradient) = results
    assert torch.equal(y, expected)
    size = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-5 * size, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_stay_what_they_are(dtype: torch.dtype) -> None:
    x = torch.linspace(-5, 5, 12, dtype=dtype).view(3, 4)
    assert unit_length(x, dim=1).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(unit_length(x, dim=1), F.normalize(x, dim=1))
