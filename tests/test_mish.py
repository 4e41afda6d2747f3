"""Mish is torch's mish, and so are its gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model.fast import Mish

FINITE = st.floats(-1e4, 1e4, width=32)


def value_and_gradient(function, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    y.backward(torch.linspace(-2, 3, x.numel()).view_as(x))
    return y.detach(), x.grad


@settings(deadline=None)
@given(values=st.lists(FINITE, min_size=1, max_size=40))
def test_values_and_gradients_are_those_of_torch(values: list[float]) -> None:
    x = torch.tensor(values)
    for found, expected in zip(
        value_and_gradient(Mish(), x), value_and_gradient(F.mish, x), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_to_torch(dtype: torch.dtype) -> None:
    x = torch.linspace(-5, 5, 11, dtype=dtype)
    assert torch.equal(Mish()(x), F.mish(x))


def test_not_a_number_stays_one() -> None:
    assert torch.isnan(Mish()(torch.tensor([float("nan"), 1.0]))).tolist() == [True, False]
