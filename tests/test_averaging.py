"""Averages of weights against loops over the single numbers."""

import copy

import pytest
import torch
from torch import Tensor, nn

from trainer.recipe.averaging import BestWeights, MovingAverage, mean_weights
from utils.errors import BadContent


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x))


def train_a_step(net: Net) -> None:
    net.train()
    net(torch.randn(4, 3)).square().sum().backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.1 * p.grad
    net.zero_grad()


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_moving_average_is_the_loop(decay: float) -> None:
    net = Net()
    average = MovingAverage(net, decay)
    naive = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(1, 30):
        train_a_step(net)
        average.update(net)
        now = min(decay, (1 + step) / (10 + step))
        for name, value in net.state_dict().items():
            is_whole = name.endswith("num_batches_tracked")
            naive[name] = value.clone() if is_whole else now * naive[name] + (1 - now) * value
    assert average.updates == 29
    for name, value in average.net.state_dict().items():
        torch.testing.assert_close(value, naive[name])
    if decay == 0:
        assert torch.equal(average.net.fc.weight, net.fc.weight)


def test_the_average_is_ready_to_be_evaluated_and_never_trained() -> None:
    net = Net().train()
    average = MovingAverage(net, 0.9)
    assert not average.net.training and net.training
    assert not any(p.requires_grad for p in average.net.parameters())
    assert all(p.requires_grad for p in net.parameters())
    assert average.net.fc.weight.data_ptr() != net.fc.weight.data_ptr()


def test_going_on_is_bit_for_bit_the_unbroken_average() -> None:
    net = Net()
    whole = MovingAverage(net, 0.9)
    for _ in range(3):
        train_a_step(net)
        whole.update(net)
    later = MovingAverage(Net(seed=5), 0.9)
    later.restore(copy.deepcopy(whole.state()))
    for _ in range(3):
        train_a_step(net)
        whole.update(net)
        later.update(net)
    for one, other in zip(whole.net.parameters(), later.net.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.updates == later.updates == 6


@pytest.mark.parametrize("updates", [-1, 1.5, "3", None])
def test_a_damaged_state_is_refused(updates: object) -> None:
    average = MovingAverage(Net(), 0.9)
    with pytest.raises(BadContent, match="damaged"):
        average.restore(average.state() | {"updates": updates})


def bigger(value: float | None, other: float | None) -> bool:
    return value is None or other is None or value > other


def test_the_best_weights_are_kept_and_averaged() -> None:
    best, nets = BestWeights(2), [Net(seed) for seed in range(4)]
    for epoch, (net, value) in enumerate(zip(nets, [3.0, 1.0, 2.0, 2.5], strict=True), 1):
        best.offer(epoch, value, bigger, net)
    assert best.epochs == [1, 4] and [entry["value"] for entry in best.kept] == [3.0, 2.5]
    expected = mean_weights([nets[0].state_dict(), nets[3].state_dict()])
    assert all(torch.equal(value, expected[name]) for name, value in best.mean().items())
    before = best.mean()["fc.weight"].clone()
    train_a_step(nets[0])
    assert torch.equal(best.mean()["fc.weight"], before)  # copies, not the model itself
    later = BestWeights(2)
    later.restore(best.kept, nets[0])
    assert later.epochs == best.epochs


def test_where_nothing_is_watched_the_newest_are_kept() -> None:
    best = BestWeights(3)
    for epoch in range(1, 6):
        best.offer(epoch, None, bigger, Net())
    assert best.epochs == [3, 4, 5]
    none = BestWeights(1)
    none.offer(1, 1.0, bigger, Net())
    assert not none.kept


@pytest.mark.parametrize(
    "damage", [{"epoch": "1"}, {"value": "x"}, {"weights": {"fc.weight": torch.ones(1)}}]
)
def test_damaged_best_weights_are_refused(damage: dict) -> None:
    entry = {"epoch": 1, "value": 1.0, "weights": Net().state_dict()} | damage
    with pytest.raises(BadContent, match="damaged"):
        BestWeights(2).restore([entry], Net())


def test_mean_of_weights_is_the_mean_of_each_number() -> None:
    nets = [Net(seed) for seed in range(3)]
    for net in nets:
        train_a_step(net)
    states = [net.state_dict() for net in nets]
    found = mean_weights(iter(states))
    for name, value in found.items():
        expected = torch.stack([state[name].double() for state in states]).mean(0)
        assert value.dtype == states[0][name].dtype
        torch.testing.assert_close(value, expected.to(value.dtype))
    Net().load_state_dict(found)
    assert torch.equal(mean_weights([states[0]])["fc.weight"], states[0]["fc.weight"])


def test_nothing_and_other_models_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no weights"):
        mean_weights([])
    other = nn.Linear(4, 2).state_dict()
    with pytest.raises(ValueError, match="different models"):
        mean_weights([Net().state_dict(), other])
