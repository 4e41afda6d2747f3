"""Warm-up and cosine decay over steps."""

import math

import pytest
import torch
from torch import nn

from trainer.optimisation.schedules import WarmupCosineLR


def rates(steps: int, **settings: float) -> list[float]:
    optimiser = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = WarmupCosineLR(optimiser, steps=steps, **settings)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return [*found, optimiser.param_groups[0]["lr"]]


def test_it_rises_in_even_steps_and_falls_as_half_a_cosine() -> None:
    found = rates(100, warmup=0.2)
    assert found[:20] == pytest.approx([2 * (n + 1) / 21 for n in range(20)])
    expected = [1 + math.cos(math.pi * n / 80) for n in range(81)]
    assert found[20:] == pytest.approx(expected, abs=1e-9)


def test_without_warm_up_it_begins_at_the_top_and_ends_where_it_is_told() -> None:
    found = rates(7, warmup=0.0, final=0.1)
    assert found[0] == 2.0 and found[-1] == pytest.approx(0.2)
    assert found == sorted(found, reverse=True)


def test_after_its_end_it_stays() -> None:
    optimiser = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = WarmupCosineLR(optimiser, steps=3, final=0.5)
    for _ in range(9):
        optimiser.step()
        schedule.step()
    assert optimiser.param_groups[0]["lr"] == pytest.approx(1.0)


def test_going_on_gives_the_rates_of_an_unbroken_training() -> None:
    whole = rates(20)
    optimiser = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    first = WarmupCosineLR(optimiser, steps=20)
    for _ in range(8):
        optimiser.step()
        first.step()
    later = WarmupCosineLR(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0), steps=20)
    later.load_state_dict(first.state_dict())
    for expected in whole[9:]:
        later.step()
        assert later.get_last_lr()[0] == expected


@pytest.mark.parametrize("settings", [{"warmup": 1.0}, {"final": -0.1}, {"final": 2.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="warmup"):
        rates(3, **settings)
