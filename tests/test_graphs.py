"""Steps replayed as graphs learn what steps without graphs learn."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_loader.batches import Batch
from model.ce_net import CENet
from model.dropout import Dropout
from model.fast import compile_model
from model.loss import MaxMarginRankingLoss
from tests.test_step import EXPERTS, TEXT, make_batch
from trainer.graphs import GraphedPass
from trainer.recipe.recipe import Recipe
from trainer.step import TrainingStep

DROPPING = Dropout(features=0.3, text=0.2, experts=0.3, seed=1)


class Captures:
    """Takes the place of what captures graphs on a GPU: fixed inputs, gradients made ahead."""

    def __init__(self, fault: str = "") -> None:
        self.sizes: list[int] = []
        self.replays = 0
        self.fault = fault

    def __call__(
        self, module: nn.Module, own: tuple[Any, ...], num_warmup_iters: int, **_: Any
    ) -> Callable[..., Tensor]:
        self.sizes.append(len(own[2]))
        for _ in range(num_warmup_iters):
            module(*own)
        if self.fault:
            raise RuntimeError(self.fault)
        fixed = torch.utils._pytree.tree_leaves(own)

        def replay(*inputs: Any) -> Tensor:
            self.replays += 1
            for place, value in zip(fixed, torch.utils._pytree.tree_leaves(inputs), strict=True):
                place.copy_(value)
            return module(*own)

        return replay


def rows(batch: Batch, count: int) -> Batch:
    return replace(
        batch._each(lambda x: x[:count]),
        video_indices=batch.video_indices[:count],
        caption_indices=batch.caption_indices[:count],
    )


def make_step(dropout: Dropout | None = None) -> TrainingStep:
    torch.manual_seed(0)
    net = CENet(
        {name: sizes for name, sizes in EXPERTS.items() if name != "audio"},
        text_dim=TEXT,
        vlad_clusters={"text": 2},
        ghost_clusters={"text": 1},
        feat_aggregation={},
        use_ce="pairwise",
    )
    recipe = Recipe(dropout=dropout or Dropout())
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
    return TrainingStep(net.train(), MaxMarginRankingLoss(0.2), optimiser, recipe=recipe)


def learn(step: TrainingStep, graphed: GraphedPass | None) -> list[float]:
    if graphed:
        needs_items = bool(step.recipe.dropout)
        compare = lambda batch, epoch: graphed(batch, epoch, needs_items)  # noqa: E731
        step.__dict__["_compare"] = compare
    torch.manual_seed(1)
    losses = []
    for epoch in (1, 2, 3):
        for size in (5, 5, 4):
            batch = rows(make_batch(), size)
            batch = replace(batch, video_indices=torch.randperm(9)[:size])
            losses.append(step(batch, epoch)[0].item())
    return losses


def test_graphs_are_forgotten() -> None:
    step = make_step()
    first = step._graphed
    assert step._graphed is first
    step.free()
    assert step._graphed is not first


@pytest.mark.parametrize("dropout", [None, DROPPING])
def test_graphs_change_no_number(dropout: Dropout | None) -> None:
    plain, other = make_step(dropout), make_step(dropout)
    captures = Captures()
    expected = learn(plain, None)
    assert learn(other, GraphedPass(other.net, other._pass, capture=captures)) == expected
    assert captures.sizes == [5, 4]  # each when it came again
    assert captures.replays == 7
    for name, value in plain.net.state_dict().items():
        assert torch.equal(other.net.state_dict()[name], value), name


def test_where_no_graph_can_be_made_a_step_goes_on_without(caplog: Any) -> None:
    plain, other = make_step(), make_step()
    expected = learn(plain, None)
    captures = Captures("not permitted when stream is capturing")
    assert learn(other, GraphedPass(other.net, other._pass, capture=captures)) == expected
    assert captures.sizes == [5]  # and is not tried again
    assert "not permitted" in caplog.text
    for name, value in plain.net.state_dict().items():
        assert torch.equal(other.net.state_dict()[name], value), name


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_a_model_is_compiled_for_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(1)
        return graph.forward

    net, compile_ = Doubling(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: compile_(f, backend=backend, **kw))
    compile_model(net)
    for size in (4, 4, 3, 4):
        x = torch.randn(size, 3)
        assert torch.equal(net(x), net.forward(x))
    assert len(compiled) == 1
    torch.compiler.reset()
