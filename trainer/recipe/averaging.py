"""Averages of weights: a moving one over the steps, or one over the best epochs.

Both find flatter minima than the last step does (Polyak and Juditsky 1992; Izmailov et al. 2018).
Running statistics of batch normalisation are averaged like weights, whole numbers are the newest.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.similarity import RetrievalModel
from utils.errors import BadContent

# Whether a monitored value is better than another, see `trainer.parts.Monitor`.
Better = Callable[[float | None, float | None], bool]

# After n updates the decay is at most (1 + n) / (10 + n): the random start is soon forgotten.
_WARM_UP = 10


class MovingAverage:
    """The exponential moving average of a model's weights over the steps of its training.

    Args:
        net: the model that is trained.
        decay: the share of the average that a step leaves, below 1; over about 1 / (1 - decay)
            steps it forgets.

    Attributes:
        net: a second model, in evaluation mode, with the averaged weights.
        updates: the number of steps so far.
    """

    def __init__(self, net: RetrievalModel, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.net = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take the weights of the trained model in, after a step."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (_WARM_UP + self.updates))
        own, other = _tensors(self.net), _tensors(net)
        moving = [i for i, value in enumerate(own) if value.is_floating_point()]
        torch._foreach_lerp_([own[i] for i in moving], [other[i] for i in moving], share)
        for value, newest in zip(own, other, strict=True):
            if not value.is_floating_point():
                value.copy_(newest)

    def state(self) -> dict[str, Any]:
        """Return what continuing exactly needs."""
        return {"updates": self.updates, "weights": self.net.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            KeyError, RuntimeError, BadContent, ...: it was not made by it.
        """
        updates = state["updates"]
        if type(updates) is not int or updates < 0:
            raise BadContent("its moving average is damaged")
        self.net.load_state_dict(state["weights"])
        self.updates = updates


class BestWeights:
    """The weights of the best epochs so far, to be averaged at the end.

    Args:
        count: how many; 1 keeps none, as the best one lies on the disk.

    Attributes:
        kept: the epochs with their monitored values and weights (on the host), the best first.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.kept: list[dict[str, Any]] = []

    def offer(self, epoch: int, value: float | None, is_better: Better, net: nn.Module) -> None:
        """Keep the weights of an epoch if they are among the best; of equals the newest."""
        if self.count < 2:
            return
        place = sum(not is_better(value, other["value"]) for other in self.kept)
        if place >= self.count:
            return
        weights = {n: v.detach().to("cpu", copy=True) for n, v in net.state_dict().items()}
        self.kept.insert(place, {"epoch": epoch, "value": value, "weights": weights})
        del self.kept[self.count :]

    @property
    def epochs(self) -> list[int]:
        return sorted(entry["epoch"] for entry in self.kept)

    def mean(self) -> dict[str, Tensor]:
        """Return the mean of all weights that are kept."""
        return mean_weights(entry["weights"] for entry in self.kept)

    def restore(self, kept: Sequence[Mapping[str, Any]], net: nn.Module) -> None:
        """Go on with what was kept.

        Raises:
            KeyError, TypeError, BadContent, ...: it was not kept by this training.
        """
        shapes = {name: value.shape for name, value in net.state_dict().items()}
        for entry in kept:
            is_number = entry["value"] is None or isinstance(entry["value"], int | float)
            found = {name: value.shape for name, value in entry["weights"].items()}
            if type(entry["epoch"]) is not int or not is_number or found != shapes:
                raise BadContent("its best weights are damaged")
        self.kept = [dict(entry) for entry in kept]


def mean_weights(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of the weights of several models, which are taken in one after the other.

    Raises:
        ValueError: there are none, or they are of different models.
    """
    total: dict[str, Tensor] = {}
    newest: Mapping[str, Tensor] = {}
    count = 0
    for newest in states:
        count += 1
        if not total:
            total = {name: value.detach().double() for name, value in newest.items()}
            continue
        if {n: v.shape for n, v in newest.items()} != {n: v.shape for n, v in total.items()}:
            raise ValueError("the weights to be averaged are of different models")
        for name, value in newest.items():
            total[name] += value
    if not total:
        raise ValueError("there are no weights to be averaged")
    return {
        name: (value / count).to(newest[name].dtype)
        if newest[name].is_floating_point()
        else newest[name]
        for name, value in total.items()
    }


def _tensors(net: nn.Module) -> list[Tensor]:
    return list(net.state_dict().values())
