"""Averages of weights: a moving one over the steps, or one over the best epochs.

Both find flatter minima than the last step does (Polyak and Juditsky 1992; Izmailov et al. 2018).
Running statistics of batch normalisation are averaged like weights, whole numbers are the newest.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.similarity import RetrievalModel

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
        """Return what beside the averaged weights continuing exactly needs."""
        return {"updates": self.updates}

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Go on from averaged weights and what `state` returned with them.

        Raises:
            KeyError, ValueError: the state was not made by it.
        """
        updates = state["updates"]
        if type(updates) is not int or updates < 0:
            raise ValueError("its moving average is damaged")
        self.net.load_state_dict(weights)
        self.updates = updates


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
