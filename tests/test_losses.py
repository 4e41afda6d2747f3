"""Losses on similarities against double loops that anyone believes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.loss import LOSSES, MarginSoftmaxLoss, MaxMarginRankingLoss, NormSoftmaxLoss

seeds = st.integers(0, 2**31)


def random_sims(seed: int, n: int) -> Tensor:
    return 2 * torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) - 1


def naive_softmax_loss(sims: list[list[float]], temperature: float, smoothing: float) -> float:
    n, total = len(sims), 0.0
    for i in range(n):
        row = [math.exp(sims[i][j] / temperature) for j in range(n)]
        column = [math.exp(sims[j][i] / temperature) for j in range(n)]
        for shares in (row, column):
            for j in range(n):
                target = (1 - smoothing) * (i == j) + smoothing / n
                total -= target * math.log(shares[j] / sum(shares))
    return total / (2 * n)


@settings(deadline=None)
@given(seeds, st.integers(1, 6), st.floats(0.05, 2), st.sampled_from([0.0, 0.1, 0.5]))
def test_softmax_loss_is_the_double_loop(
    seed: int, n: int, temperature: float, smoothing: float
) -> None:
    sims = random_sims(seed, n)
    loss = NormSoftmaxLoss(temperature, label_smoothing=smoothing)(sims)
    naive = naive_softmax_loss(sims.tolist(), temperature, smoothing)
    assert loss.item() == pytest.approx(naive, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["NormSoftmaxLoss", "MarginSoftmaxLoss"])
@pytest.mark.parametrize("given_settings", [{}, {"learned": True}, {"label_smoothing": 0.2}])
def test_gradients_are_those_of_finite_differences(kind: str, given_settings: dict) -> None:
    loss = LOSSES[kind](**given_settings).double()
    sims = random_sims(1, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s, *_: loss(s), (sims, *loss.parameters()))


def test_nothing_overflows_at_a_small_temperature() -> None:
    sims = random_sims(2, 8).requires_grad_()
    loss = NormSoftmaxLoss(1e-3)(sims)
    loss.backward()
    assert loss.isfinite() and sims.grad.isfinite().all()


def test_one_video_has_loss_0() -> None:
    sims = torch.tensor([[0.3]], requires_grad=True)
    NormSoftmaxLoss()(sims).backward()
    assert sims.grad.item() == 0


@settings(deadline=None)
@given(st.floats(0.02, 0.9))
def test_a_learned_temperature_begins_where_the_fixed_one_stands(temperature: float) -> None:
    sims = random_sims(3, 4)
    fixed = NormSoftmaxLoss(temperature)
    learned = NormSoftmaxLoss(temperature, learned=True)
    assert not list(fixed.parameters()) and len(list(learned.parameters())) == 1
    torch.testing.assert_close(learned(sims), fixed(sims), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wanted", [1e-4, 100.0])
def test_a_learned_temperature_stays_within_its_bounds(wanted: float) -> None:
    loss = NormSoftmaxLoss(0.1, learned=True, lowest=0.05, highest=0.5)
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.5)
    for _ in range(50):
        optimiser.zero_grad()
        (loss.temperature - wanted).abs().backward()
        optimiser.step()
    edge = 0.05 if wanted < 0.05 else 0.5
    assert 0.05 <= loss.temperature.item() <= 0.5
    assert loss.temperature.item() == pytest.approx(edge, rel=0.05)


def test_a_learned_temperature_falls_where_all_pairs_are_found() -> None:
    loss = NormSoftmaxLoss(learned=True)
    loss(torch.eye(4)).backward()
    assert loss.position.grad.item() > 0  # the optimiser goes the other way


@settings(deadline=None)
@given(seeds, st.integers(2, 6), st.floats(0, 3))
def test_sum_of_both_losses(seed: int, n: int, weight: float) -> None:
    sims = random_sims(seed, n)
    both = MarginSoftmaxLoss(0.3, True, weight, temperature=0.2)(sims)
    parts = MaxMarginRankingLoss(0.3)(sims) + weight * NormSoftmaxLoss(0.2)(sims)
    torch.testing.assert_close(both, parts)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_matrix_that_is_not_square_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="square"):
        LOSSES[kind]()(torch.ones(2, 3))


@pytest.mark.parametrize(
    "given_settings",
    [
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"label_smoothing": 1.0},
        {"learned": True, "temperature": 2.0},
        {"learned": True, "lowest": 0.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(given_settings: dict) -> None:
    with pytest.raises(ValueError, match=r"temperature|label_smoothing"):
        NormSoftmaxLoss(**given_settings)
