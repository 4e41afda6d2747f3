"""Distillation: the loss, the ways to join teachers, and what draws depend on."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.loss import DistillationLoss, aggregate_teachers
from tests.conftest import SHARED
from tests.teacher_data import RandomTeacher
from tests.test_teacher_files import opened
from trainer.build import build_distillation, build_loader
from trainer.distillation import Distillation
from utils.config import Config, merge
from utils.errors import UserError

NAIVE = {
    "mean": lambda sims: np.mean(sims, axis=0),
    "max": lambda sims: np.max(sims, axis=0),
    "min": lambda sims: np.min(sims, axis=0),
    "median": lambda sims: np.median(sims, axis=0),
}


def test_golden_smooth_l1(golden: Path) -> None:
    with np.load(golden / "loss_optim" / "distil_smooth_l1.npz") as values:
        student = torch.from_numpy(values["student"]).requires_grad_()
        loss = DistillationLoss()(student, torch.from_numpy(values["teacher"]))
        loss.backward()
        assert loss.item() == pytest.approx(float(values["loss"]), abs=1e-6)
        np.testing.assert_allclose(student.grad, values["grad"], atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6), scale=st.floats(0.01, 10))
def test_the_loss_is_that_of_a_double_loop(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = scale * rng.standard_normal((2, n, n))
    total = 0.0
    for i in range(n):
        for j in range(n):
            gap = abs(student[i, j] - teacher[i, j])
            total += 0.5 * gap**2 if gap < 1 else gap - 0.5
    loss = DistillationLoss()(torch.from_numpy(student), torch.from_numpy(teacher))
    assert loss.item() == pytest.approx(total / n**2)


def test_no_gradient_reaches_the_teachers() -> None:
    student, teacher = (torch.ones(2, 2, requires_grad=True) for _ in range(2))
    DistillationLoss()(student * 2, teacher).backward()
    assert student.grad is not None and teacher.grad is None


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 5),
    aggregate=st.sampled_from(sorted(NAIVE)),
)
def test_teachers_are_joined_as_numpy_does(seed: int, count: int, aggregate: str) -> None:
    sims = np.random.default_rng(seed).standard_normal((count, 4, 3)).astype(np.float32)
    joined = aggregate_teachers(torch.from_numpy(sims), aggregate)
    np.testing.assert_allclose(joined, NAIVE[aggregate](sims), atol=1e-6)


def test_the_median_of_an_even_number_of_teachers_lies_between_the_middle_two() -> None:
    teachers = torch.tensor([9.0, 1, 2, 6]).view(4, 1, 1).expand(4, 2, 3)
    assert (aggregate_teachers(teachers, "median") == 4).all()
    assert (aggregate_teachers(teachers[:2], "median") == 5).all()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="meen"):
        aggregate_teachers(torch.ones(2, 3, 3), "meen")
    with pytest.raises(ValueError, match="teacher of each row"):
        aggregate_teachers(torch.ones(2, 3, 3), "random")
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(1, 3\)"):
        DistillationLoss()(torch.ones(3, 3), torch.ones(1, 3))
    with pytest.raises(UserError, match="one teacher"):
        Distillation([])


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list:
    folder = tmp_path_factory.mktemp("teachers")
    of = [RandomTeacher([3] * 40, {"a": 4, "b": 2}, seed) for seed in range(3)]
    return [opened(t.write(folder / f"{n}.teacher"), t) for n, t in enumerate(of)]


def test_random_takes_each_row_from_one_teacher_by_seed_epoch_and_video(teachers: list) -> None:
    videos, captions = np.arange(40), np.zeros(40, dtype=int)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    student = Distillation(teachers, "random", seed=3)
    sims = student.teacher_similarities(videos, captions)
    target = student.target(videos, captions, epoch=2)

    def chosen(matrix: torch.Tensor) -> list[int]:
        return [int((sims[:, row] == matrix[row]).all(dim=1).nonzero()) for row in range(40)]

    assert set(chosen(target)) == {0, 1, 2}
    assert torch.equal(student.target(videos, captions, epoch=2), target)
    assert chosen(student.target(videos, captions, epoch=3)) != chosen(target)
    assert chosen(Distillation(teachers, "random", 4).target(videos, captions, 2)) != chosen(target)
    # Another batch with the same videos follows the same teachers.
    part = student.target(videos[::-2].copy(), captions[::-2].copy(), epoch=2)
    torch.testing.assert_close(part, target[list(videos[::-2])][:, list(videos[::-2])])
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("aggregate", sorted(NAIVE))
def test_the_target_joins_the_teachers(teachers: list, aggregate: str) -> None:
    videos, captions = np.array([5, 1, 30]), np.array([2, 0, 1])
    student = Distillation(teachers, aggregate)
    sims = student.teacher_similarities(videos, captions)
    expected = NAIVE[aggregate](sims.numpy())
    np.testing.assert_allclose(student.target(videos, captions), expected, atol=1e-6)


def test_the_loss_counts_what_its_weight_says(teachers: list) -> None:
    batch = SimpleNamespace(compared=(np.array([5, 1]), np.array([2, 0])))
    sims = torch.tensor([[0.9, -0.3], [0.1, 0.4]])
    once = Distillation(teachers).loss(sims, batch)
    assert once > 0
    torch.testing.assert_close(Distillation(teachers, weight=10.0).loss(sims, batch), 10 * once)


def published_config(golden: Path, name: str, cache: Path) -> Config:
    """A tiny config of the published layout, its parent taken from the resolved ones."""
    own = json.loads((golden / "tiny_msrvtt" / "configs" / f"{name}.json").read_text())
    resolved = json.loads((SHARED / "reference" / "resolved_configs.json").read_text())
    values = merge(resolved[own.pop("inherit_from")], own)
    data = str(golden / "tiny_msrvtt" / "data" / "MSRVTT")
    return Config.from_dict(
        merge(values, {"data_loader": {"args": {"data_dir": data, "cache_dir": str(cache)}}}), name
    )


@pytest.mark.parametrize("name", ["tiny-teachtext", "tiny-teachtext-denoise"])
def test_the_loss_of_a_published_set_is_that_of_double_loops(
    golden: Path, tmp_path: Path, name: str
) -> None:
    config = published_config(golden, name, tmp_path)
    loader = build_loader(config, seed=5)
    student = build_distillation(config, loader, seed=5, device="cpu")
    batch = next(loader.train.batches(epoch=1))
    sims = torch.rand(8, 8)
    folder = golden / "tiny_msrvtt/data/MSRVTT/high-quality/structured-symlinks/teachers"
    tables = [
        pickle.loads((folder / file).read_bytes()) for file in config["distil_params.teachers"]
    ]
    ids = [loader.train.video_ids[at] for at in batch.video_indices]
    total = 0.0
    for row, (video, caption) in enumerate(zip(ids, batch.caption_indices.tolist(), strict=True)):
        for column, other in enumerate(ids):
            teacher = np.mean(
                [
                    sum(
                        table[video]["text_embds"][expert][caption] @ embedding
                        for expert, embedding in table[other]["vid_embds"].items()
                    )
                    for table in tables
                ]
            )
            gap = abs(sims[row, column].item() - teacher)
            total += 0.5 * gap**2 if gap < 1 else gap - 0.5
    assert student.loss(sims, batch).item() == pytest.approx(total / 64, rel=1e-5)
