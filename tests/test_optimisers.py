"""Optimisers follow the published trajectories; schedules give the published rates."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainer.optimisation.optimisers import OPTIMISERS, Ranger, build_optimiser
from trainer.optimisation.schedules import CosineAnnealingWithRestartsLR, build_schedule
from utils.errors import UserError

TRAJECTORIES = [
    "RAdam_lr0.001_wd0.001_fixedgrad",
    "RAdam_lr0.1_wd0.001_quadratic",
    "Ranger_lr0.001_wd0.001_quadratic",
    "Ranger_lr0.1_wd0.001_fixedgrad",
    "Ranger_lr0.1_wd0_quadratic",
]


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_published_trajectories(golden: Path, case: str) -> None:
    arrays = np.load(golden / "loss_optim" / f"{case}.npz")
    names = [key[2:] for key in arrays if key.startswith("p.")]
    net = nn.ParameterDict({n: torch.from_numpy(arrays[f"p.{n}"][0].copy()) for n in names})
    settings = {"lr": float(arrays["lr"]), "weight_decay": float(arrays["wd"])}
    optimiser = build_optimiser(case.split("_")[0], settings, net)
    for step in range(len(arrays[f"p.{names[0]}"]) - 1):
        for name in names:
            if f"g.{name}" in arrays:
                gradient = torch.from_numpy(arrays[f"g.{name}"][step].copy())
            else:
                centre = torch.from_numpy(arrays[f"center.{name}"])
                gradient = torch.from_numpy(arrays[f"curv.{name}"]) * (net[name].detach() - centre)
            net[name].grad = gradient
        optimiser.step()
        for name in names:
            found, expected = net[name].detach().numpy(), arrays[f"p.{name}"][step + 1]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=f"{name} {step}")


@pytest.mark.parametrize(
    ("case", "T_max", "T_mult", "eta_min"),
    [
        ("T10_mult1_eta0.0", 10, 1, 0.0),
        ("T5_mult2_eta0.0", 5, 2, 0.0),
        ("T4_mult3_eta0.001", 4, 3, 0.001),
        ("T7_mult1.5_eta0.01", 7, 1.5, 0.01),
    ],
)
def test_published_restarts(
    golden: Path, case: str, T_max: int, T_mult: float, eta_min: float
) -> None:
    expected = np.load(golden / "loss_optim" / "lr_schedules.npz")[f"{case}.step_only"]
    net = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    schedule = CosineAnnealingWithRestartsLR(optimiser, T_max, eta_min, T_mult=T_mult)
    rates = []
    for _ in expected:
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    np.testing.assert_allclose(rates, expected, atol=1e-8)


def train(optimiser_kind: str, steps: int, resume_after: int | None) -> torch.Tensor:
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    data = torch.randn(steps, 8, 4)
    optimiser = build_optimiser(optimiser_kind, {"lr": 0.05}, net)
    for step in range(steps):
        if step == resume_after:
            state = optimiser.state_dict()
            optimiser = build_optimiser(optimiser_kind, {"lr": 0.05}, net)
            optimiser.load_state_dict(state)
        optimiser.zero_grad()
        net(data[step]).square().mean().backward()
        optimiser.step()
    return net.weight.detach()


@pytest.mark.parametrize(
    ("case", "step_size", "gamma", "rate"),
    [("StepLR_1_0.95_0.1", 1, 0.95, 0.1), ("StepLR_3_0.5_0.01", 3, 0.5, 0.01)],
)
def test_published_steps(
    golden: Path, case: str, step_size: int, gamma: float, rate: float
) -> None:
    expected = np.load(golden / "loss_optim" / "lr_schedules.npz")[case]
    optimiser = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=rate)
    schedule = build_schedule("StepLR", {"step_size": step_size, "gamma": gamma}, optimiser)
    for wanted in expected:
        assert optimiser.param_groups[0]["lr"] == pytest.approx(wanted, abs=1e-9)
        optimiser.step()
        schedule.step()


def test_no_published_trajectory_is_left_out(golden: Path) -> None:
    found = {path.stem for path in (golden / "loss_optim").glob("*_lr*_wd*.npz")}
    assert found == set(TRAJECTORIES)


@pytest.mark.parametrize("kind", sorted(OPTIMISERS))
def test_fast_implementations_take_the_same_steps(kind: str) -> None:
    nets = []
    for settings in ({}, {"foreach": False}):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        optimiser = build_optimiser(kind, {"lr": 0.01} | settings, net)
        group = optimiser.param_groups[0]
        if kind == "NAdam":
            assert group["foreach"] is (not settings)
        if kind in ("Adam", "AdamW", "SGD", "RAdam", "Ranger"):
            assert bool(group["fused"]) is (not settings)
        for _ in range(15):
            optimiser.zero_grad()
            net(torch.randn(6, 3)).square().mean().backward()
            optimiser.step()
        nets.append(net)
    for fast, slow in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Ranger", "RAdam"])
def test_saved_state_continues_exactly(kind: str) -> None:
    assert torch.equal(train(kind, 20, None), train(kind, 20, resume_after=8))


@pytest.mark.parametrize("kind", ["Ranger", "RAdam"])
def test_parameters_that_miss_steps_are_counted_apart(kind: str) -> None:
    """As torch counts them, one by one; loading keeps the counts, and keeps them on the host."""
    results = []
    for settings in ({}, {"foreach": False}):
        net = nn.ParameterDict({n: torch.linspace(-1, 1, 5) for n in "abc"})
        optimiser = build_optimiser(kind, {"lr": 0.1} | settings, net)
        for step in range(20):
            if step == 9:
                state = optimiser.state_dict()
                optimiser = build_optimiser(kind, {"lr": 0.1} | settings, net)
                optimiser.load_state_dict(state)
            for place, name in enumerate("abc"):
                net[name].grad = net[name].detach() * 2 if step % (place + 1) == 0 else None
            optimiser.step()
        counts = [optimiser.state[net[n]]["step"] for n in "abc"]
        assert [int(count) for count in counts] == [20, 10, 7]
        assert all(count.device.type == "cpu" for count in counts)
        results.append([net[n].detach() for n in "abc"])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_loading_leaves_the_count_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    brought = torch.tensor(1.0)  # torch's device without memory has no number to bring back
    monkeypatch.setattr(torch.Tensor, "cpu", lambda count: brought)
    net = nn.Linear(2, 2, device="meta")
    optimiser = Ranger(net.parameters(), lr=0.1, fused=True)
    for parameter in net.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimiser.step()
    optimiser.load_state_dict(optimiser.state_dict())
    assert {state["step"].device.type for state in optimiser.state.values()} == {"cpu"}


def test_lookahead_returns_to_between_slow_and_fast_weights() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    fast = nn.Parameter(torch.tensor([1.0]))
    ranger = Ranger([parameter], lr=0.1, k=3, alpha=0.25)
    radam = torch.optim.RAdam(
        [fast], lr=0.1, betas=(0.95, 0.999), eps=1e-5, decoupled_weight_decay=True
    )
    for _ in range(3):
        parameter.grad = torch.tensor([2.0])
        fast.grad = torch.tensor([2.0])
        ranger.step()
        radam.step()
    assert parameter.item() == pytest.approx(1.0 + 0.25 * (fast.item() - 1.0), abs=1e-6)


def test_unknown_arguments_are_refused() -> None:
    net = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"optimizer\.args.*learning_rate"):
        build_optimiser("Adam", {"learning_rate": 1}, net)
    with pytest.raises(UserError, match=r"lr_scheduler\.args"):
        build_schedule("StepLR", {}, torch.optim.SGD(net.parameters(), lr=1))


def test_an_optimiser_is_built_without_the_compiler() -> None:
    program = (
        "import sys, torch; from trainer.optimisation.optimisers import build_optimiser as build\n"
        "net = torch.nn.Linear(2, 2); made = build('Ranger', {'lr': 0.1}, net)\n"
        "made.zero_grad(); net(torch.ones(1, 2)).sum().backward(); made.step()\n"
        "made.load_state_dict(made.state_dict())\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
