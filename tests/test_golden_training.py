"""The published code's run on the small set in its layout: tested, followed step by step, trained.

Everything goes through the entry points or the parts that they build; nothing is written beside the
golden files.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import test as test_program
import train as train_program
from tests.conftest import ROOT
from trainer.build import build_loader, build_loss, build_net, build_optimiser_of
from trainer.evaluation.evaluate import evaluate
from utils.command_line import run_main
from utils.config import Config

TOLERANCE = {"rtol": 0, "atol": 1e-5}
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The golden folder, from a working directory in which `data/MSRVTT` leads to its data."""
    if not (ROOT / "configs" / "msrvtt" / "train-full-ce.json").is_file():
        pytest.skip("the published configs are not here")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MSRVTT").symlink_to(golden / "tiny_msrvtt" / "data" / "MSRVTT")
    monkeypatch.chdir(tmp_path)
    return golden / "tiny_msrvtt"


@pytest.fixture
def run(tiny: Path, cache: Path, tmp_path: Path) -> Run:
    """Run an entry point; returns the folder of its checkpoints (and similarities)."""

    def call(program: Any, *arguments: object, custom_args: str = "") -> Path:
        overrides = f"data_loader.args.cache_dir@{cache}{custom_args and '+' + custom_args}"
        given = [str(argument) for argument in arguments]
        before = runs_in(tmp_path)
        assert run_main(program.main, [*given, "--custom_args", overrides]) == 0
        [new] = runs_in(tmp_path) - before
        assert not (tiny / "data" / "MSRVTT" / ".cache").exists()
        return new

    return call


def runs_in(folder: Path) -> set[Path]:
    return {path.parent for path in folder.rglob("test-similarities-*.npy")}


