"""Several processes compute what the published code computed: its models, a training, a test."""

import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import test as test_program
from data_loader.batches import Batch
from model.loss import MaxMarginRankingLoss
from tests.process_pool import ProcessPool
from tests.test_golden_model import CASES, build, inputs, load, wanted
from tests.test_golden_training import metrics_of, runs_in, tiny, trajectory_config  # noqa: F401
from tests.test_processes import part_of, pool  # noqa: F401
from tests.test_processes_programs import Together, together  # noqa: F401
from trainer.build import build_loader, build_loss, build_net, build_optimiser_of
from trainer.evaluation.evaluate import evaluate
from trainer.processes.alone import ALONE, Processes
from trainer.processes.batches import SharedBatches
from trainer.step import TrainingStep

# All but the one that ends with embeddings: there is nothing to be learned from.
LEARNING = [case for case in CASES if case != "p4_compute_video_embeddings_classes5"]
MARGIN = 0.09  # of the golden losses


def golden_batch(arrays: dict[str, np.ndarray]) -> Batch:
    """The whole batch of a golden model, in float64."""
    given = inputs(arrays)
    size, captions = given["text"].shape[:2]
    numbers = torch.arange(captions).expand(size, captions)
    return Batch(
        experts={name: x.double() for name, x in given["experts"].items()},
        ind={name: x.double() for name, x in given["ind"].items()},
        text=given["text"].double(),
        text_token_mask=given["text_token_mask"],
        video_indices=torch.arange(size),
        caption_indices=numbers[:, 0] if captions == 1 else numbers,
    )


def one_step(processes: Processes, folder: Path, case: str) -> dict[str, Tensor]:
    """Return the loss, what a step takes from each weight, and the statistics that it leaves."""
    facts, arrays = load(folder, case)
    net = build(facts)
    state = {k[3:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("sd.")}
    net.load_state_dict({name: state[name] for name in wanted(list(state))})
    net, loss = net.double().train(), MaxMarginRankingLoss(margin=MARGIN)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    plain = torch.optim.SGD(net.parameters(), lr=1.0)  # so that a step is the gradient
    batch = golden_batch(arrays)
    shared = None
    if processes is not ALONE:
        batch, shared = part_of(batch, processes, 1), SharedBatches(net, loss, processes)
    value, _ = TrainingStep(net, loss, plain, shared=shared)(batch, epoch=1)
    after = dict(net.named_parameters())
    found = {f"grad.{name}": w - after[name].detach() for name, w in before.items()}
    return found | {f"sd_after.{n}": b for n, b in net.named_buffers()} | {"train.loss": value}


@pytest.mark.parametrize(
    ("case", "count"), [(case, 2 + place % 2) for place, case in enumerate(LEARNING)]
)
def test_processes_learn_what_the_published_model_learns(
    pool: ProcessPool,  # noqa: F811
    golden: Path,
    case: str,
    count: int,
) -> None:
    _, arrays = load(golden, case)
    expected = one_step(ALONE, golden, case)
    if arrays["in.text"].shape[1] == 1:  # of several captions, ours are not taken as one
        published = {name: torch.from_numpy(arrays[name]) for name in expected.keys() & arrays}
        assert "train.loss" in published and len(published) > 5
        check(expected, published, 1e-5)
    for found in pool.run(count, one_step, golden, case):
        assert found.keys() == expected.keys()
        check(found, expected, 1e-10)


def check(found: dict[str, Tensor], expected: dict[str, Tensor], near: float) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].to(value), value, rtol=0, atol=near, msg=lambda m, n=name: f"{n}: {m}"
        )


def follow(
    processes: Processes, folder: Path, golden: Path, cache: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Make the steps of the golden training; returns losses and final weights, and metrics."""
    facts = json.loads((golden / "train_traj_ce_ranger.json").read_text())
    with np.load(golden / "train_traj_ce_ranger.npz") as file:
        state = {k[3:]: torch.from_numpy(v) for k, v in file.items() if k.startswith("sd.")}
    with chdir(folder):
        config = trajectory_config(golden / "tiny_msrvtt", cache, facts)
        loader = build_loader(config, seed=0)
        net, loss = build_net(config, loader), build_loss(config)
    net.load_state_dict(state)
    net.train()
    shared = None if processes is ALONE else SharedBatches(net, loss, processes)
    step = TrainingStep(net, loss, build_optimiser_of(config, net), shared=shared)
    place = {video_id: at for at, video_id in enumerate(loader.train.video_ids)}
    losses = []
    for videos, captions in zip(facts["videos"], facts["drawn_captions"], strict=True):
        batch = loader.train.collate([place[video] for video in videos], captions)
        if processes is not ALONE:
            batch = part_of(batch, processes, 1)
        losses.append(step(batch, epoch=1)[0])
    found = {f"sd_final.{name}": value for name, value in net.state_dict().items()}
    names = ["t2v_metrics", "v2t_metrics"]
    measured = evaluate(net, loader.retrieval, names, torch.device("cpu"), processes)
    rows = torch.cat([*measured.blocks()]) if processes.is_first else torch.zeros(0)
    return found | {"losses": torch.stack(losses), "final_val_sims": rows}, measured.metrics


def test_processes_follow_a_published_training(
    pool: ProcessPool,  # noqa: F811
    golden: Path,
    tiny: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    _, metrics = follow(ALONE, tmp_path, golden, tmp_path)
    with np.load(golden / "train_traj_ce_ranger.npz") as file:
        expected = {name: torch.from_numpy(value) for name, value in file.items()}
    outcomes = pool.run(3, follow, tmp_path, golden, tmp_path)
    for rank, (found, measured) in enumerate(outcomes):
        known = {name: expected[name] for name in found if name != "final_val_sims" or not rank}
        check(found, known, 1e-5)
        assert measured == metrics


def test_processes_test_the_published_checkpoint(
    together: Together,  # noqa: F811
    tiny: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    published = tiny / "reference_run"
    config = ["--config", published / "config.json", "--eval_from_training_config"]
    kept = ["--custom_args", f"data_loader.args.cache_dir@{tmp_path / 'cache'}"]
    checkpoint = published / "trained_model.pth"
    code, output = together(2, test_program, "--resume", checkpoint, *config, *kept)
    assert code == 0, output
    [models] = runs_in(tmp_path)
    expected = json.loads((published / "expected_metrics.json").read_text())["full-test.1cap"]
    found = metrics_of(models)["test"]
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-6)
