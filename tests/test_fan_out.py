"""Layers applied together give the numbers and gradients that each gives alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model import fast as module
from model.fast import fan_out


def gradients(outputs: list[Tensor], x: Tensor, layers: nn.ModuleList) -> list[Tensor]:
    weights = [torch.linspace(-1, 2, o.numel(), dtype=o.dtype).view_as(o) for o in outputs]
    torch.autograd.backward(outputs, weights)
    found = [x.grad, *(p.grad for p in layers.parameters())]
    x.grad = None
    layers.zero_grad()
    return found


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 5),
    size=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    columns=st.integers(1, 50),
)
def test_numbers_and_gradients_are_those_of_each_layer(
    rows: int, size: int, sizes: list[int], columns: int
) -> None:
    layers = nn.ModuleList(nn.Linear(size, out) for out in sizes)
    x = torch.randn(rows, size, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_COLUMNS", columns)
        together = fan_out(x, layers)
        found = gradients(together, x, layers)
    alone = [layer(x) for layer in layers]
    for one, other in zip(together + found, alone + gradients(alone, x, layers), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_frozen_layers_and_inputs_get_no_gradient() -> None:
    layers = nn.ModuleList(nn.Linear(3, 2) for _ in range(2))
    layers[0].requires_grad_(False)
    x = torch.randn(4, 3)
    sum(y.sum() for y in fan_out(x, layers)).backward()
    assert x.grad is None and layers[0].weight.grad is None
    torch.testing.assert_close(layers[1].weight.grad, x.sum(dim=0).expand(2, 3))


def test_bfloat16_is_what_each_layer_gives_alone() -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(300, size) for size in (20, 70))
    results = []
    for together in (True, False):
        layers.zero_grad()
        x = torch.linspace(-1, 1, 6 * 300).view(6, 300).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = fan_out(x, layers) if together else [layer(x) for layer in layers]
        assert {y.dtype for y in outputs} == {torch.bfloat16}
        results.append(gradients([y.float() for y in outputs], x, layers) + outputs)
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        size = float(other.detach().abs().max())
        torch.testing.assert_close(one, other, atol=0.02 * size, rtol=0.02)


def test_autocast_computes_in_its_own_precision() -> None:
    layers, x = [nn.Linear(3, 2)], torch.randn(4, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (y,) = fan_out(x, layers)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype == layers[0].weight.grad.dtype == torch.float32
