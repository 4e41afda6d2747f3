"""Averages of weights against loops over the single numbers."""

import pytest
import torch
from torch import Tensor, nn

from trainer.averaging import MovingAverage, mean_weights


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
    weights = {name: value.clone() for name, value in whole.net.state_dict().items()}
    later = MovingAverage(Net(seed=5), 0.9)
    later.restore(weights, whole.state())
    for _ in range(3):
        train_a_step(net)
        whole.update(net)
        later.update(net)
    for one, other in zip(whole.net.parameters(), later.net.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.state() == later.state()


@pytest.mark.parametrize("updates", [-1, 1.5, "3", None])
def test_a_damaged_state_is_refused(updates: object) -> None:
    average = MovingAverage(Net(), 0.9)
    with pytest.raises(ValueError, match="damaged"):
        average.restore(average.net.state_dict(), {"updates": updates})


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
