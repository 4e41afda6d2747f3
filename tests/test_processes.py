"""Several processes compute what one computes: losses, gradients, statistics and weights."""

import random
import re
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from data_loader.batches import Batch, Whole, shares_of
from model.ce_net import CENet
from model.loss import LOSSES
from tests.own_data import OwnData
from tests.process_pool import ProcessPool
from tests.test_accumulation import make_batch, make_net
from trainer import session
from trainer.evaluation import evaluate as evaluation
from trainer.optimisation.optimisers import OPTIMISERS
from trainer.processes import columns, shared_memory
from trainer.processes.alone import ALONE, Processes
from trainer.processes.batches import SharedBatches
from trainer.recipe.recipe import Recipe
from trainer.step import TrainingStep
from utils.errors import UserError


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "WORTH_BYTES", 0)  # small models share their layers out as well
        pool = ProcessPool(3, tmp_path_factory.mktemp("pool"))
    yield pool
    pool.close()


@dataclass(frozen=True)
class Case:
    """A training of a few steps."""

    settings: dict[str, Any] = field(default_factory=dict)  # of the model
    loss: str = "MaxMarginRankingLoss"
    loss_args: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    captions: int = 1
    teachers: bool = False
    precision: str = "float32"
    dtype: torch.dtype = torch.float64
    sizes: tuple[int, ...] = (9, 4, 7, 3)  # of the batches, one after the other
    steps: int = 20
    optimiser: str = "SGD"
    divides: bool = True  # whether processes share out layers


class RandomTeachers:
    """Distillation from similarities that depend on the videos alone."""

    def loss(self, sims: Tensor, batch: Batch, epoch: int) -> Tensor:
        videos, captions = batch.compared
        target = torch.sin(videos.unsqueeze(0) * 3.0 + videos.unsqueeze(1) + captions)
        return (sims - target.to(sims)).square().mean()


