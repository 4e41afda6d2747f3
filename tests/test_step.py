"""A training step never waits for the device that computes it."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from data_loader.batches import Batch
from model.ce_net import CENet
from model.loss import MaxMarginRankingLoss
from trainer.distillation import Distillation
from trainer.optimisation.optimisers import RAdam, Ranger
from trainer.step import (
    PRECISIONS,
    TrainingStep,
    check_precision,
    matrix_products_in,
    warn_if_slow,
)
from utils.errors import UserError

B, D, TEXT = 5, 6, 4
EXPERTS = {"audio": (8, D), "rgb": (7, D), "scene": (3, D)}
TOKENS = {"audio": (3, 4)}  # most tokens, size; two clusters

# What brings a value to the host, or makes a tensor of the host's values.
WAITING = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "lift_fresh",
    "masked_select",
    "nonzero",
    "unique",
    "_unique2",
}


class Waits(TorchDispatchMode):
    """Notes the operations for which a host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if name in WAITING or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class NoUpdate(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        """Leave the weights as they are."""


class StoredTeacher:
    """Random embeddings of the videos of a batch."""

    name = "a teacher"

    def text(self, videos: np.ndarray, captions: np.ndarray) -> tuple[tuple, torch.Tensor]:
        return (torch.randn(len(videos), 3), torch.randn(len(videos), 2)), torch.rand(B, 2)

    def video(self, videos: np.ndarray) -> tuple[tuple, torch.Tensor]:
        return (torch.randn(len(videos), 3), torch.randn(len(videos), 2)), torch.ones(B, 2)


def make_batch() -> Batch:
    shapes = {name: (B, *TOKENS.get(name, (size,))) for name, (size, _) in EXPERTS.items()}
    return Batch(
        experts={name: torch.randn(shape) for name, shape in shapes.items()},
        ind={name: (torch.rand(B) < 0.7).float() for name in EXPERTS},
        text=torch.randn(B, 1, 3, TEXT),
        text_token_mask=torch.full((B, 1), 3.0),
        video_indices=torch.arange(B),
        caption_indices=torch.zeros(B, dtype=torch.int64),
    )


def make_step(distillation: Distillation | None = None, **arguments: Any) -> TrainingStep:
    net = CENet(
        EXPERTS,
        text_dim=TEXT,
        vlad_clusters={"text": 2, "audio": 2},
        ghost_clusters={"text": 1},
        feat_aggregation={"audio": {"temporal": "vlad"}},
        **arguments,
    )
    optimiser = NoUpdate(net.parameters(), lr=0.1)
    return TrainingStep(net.train(), MaxMarginRankingLoss(0.2), optimiser, "float32", distillation)


KINDS = ["", "pairwise", "triplet", "pairwise-star", "pairwise-star-specific"]


@pytest.mark.parametrize("use_ce", KINDS)
@pytest.mark.parametrize("include_self", [0, 1])
def test_a_step_waits_for_nothing(use_ce: str, include_self: int) -> None:
    step, batch = make_step(use_ce=use_ce, include_self=include_self), make_batch()
    with Waits() as waits:
        loss, distance = step(batch, 1)
    assert waits.found == []
    assert loss > 0 and distance is None


@pytest.mark.parametrize("aggregate", ["mean", "max", "min", "median"])
def test_a_student_waits_for_nothing(aggregate: str) -> None:
    step = make_step(Distillation([StoredTeacher(), StoredTeacher()], aggregate), use_ce="pairwise")
    batch = make_batch()
    with Waits() as waits:
        loss, distance = step(batch, 1)
    assert waits.found == []
    assert loss > distance > 0


def on_meta(monkeypatch: pytest.MonkeyPatch, step: TrainingStep) -> Batch:
    """Move a step to torch's device without memory, and return a batch there.

    As a GPU does, it refuses what mixes its tensors with the host's.
    """
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # unknown there
    step.net.to("meta")
    return make_batch().to(torch.device("meta"))


@pytest.mark.parametrize(
    ("use_ce", "optimiser", "steps"),
    [
        *((use_ce, RAdam, 1) for use_ce in KINDS),
        # The sixth of them is Lookahead's.
        *(("pairwise", optimiser, 7) for optimiser in (torch.optim.Adam, RAdam, Ranger)),
    ],
)
def test_a_step_stays_on_its_device(
    use_ce: str, optimiser: type, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = make_step(use_ce=use_ce)
    batch = on_meta(monkeypatch, step)
    step = replace(step, optimiser=optimiser(step.net.parameters(), lr=0.1))
    for _ in range(steps):
        loss, _ = step(batch, 1)
    step.net.eval()
    with torch.inference_mode():
        sims = step.similarities(batch)
    assert loss.device.type == sims.device.type == "meta"
    assert all(parameter.grad.device.type == "meta" for parameter in step.net.parameters())


def test_a_tensor_of_the_host_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    step = make_step(use_ce="pairwise")
    batch = on_meta(monkeypatch, step)
    batch.ind["rgb"] = torch.ones(B)
    batch.experts["rgb"] = torch.ones(B, EXPERTS["rgb"][0])
    with pytest.raises(RuntimeError, match="device"):
        step(batch, 1)


def test_waiting_would_be_noticed() -> None:
    x = torch.arange(4.0)
    with Waits() as waits:
        x.sum().item()
        x[x > 1]
        x[[0, 1]]
    assert waits.found == ["_local_scalar_dense", "index", "lift_fresh"]


def test_tf32_holds_for_a_step_only() -> None:
    assert not torch.backends.cuda.matmul.allow_tf32
    for precision in PRECISIONS:
        with matrix_products_in(precision):
            assert torch.backends.cuda.matmul.allow_tf32 is (precision == "tf32")
        assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("precision", "capability", "is_slow"),
    [("bf16", "AVX2", True), ("bf16", "AVX512", False), ("float32", "AVX2", False)],
)
def test_a_slow_precision_is_named(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
    capability: str,
    is_slow: bool,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    warn_if_slow(precision, torch.device("cpu"))
    assert bool(caplog.records) is is_slow
    caplog.clear()
    warn_if_slow(precision, torch.device("cuda"))
    assert not caplog.records


class Products(TorchDispatchMode):
    """Notes the shapes of products, and whether a GPU might round their inputs to tf32."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[tuple[int, ...], bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "addmm", "bmm"):
            self.found.append((tuple(result.shape), torch.backends.cuda.matmul.allow_tf32))
        return result


@pytest.mark.parametrize("teachers", [0, 2])
def test_similarities_and_teachers_are_not_rounded_to_tf32(teachers: int) -> None:
    distillation = Distillation([StoredTeacher() for _ in range(teachers)]) if teachers else None
    results = []
    for precision in ("tf32", "float32"):
        torch.manual_seed(0)
        step, batch = make_step(distillation, use_ce="pairwise"), make_batch()
        step.net.train()
        with Products() as products:
            loss, _ = replace(step, precision=precision)(batch, 1)
        results.append((loss, [p.grad for p in step.net.parameters()]))
        joint = D * len(EXPERTS)
        # Forward: the similarities and their weights; backward: both sides of the similarities.
        of_sims = {(B, B), (B, joint), (joint, B)}
        exact = [rounds for shape, rounds in products.found if shape in of_sims]
        assert len(exact) == 2 * teachers + 4 and not any(exact)
        others = [rounds for shape, rounds in products.found if shape not in of_sims]
        # The gradient of the mixture weights is the last of them.
        assert others.count(False) == (1 if precision == "tf32" else len(others))
        assert len(others) > 20
    assert results[0][0] == results[1][0]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert (one is None) is (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("precision", "kind", "capability", "is_refused"),
    [
        ("bf16", "cuda", (7, 5), True),
        ("tf32", "cuda", (7, 0), True),
        ("float32", "cuda", (5, 2), False),
        ("bf16", "cuda", (8, 0), False),
        ("tf32", "cuda", (9, 0), False),
        ("bf16", "cpu", (0, 0), False),
    ],
)
def test_a_gpu_that_lacks_a_precision_is_told(
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    kind: str,
    capability: tuple[int, int],
    is_refused: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "An old GPU")
    if not is_refused:
        check_precision(precision, torch.device(kind))
        return
    with pytest.raises(UserError, match=rf'"{precision}".* An old GPU has {capability[0]}\.'):
        check_precision(precision, torch.device(kind))