def metrics_of(models: Path) -> dict[str, Any]:
    log = Path(*("log" if part == "models" else part for part in models.parts))
    return json.loads((log / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("case", "arguments", "custom_args"),
    [
        ("full-test.1cap", ["--eval_from_training_config"], ""),
        (
            "full-test.18cap",
            ["--eval_from_training_config"],
            "eval_settings.data_loader.args.num_test_captions@18",
        ),
        ("full-val.1cap", [], ""),
    ],
)
@pytest.mark.parametrize("with_config", [True, False])
def test_the_published_checkpoint_gives_its_results(
    run: Run,
    tiny: Path,
    tmp_path: Path,
    case: str,
    arguments: list[str],
    custom_args: str,
    with_config: bool,
) -> None:
    published = tiny / "reference_run"
    checkpoint = published / "trained_model.pth"
    if with_config:
        arguments = [*arguments, "--config", str(published / "config.json")]
    else:  # all there is to know lies in the checkpoint itself
        checkpoint = tmp_path / "alone.pth"
        checkpoint.symlink_to(published / "trained_model.pth")
    models = run(test_program, "--resume", checkpoint, *arguments, custom_args=custom_args)
    [matrix] = models.glob("test-similarities-*.npy")
    sims = np.load(matrix)
    with np.load(published / "expected_sims.npz") as expected:
        exists = expected[f"{case}.query_masks"].astype(bool).flatten()
        np.testing.assert_allclose(sims[exists], expected[f"{case}.sims"][exists], **TOLERANCE)
    expected_metrics = json.loads((published / "expected_metrics.json").read_text())[case]
    found = metrics_of(models)["test"]
    assert found.keys() == expected_metrics.keys()
    for name, values in expected_metrics.items():
        assert found[name] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize(
    ("case", "config"), [("val_1cap", "tiny-ce"), ("jsfusion", "tiny-jsfusion-vis")]
)
def test_captions_of_the_first_video(
    golden: Path, tiny: Path, cache: Path, case: str, config: str
) -> None:
    facts = json.loads((golden / "tiny_msrvtt_retrieval.json").read_text())[case]
    values = {"data_loader": {"args": {"cache_dir": str(cache), "fuse_captions": True}}}
    settings = Config.from_file(tiny / "configs" / f"{config}.json").merged(values)
    [joined] = build_loader(settings, seed=0).retrieval.captions[0]
    assert joined.startswith(" ".join(" ".join(words) for words in facts["raw_captions_first"]))


def trajectory_config(tiny: Path, cache: Path, facts: dict[str, Any]) -> Config:
    config = Config.from_file(tiny / "configs" / facts["config"])
    return config.merged(
        {
            "experts": {"ce_shared_dim": facts["overrides"]["experts.ce_shared_dim"]},
            "arch": {"args": {"vlad_clusters": facts["overrides"]["arch.args.vlad_clusters"]}},
            "optimizer": facts["optimizer"],
            "loss": facts["loss"],
            "data_loader": {"args": {"cache_dir": str(cache)}},
        }
    )


def test_a_published_training_is_followed_step_by_step(
    golden: Path, tiny: Path, cache: Path
) -> None:
    facts = json.loads((golden / "train_traj_ce_ranger.json").read_text())
    with np.load(golden / "train_traj_ce_ranger.npz") as file:
        arrays = dict(file)
    config = trajectory_config(tiny, cache, facts)
    loader = build_loader(config, seed=0)
    net = build_net(config, loader)
    state = {
        k.removeprefix("sd."): torch.from_numpy(v) for k, v in arrays.items() if k[:3] == "sd."
    }
    net.load_state_dict(state)
    optimiser, loss = build_optimiser_of(config, net), build_loss(config)
    place = {video_id: at for at, video_id in enumerate(loader.train.video_ids)}
    net.train()
    assert len(facts["videos"]) == facts["steps"] == len(arrays["losses"])
    for step, (videos, captions) in enumerate(
        zip(facts["videos"], facts["drawn_captions"], strict=True)
    ):
        batch = loader.train.collate([place[video] for video in videos], captions)
        sims = net(batch.experts, batch.ind, batch.text)["cross_view_conf_matrix"]
        np.testing.assert_allclose(sims.detach(), arrays[f"sims.{step}"], **TOLERANCE)
        value = loss(sims)
        assert value.item() == pytest.approx(arrays["losses"][step], abs=1e-5)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if step == 0:
            for name, expected in arrays.items():
                if name.startswith("batch0.experts."):
                    found = batch.experts[name.removeprefix("batch0.experts.")]
                    np.testing.assert_array_equal(found, np.nan_to_num(expected), err_msg=name)
            np.testing.assert_array_equal(batch.text, arrays["batch0.text"])
    final = {k.removeprefix("sd_final."): v for k, v in arrays.items() if k[:9] == "sd_final."}
    assert len(final) > 100
    for name, expected in final.items():
        found = net.state_dict()[name].numpy()
        np.testing.assert_allclose(found, expected, **TOLERANCE, err_msg=name)
    evaluation = evaluate(net, loader.retrieval, ["t2v_metrics"], torch.device("cpu"))
    np.testing.assert_allclose(evaluation.sims, arrays["final_val_sims"], **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "split", "queries"),
    [
        ("tiny-ce", "full-test", 16 * 5),
        ("tiny-ce-one-caption-vis", "full-test", 16),
        ("tiny-jsfusion-vis", "jsfusion", 16),
        ("tiny-miech-moee", "miech", 16),
    ],
)
def test_the_small_set_is_trained_and_tested(
    run: Run, tiny: Path, name: str, split: str, queries: int
) -> None:
    epochs = 2 if name == "tiny-ce" else 1
    config = tiny / "configs" / f"{name}.json"
    # With all clusters of words, MoEE takes two gigabytes.
    changes = f"trainer.epochs@{epochs}+arch.args.vlad_clusters.text@2"
    models = run(train_program, "--config", config, custom_args=changes)
    metrics = metrics_of(models)
    assert [record["epoch"] for record in metrics["epochs"]] == list(range(1, epochs + 1))
    assert all(np.isfinite(record["loss"]) for record in metrics["epochs"])
    assert metrics["test_split"] == split
    assert np.load(models / f"test-similarities-{split}.npy").shape == (queries, 16)
    web = Path(*("web" if part == "models" else part for part in models.parts))
    assert (web / "index.html").is_file()
    assert (models / "trained_model.pth").is_file()


def test_all_checkpoints_of_a_training_can_be_kept(run: Run, tiny: Path) -> None:
    config = tiny / "configs" / "tiny-ce-keepall-ckpt.json"
    models = run(
        train_program, "--config", config, custom_args="trainer.keep_last@9+trainer.epochs@4"
    )
    kept = sorted(path.name for path in models.glob("checkpoint-epoch*.pth"))
    assert kept == [f"checkpoint-epoch{epoch}.pth" for epoch in range(1, 5)]
    assert (models / "trained_model.pth").is_file()