def whole_batch(case: Case, number: int) -> Batch:
    size = case.sizes[number % len(case.sizes)]
    batch = make_batch(size, case.captions)
    # Experts that only some rows, and so some processes, have.
    ind = dict(batch.ind)
    ind["rgb"] = (torch.arange(size) >= size // 2).to(ind["rgb"])
    ind["scene"] = ind["scene"] * (torch.arange(size) != 0)
    dtype = case.dtype
    captions = torch.zeros((size, case.captions), dtype=torch.int64) + torch.arange(case.captions)
    shift = torch.tensor(100.0 * number).sin()
    return replace(
        batch,
        experts={name: (x + shift).to(dtype) for name, x in batch.experts.items()},
        ind={name: x.to(dtype) for name, x in ind.items()},
        text=(batch.text - shift).to(dtype),
        video_indices=torch.arange(size) + 10 * number,
        caption_indices=captions[:, 0] if case.captions == 1 else captions,
    )


def part_of(batch: Batch, processes: Processes, parts: int) -> Batch:
    shares = shares_of(len(batch.text), processes.count, parts)
    whole = Whole(batch.video_indices, batch.caption_indices, shares, processes.rank)
    rows = whole.own_rows
    part = replace(
        batch,
        experts={name: x[rows] for name, x in batch.experts.items()},
        ind={name: x[rows] for name, x in batch.ind.items()},
        text=batch.text[rows],
        text_token_mask=batch.text_token_mask[rows],
        video_indices=batch.video_indices[rows],
        caption_indices=batch.caption_indices[rows],
    )
    return replace(part, whole=whole)


def dividing(step: TrainingStep, case: Case) -> AbstractContextManager[None]:
    return step.divided(videos=1) if case.divides else nullcontext()


def gradients_of(net: nn.Module, loss: nn.Module) -> dict[str, Tensor]:
    """Gradients but of the layers that may be shared out, which only the weights tell."""
    found = {f"gradient of {n}": p.grad for n, p in net.named_parameters() if p.grad is not None}
    found |= {f"gradient of the loss {n}": p.grad for n, p in enumerate(loss.parameters())}
    return {name: g.clone() for name, g in found.items() if not SHARED_OUT.search(name)}


def known_to(optimiser: torch.optim.Optimizer, when: str) -> dict[str, Tensor]:
    return {
        f"{name} of parameter {place} {when}": value.clone()
        for place, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def train(processes: Processes, case: Case) -> dict[str, Tensor]:
    """Return losses, and gradients and state after one step and after all."""
    net = make_net(**{"use_ce": "", **case.settings}).to(case.dtype).train()
    loss = LOSSES[case.loss](**case.loss_args)
    learned = [*net.parameters(), *loss.parameters()]
    settings = OPTIMISERS_TRIED[case.optimiser]
    optimiser = OPTIMISERS[case.optimiser](learned, lr=0.01, weight_decay=1e-3, **settings)
    recipe = Recipe.of(case.recipe, net, seed=3)
    shared = None if processes is ALONE else SharedBatches(net, loss, processes)
    teachers = RandomTeachers() if case.teachers else None
    step = TrainingStep(net, loss, optimiser, case.precision, teachers, recipe, shared)
    found, losses = {}, []
    for epoch in ([0], range(1, case.steps // 2), range(case.steps // 2, case.steps)):
        with dividing(step, case):
            for number in epoch:
                batch = whole_batch(case, number)
                if processes is not ALONE:
                    batch = part_of(batch, processes, recipe.accumulate)
                losses.append(step(batch, epoch=2)[0])
                if number == 0:
                    found |= gradients_of(net, loss)
        if len(losses) in (1, case.steps):
            state = recipe.evaluated(net).state_dict() | loss.state_dict()
            found |= {f"{n} after step {len(losses)}": v.clone() for n, v in state.items()}
            found |= known_to(optimiser, f"after step {len(losses)}")
    return found | {"losses": torch.stack(losses)}


OPTIMISERS_TRIED: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "Ranger": {"k": 3, "fused": True},
    "Adam": {"fused": True},
}
SHARED_OUT = re.compile(r"(text_GU|video_GU|video_dim_reduce)\.\d+\.fc\.")
MODERN = {"clip_norm": 0.5, "ema": 0.9, "log_every": 1}
DROPOUT = {"dropout": {"features": 0.3, "text": 0.2, "experts": 0.3}}
PAIRWISE = {"use_ce": "pairwise"}
LEARNED = {"temperature": 0.2, "learned": True}
LONG = {
    "MoEE": Case(),
    "pairwise": Case(PAIRWISE | {"num_h_layers": 1}),
    "triplet": Case({"use_ce": "triplet", "include_self": 0}),
    "star": Case({"use_ce": "pairwise-star"}),
    "concat": Case({"concat_experts": True}),
    "TeachText": Case(PAIRWISE, teachers=True),
    "softmax": Case(loss="NormSoftmaxLoss"),
    "float32": Case(PAIRWISE, dtype=torch.float32),
    "undivided": Case(PAIRWISE, divides=False),
    "by gloo": Case(PAIRWISE),
    "Ranger": Case(PAIRWISE, optimiser="Ranger", recipe={"ema": 0.9}),
    "Adam": Case(optimiser="Adam"),
}
SHORT = {
    "star-specific": Case({"use_ce": "pairwise-star-specific"}),
    "concat mix": Case({"concat_mix_experts": True}),
    "shared size": Case({"mimic_ce_dims": True, "vlad_mask_padding": True}),
    "frozen weights": Case({"freeze_weights": True}),
    "all experts": Case({"keep_missing_modalities": True}),
    "learned temperature": Case(PAIRWISE, "MarginSoftmaxLoss", LEARNED, recipe=MODERN),
    "captions": Case(PAIRWISE, captions=3, teachers=True),
    "dropout": Case(PAIRWISE, recipe=DROPOUT),
    "parts": Case(PAIRWISE, recipe={"accumulate": 3} | DROPOUT, teachers=True),
    "undivided parts": Case(PAIRWISE, recipe={"accumulate": 3}, divides=False),
    "a process without videos": Case(PAIRWISE, sizes=(2, 9, 2)),
}
CASES = LONG | {name: replace(case, steps=4) for name, case in SHORT.items()}
RUNS = [(name, 2 + place % 2) for place, name in enumerate(LONG)]
RUNS += [("shared size", 1), ("star-specific", 2), *((name, 3) for name in SHORT)]


@cache
def alone(name: str) -> dict[str, Tensor]:
    return train(ALONE, CASES[name])


@pytest.mark.parametrize(("name", "count"), RUNS)
def test_processes_learn_what_one_learns(pool: ProcessPool, name: str, count: int) -> None:
    case, expected = CASES[name], alone(name)
    near = 1e-10 if case.dtype == torch.float64 else 1e-5
    if case.loss_args.get("learned"):
        near = max(near, 1e-7)  # a learned temperature is float32
    for found in pool.run(count, train, case, shares_memory=name != "by gloo"):
        assert found.keys() == expected.keys()
        for what, value in expected.items():
            torch.testing.assert_close(
                found[what], value, rtol=near, atol=near, msg=lambda m, w=what: f"{w}: {m}"
            )


@pytest.mark.parametrize(("kind", "pays"), [("SGD", True), ("Adafactor", False)])
def test_layers_are_shared_out_by_optimisers_that_take_weights_one_by_one(
    kind: str, pays: bool
) -> None:
    net = CENet({"rgb": (4, 1024)}, text_dim=2048, vlad_clusters={})
    optimiser = OPTIMISERS[kind](net.parameters(), lr=0.1)
    shared = columns.ColumnParallel(net, ALONE)
    for videos in (64, 4096):  # of which inputs and outputs would be more to exchange
        with shared.divided(optimiser, videos, captions=1, copies=()):
            assert bool(shared.own) == (pays and videos == 64)


def train_and_leave(processes: Processes) -> list[bool]:
    net = make_net().train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    loss = LOSSES["MaxMarginRankingLoss"]()
    shared = SharedBatches(net, loss, processes)
    step = TrainingStep(net, loss, optimiser, shared=shared)
    with step.divided(videos=1):
        parts = [weakref.ref(part) for part in shared.learned_apart()]
        step(part_of(whole_batch(Case(), 0), processes, 1), epoch=1)
    step.free()
    return [part() is None for part in parts]


def test_nothing_of_a_model_stays_where_it_has_learned(pool: ProcessPool) -> None:
    for are_gone in pool.run(2, train_and_leave):
        assert are_gone and all(are_gone)


def tell_one_another(processes: Processes, seed: int) -> list[Tensor]:
    """Exchange messages of many kinds and sizes, also longer ones than fit into the memory."""
    chance, count = random.Random(seed), processes.count
    own = torch.Generator().manual_seed(100 * seed + processes.rank)
    found = []
    for _ in range(30):
        dtype = chance.choice([torch.float32, torch.float64, torch.bfloat16, torch.int64])
        size = chance.choice([0, 1, 7, 1000, shared_memory.LONGEST // 8 + chance.randrange(-1, 2)])
        x = torch.randn(size, generator=own).mul(100).to(dtype)
        found.append(processes.gather(x))
        if dtype != torch.bfloat16:
            found.append(processes.sum(x))
        sizes = [[chance.randrange(5) for _ in range(count)] for _ in range(count)]
        given, taken = sizes[processes.rank], [row[processes.rank] for row in sizes]
        x = torch.randn(sum(given), generator=own).to(dtype)
        found.append(processes.exchange(x, given, taken, max(map(sum, sizes))))
    return found


@pytest.mark.parametrize("count", [2, 3])
def test_shared_memory_tells_what_gloo_tells(pool: ProcessPool, count: int) -> None:
    there = pool.run(count, tell_one_another, count)
    by_gloo = pool.run(count, tell_one_another, count, shares_memory=False)
    for ours, theirs in zip(there, by_gloo, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def evaluate(processes: Processes, own: OwnData, mode: str, kept_bytes: int) -> dict[str, Any]:
    """Evaluate in blocks of a few videos and captions; return ranks, metrics and the matrix."""
    loader = own.loader()
    torch.manual_seed(5)
    net = CENet(
        {"fixed": (4, 5), "tokens": (6, 5)},
        text_dim=6,
        vlad_clusters={"tokens": 2, "text": 2},
        feat_aggregation={"tokens": {"temporal": "vlad"}},
        use_ce="pairwise",
        test_caption_mode=mode,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "VIDEOS_PER_BLOCK", 5)
        patch.setattr(evaluation, "QUERIES_PER_BLOCK", 8)
        patch.setattr(evaluation, "KEPT_MATRIX_BYTES", kept_bytes)
        names = ["t2v_metrics", "v2t_metrics"]
        found = evaluation.evaluate(net, loader.retrieval, names, torch.device("cpu"), processes)
        rows = torch.cat([*found.blocks()]) if processes.is_first else None
    return {
        "t2v": found.ranks.t2v,
        "v2t": found.ranks.v2t,
        "metrics": found.metrics,
        "video": found.video.embeddings,
        "rows": rows,
        "kept": found.sims is not None,
    }


@pytest.mark.parametrize(("count", "kept_bytes"), [(1, 2**20), (2, 2**20), (2, 0), (3, 2**20)])
@pytest.mark.parametrize("mode", ["indep", "avg"])
def test_processes_share_an_evaluation_and_get_the_same(
    pool: ProcessPool, tmp_path: Path, count: int, mode: str, kept_bytes: int
) -> None:
    own = OwnData(tmp_path, videos=20, held_out=11)
    expected = evaluate(ALONE, own, mode, kept_bytes)
    first, *others = pool.run(count, evaluate, own, mode, kept_bytes)
    assert first["kept"] == (kept_bytes > 0) and torch.equal(first["rows"], expected["rows"])
    for found in (first, *others):
        assert found["metrics"] == expected["metrics"]
        assert torch.equal(found["t2v"], expected["t2v"])
        assert torch.equal(found["v2t"], expected["v2t"])
        for one, other in zip(found["video"], expected["video"], strict=True):
            assert torch.equal(one, other)


@given(st.integers(2, 70), st.integers(1, 9), st.integers(1, 5))
def test_each_row_of_a_batch_is_of_one_process(size: int, processes: int, parts: int) -> None:
    shares = shares_of(size, processes, parts)
    assert len(shares) == processes
    rows = [row for share in shares for part in share for row in range(size)[part]]
    assert sorted(rows) == list(range(size))
    lengths = [part.stop - part.start for share in shares for part in share]
    assert 1 not in lengths and len({len(share) for share in shares}) == 1
    by_part = zip(*shares, strict=True)  # one process has them as several do
    assert [sum(p.stop - p.start for p in part) for part in by_part] == [
        part.stop - part.start for part in shares_of(size, 1, parts)[0]
    ]


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("captions", [1, 2])
def test_parts_of_batches_are_the_rows_of_whole_ones(
    tmp_path: Path, captions: int, parts: int
) -> None:
    settings = {"batch_size": 7, "text_dropout": 0.5, "captions_per_video": captions}
    train = OwnData(tmp_path, videos=20, held_out=4).loader(**settings).train
    whole = list(train.batches(epoch=3))
    train.processes, train.parts = 3, parts
    of_processes = []
    for train.process in range(3):
        of_processes.append(list(train.batches(epoch=3)))
    for number, batch in enumerate(whole):
        some = [batches[number] for batches in of_processes]
        places = some[0].whole.places
        order = torch.arange(len(batch.text)) if places is None else places
        for name in ("text", "text_token_mask", "video_indices", "caption_indices"):
            joined = torch.cat([getattr(part, name) for part in some])
            assert torch.equal(joined[order], getattr(batch, name))
        for name in batch.experts:
            joined = torch.cat([part.experts[name] for part in some])
            assert torch.equal(joined[order], batch.experts[name])
            assert torch.equal(torch.cat([part.ind[name] for part in some])[order], batch.ind[name])
        for part in some:
            assert torch.equal(part.compared[0], batch.video_indices)
            assert torch.equal(part.compared[1], batch.caption_indices)


def write_and_insist(processes: Processes, folder: Path, is_shared: bool) -> str:
    path = folder / ("" if is_shared else f"machine {processes.rank}") / "config.json"
    path.parent.mkdir(exist_ok=True)
    if processes.is_first:
        path.write_text("{}", encoding="utf-8")
    processes.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_SECONDS_TO_APPEAR", 1)
        try:
            session.insist_on_shared(path, processes)
        except UserError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("is_shared", [True, False])
def test_machines_without_a_file_system_in_common_are_refused(
    pool: ProcessPool, tmp_path: Path, is_shared: bool
) -> None:
    first, other = pool.run(2, write_and_insist, tmp_path, is_shared)
    assert not first and bool(other) != is_shared
    assert is_shared or "trainer.save_dir has to be on a file system" in other
