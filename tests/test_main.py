"""The real entry points on small data: train, kill, resume, test, and every kind of wrong input."""

import csv
import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_program
import train as train_program
from tests.conftest import ROOT
from tests.run_files import Run, beside, only_run, weights
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from utils.command_line import version


def test_training_leaves_everything_in_the_run_folder(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    code, output = run(train_program, "--config", config_path)
    assert code == 0
    assert "Setting experiment random seed to 0" in output
    models = only_run(tmp_path / "saved")
    assert models.parent.name == "tiny-train-ce"
    checkpoint = torch.load(models / "trained_model.pth", weights_only=True)
    published_keys = {"arch", "epoch", "state_dict", "monitor_best", "config", "optimizer"}
    assert published_keys <= set(checkpoint)
    assert checkpoint["arch"] == "CENet" and checkpoint["version"] == version()

    log = beside(models, "log")
    text = (log / "info.log").read_text()
    assert f"The best performing ckpt can be found at {models / 'trained_model.pth'}" in text
    assert "Saved similarity matrix predictions to " in text
    assert text.count("retrieval: text: 12 videos") == 1, "the test split is opened once"
    metrics = json.loads((log / "metrics.json").read_text())
    assert [e["epoch"] for e in metrics["epochs"]] == [1, 2, 3]
    assert metrics["test_videos"] == 12 and metrics["test_split"] == "full-test"
    assert metrics["version"] == metrics["tests"][0]["version"] == version()
    recall = metrics["test"]["t2v_metrics"]["R1"]
    assert f" test_t2v_metrics_R1: {recall}" in text
    # On the terminal, metrics stand once, rounded.
    assert "test_t2v_metrics" not in output and len(re.findall("^t2v  ", output, re.M)) == 1
    assert str(metrics["test"]["t2v_metrics"]["geometric_mean_R1-R5-R10"]) not in output
    assert output.count("Device: the CPU") == text.count(" - Device: the CPU") == 1
    assert list((log / "seed-0").glob("events.out.tfevents.*"))
    assert (beside(models, "web") / "index.html").is_file()
    for place in (models / "trained_model.pth", log / "info.log", "tensorboard", "serve_rankings"):
        assert str(place) in output


def test_from_another_folder_data_and_results_are_its_own_and_configs_the_projects(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"Data and results: below {tmp_path}; configs that are not found there: from {ROOT}\n"
    values = tiny_config(Path("data/clips"), Path("data/saved"))
    write_json(tmp_path / "mine.json", {"inherit_from": "configs/own/train-ce.json", **values})
    code, output = run(train_program, "--config", "mine.json")
    assert code == 2 and output.startswith(place) and 'no data set "data/clips"' in output
    assert not (tmp_path / "data").exists()

    make_tiny_set(tmp_path / "data" / "clips")
    code, output = run(train_program, "--config", "mine.json", "--train_single_epoch")
    assert code == 0 and output.startswith(place) and output.count(place) == 1
    models = only_run(Path("data/saved"))
    assert place.strip() in (beside(models, "log") / "info.log").read_text()
    code, output = run(test_program, "--resume", models)
    assert code == 0 and output.startswith(place)


def test_a_dry_run_measures_steps_and_leaves_nothing(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "saved/models/tiny-train-ce/earlier").mkdir(parents=True)
    flags = ["--dry_run", "--purge_exp_dir", "--leaderboard", tmp_path / "leaderboard.json"]
    code, output = run(train_program, "--config", config_path, *flags)
    assert code == 0
    for line in (
        "model       CENet, collaborative gating: pairwise",
        "epoch       3 batches of 8 videos",
        "searched    8 videos in validation, 12 in the test",
        r"memory      \d\.\d\d of the host's \d+\.\d GiB at the peak",
        r"step        \d+\.\d{4} s \(the first \d+\.\d\d s\)",
        r"training    3 epochs: about \d+ s and the validations",
    ):
        assert re.search(f"^{line}$", output, re.M), line
    left = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "saved").rglob("*"))
    assert left == [
        "saved/models",
        "saved/models/tiny-train-ce",
        "saved/models/tiny-train-ce/earlier",
    ]
    assert not (tmp_path / "leaderboard.json").exists()


def test_tensorboard_shows_ranks_and_rankings_of_each_epoch(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = json.loads(config_path.read_text())
    config["visualizer"]["args"] |= {"vis_vid_freq": 2, "src_video_dir": str(tmp_path)}
    write_json(config_path, config)
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    folder = beside(models, "log") / "seed-0"
    kept = {"histograms": 0, "tensors": 0, "images": 0}
    events = EventAccumulator(str(folder), size_guidance=kept)
    events.Reload()
    for direction in ("t2v", "v2t"):
        ranks = events.Histograms(f"val/{direction}/ranks")
        assert [(e.step, e.histogram_value.num) for e in ranks] == [(n, 8) for n in (1, 2, 3)]
    log = json.loads((beside(models, "log") / "metrics.json").read_text())
    tested = log["test_epoch"]
    for stage, steps, drawn in (("val", [1, 2, 3], [2]), ("test", [tested], [tested])):
        texts = events.Tensors(f"{stage}/rankings/text_summary")
        assert [e.step for e in texts] == steps
        assert all(e.tensor_proto.string_val[0].count(b": rank ") == 5 for e in texts)
        pictures = events.Images(f"{stage}/rankings")
        assert [e.step for e in pictures] == drawn
        assert all(e.encoded_image_string.startswith(b"\xff\xd8\xff") for e in pictures)
    for tag, values in {
        "val/t2v/R@1": [e["val_t2v_metrics_R1"] for e in log["epochs"]],
        "val/v2t/geometric mean": [
            e["val_v2t_metrics_geometric_mean_R1-R5-R10"] for e in log["epochs"]
        ],
        "train/loss": [e["loss"] for e in log["epochs"]],
        "train/learning rate": [e["lr"] for e in log["epochs"]],
        "train/gradient norm": [e["gradient_norm"] for e in log["epochs"]],
        "test/t2v/MedR": [log["test"]["t2v_metrics"]["MedR"]],
    }.items():
        assert [e.value for e in events.Scalars(tag)] == pytest.approx(values)
    for name in ("waiting for data", "steps", "evaluation"):
        assert all(e.value >= 0 for e in events.Scalars(f"speed/seconds of {name}"))
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"optimizer.args.lr" in content
    with (beside(models, "log") / "metrics.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["loss"]) for row in rows] == [e["loss"] for e in log["epochs"]]
    pages = {path.name for path in beside(models, "web").glob("*.html")}
    assert pages == {"index.html", "epoch-2.html"}


def test_rates_in_the_log_are_those_in_force(run: Run, config_path: Path, tmp_path: Path) -> None:
    run(train_program, "--config", config_path)
    log = beside(only_run(tmp_path / "saved"), "log")
    epochs = json.loads((log / "metrics.json").read_text())["epochs"]
    assert [e["lr"] for e in epochs] == pytest.approx([0.01, 0.0095, 0.009025])


def test_testing_a_checkpoint_gives_the_metrics_of_its_training(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    metrics_path = beside(models, "log") / "metrics.json"
    before = json.loads(metrics_path.read_text())["test"]
    metrics_path.unlink()
    code, output = run(
        test_program,
        *("--config", models / "config.json", "--resume", models / "trained_model.pth"),
        "--eval_from_training_config",
    )
    assert code == 0 and "t2v" in output
    assert json.loads(metrics_path.read_text())["test"] == before

    code, _ = run(test_program, "--config", config_path, "--resume", models / "trained_model.pth")
    after = json.loads(metrics_path.read_text())
    assert code == 0
    assert [(t["test_split"], t["test_videos"]) for t in after["tests"]] == [
        ("full-test", 12),
        ("full-val", 8),
    ]
    assert after["test"] == before and after["test_split"] == "full-test"


def test_same_seed_same_weights_other_seed_other_weights(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        override = f"trainer.save_dir@{tmp_path / name}"
        code, _ = run(
            train_program, "--config", config_path, "--group_seed", seed, "--custom_args", override
        )
        assert code == 0
        found.append(weights(only_run(tmp_path / name) / "trained_model.pth"))
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    assert not all(torch.equal(found[0][k], found[2][k]) for k in found[0])


def test_several_seeds_are_summarised(run: Run, config_path: Path, tmp_path: Path) -> None:
    code, output = run(train_program, "--config", config_path, "--seeds", "0,1,2")
    assert code == 0
    log = tmp_path / "saved" / "log" / "tiny-train-ce"
    [path] = log.rglob("summary-seed-0_seed-1_seed-2.json")
    runs = [json.loads(p.read_text()) for p in sorted(log.rglob("metrics.json"))]
    assert sorted(r["seed"] for r in runs) == [0, 1, 2]
    recalls = [r["test"]["t2v_metrics"]["R5"] for r in runs]
    text = path.read_text()
    summary = json.loads(text)["metrics"]["t2v_metrics"]["R5"]
    assert summary["mean"] == pytest.approx(np.mean(recalls))
    assert summary["std"] == pytest.approx(np.std(recalls, ddof=1))
    assert "3 seeds" in output


def test_half_precision_trains_to_nearly_the_same(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    losses = []
    for precision in ("float32", "bf16"):
        override = f"precision@{precision}+trainer.save_dir@{tmp_path / precision}"
        code, output = run(train_program, "--config", config_path, "--custom_args", override)
        assert code == 0, output
        models = only_run(tmp_path / precision)
        metrics = json.loads((beside(models, "log") / "metrics.json").read_text())
        losses.append([epoch["loss"] for epoch in metrics["epochs"]])
        assert all(
            v.dtype != torch.bfloat16 for v in weights(models / "trained_model.pth").values()
        )
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_best_model_is_the_epoch_with_the_best_validation(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path, "--custom_args", "trainer.epochs@6")
    models = only_run(tmp_path / "saved")
    epochs = json.loads((beside(models, "log") / "metrics.json").read_text())["epochs"]
    values = [e["val_t2v_metrics_geometric_mean_R1-R5-R10"] for e in epochs]
    best = torch.load(models / "trained_model.pth", weights_only=True)
    assert best["epoch"] == 1 + int(np.argmax(values))
    assert best["monitor_best"] == pytest.approx(max(values))
    kept = sorted(p.name for p in models.glob("checkpoint-epoch*.pth"))
    assert kept == [f"checkpoint-epoch{n}.pth" for n in (4, 5, 6)]


def test_early_stopping_fires(run: Run, config_path: Path, tmp_path: Path) -> None:
    # The learning rate is too small for anything to change, so the first epoch stays the best.
    overrides = "trainer.epochs@20+trainer.early_stop@3+optimizer.args.lr@1e-12"
    code, output = run(train_program, "--config", config_path, "--custom_args", overrides)
    assert code == 0
    log = beside(only_run(tmp_path / "saved"), "log")
    metrics = json.loads((log / "metrics.json").read_text())
    assert len(metrics["epochs"]) < 20
    assert len(metrics["epochs"]) == metrics["best_epoch"] + 3
    assert "Stopped early" in output


def train_in_a_process(config_path: Path, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "train.py", "--config", config_path, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_training_resumes_to_the_same_weights(config_path: Path, tmp_path: Path) -> None:
    def overrides(name: str) -> list[str]:
        text = f"trainer.epochs@12+trainer.keep_last@12+trainer.save_dir@{tmp_path / name}"
        return ["--custom_args", text]

    whole = train_in_a_process(config_path, *overrides("whole"))
    assert whole.wait(timeout=120) == 0, whole.stdout.read()
    expected = only_run(tmp_path / "whole")

    killed = train_in_a_process(config_path, *overrides("killed"))
    for line in killed.stdout:  # killed somewhere in the sixth epoch, or while that is being saved
        if "epoch 5:" in line:
            killed.send_signal(signal.SIGKILL)
            break
    assert killed.wait(timeout=60) == -signal.SIGKILL
    models = only_run(tmp_path / "killed")
    found = sorted(models.glob("checkpoint-epoch*.pth"), key=lambda p: int(p.stem[16:]))
    assert found and not (models / "checkpoint-epoch12.pth").exists()

    resumed = train_in_a_process(models / "config.json", "--resume", found[-1])
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output
    assert f"Continuing after epoch {found[-1].stem[16:]}" in output
    for name in ("checkpoint-epoch12.pth", "trained_model.pth"):
        one, other = weights(expected / name), weights(models / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k], other[k]) for k in one), name
    runs = [json.loads((beside(m, "log") / "metrics.json").read_text()) for m in (expected, models)]
    for record in (e for r in runs for e in r["epochs"]):
        del record["seconds"], record["steps_per_second"]
    assert runs[0]["epochs"] == runs[1]["epochs"]
    assert runs[0]["test"] == runs[1]["test"]


def test_resuming_a_finished_training_tests_it_again(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    before = (models / "trained_model.pth").read_bytes()
    code, _ = run(train_program, "--resume", models / "checkpoint-epoch3.pth")
    assert code == 0
    assert only_run(tmp_path / "saved") == models
    assert (models / "trained_model.pth").read_bytes() == before


def test_mini_train_is_short_and_has_no_tensorboard(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    code, _ = run(train_program, "--config", config_path, "--mini_train", "--train_single_epoch")
    assert code == 0
    log = beside(only_run(tmp_path / "saved"), "log")
    assert len(json.loads((log / "metrics.json").read_text())["epochs"]) == 1
    assert not (log / "seed-0").exists()


@pytest.mark.parametrize("batches", [1, 2])
def test_a_config_says_how_short_a_quick_try_is(
    run: Run, config_path: Path, tmp_path: Path, batches: int
) -> None:
    override = f"trainer.mini_train_batches@{batches}+trainer.epochs@2"
    code, _ = run(train_program, "--config", config_path, "--mini_train", "--custom_args", override)
    assert code == 0
    last = torch.load(only_run(tmp_path / "saved") / "checkpoint-epoch2.pth", weights_only=True)
    assert {int(state["step"]) for state in last["optimizer"]["state"].values()} == {2 * batches}


def test_purging_removes_earlier_runs(run: Run, config_path: Path, tmp_path: Path) -> None:
    run(train_program, "--config", config_path)
    mark = only_run(tmp_path / "saved") / "of-the-first-run"
    mark.write_text("")
    run(train_program, "--config", config_path, "--purge_exp_dir")
    assert only_run(tmp_path / "saved")
    assert not mark.exists()


def test_handlers_do_not_pile_up(run: Run, config_path: Path) -> None:
    before = len(logging.getLogger().handlers)
    run(train_program, "--config", config_path, "--seeds", "0,1")
    assert len(logging.getLogger().handlers) == before


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.epoch@3", '"trainer.epochs"'),
        ('experts.modalities@["lok"]', '"look"'),
        ("experts.text_feat@wards", '"words"'),
        ("data_loader.args.split_name@full-vel", '"full-val"'),
        ("data_loader.args.dataset_name@/no/such/set", "/no/such/set"),
        ("arch.args.use_ce@pairwize", "pairwise"),
        ("arch.args.vlad_clusters.sound@0", "vlad_clusters.sound"),
        ("optimizer.type@Rangr", "Ranger"),
        ("optimizer.args.learning_rate@1", "learning_rate"),
        ("trainer.monitor@max val_t2v_metrics_R2", "val_t2v_metrics_R"),
        ("trainer.epochs@many", "epochs"),
        ("optimizer.args.lr@1e20", "diverged"),
    ],
)
def test_wrong_values_get_one_sentence(
    run: Run, config_path: Path, override: str, sentence: str
) -> None:
    code, output = run(train_program, "--config", config_path, "--custom_args", override)
    assert code == 2
    assert sentence in output
    assert "Traceback" not in output
    assert sum(line.startswith("error:") for line in output.splitlines()) == 1
    left = [path for path in (config_path.parents[2] / "saved").rglob("*") if path.is_file()]
    assert not left, "a run that never began leaves nothing"


def test_wrong_paths_get_one_sentence(run: Run, config_path: Path, tmp_path: Path) -> None:
    cases = [
        (train_program, ["--config", config_path.with_name("train-cee.json")], "train-ce"),
        (train_program, [], "--config"),
        (train_program, ["--config", config_path, "--device", "7"], "7"),
        (train_program, ["--config", config_path, "--device", "gpu"], "gpu"),
        (train_program, ["--resume", tmp_path / "no.pth"], "no"),
        (test_program, ["--config", config_path, "--resume", tmp_path / "no.pth"], "no.pth"),
        (train_program, ["--config", config_path, "--seeds", "a,b"], "seeds"),
        (train_program, ["--resume", config_path, "--purge_exp_dir"], "--purge_exp_dir"),
    ]
    for program, arguments, sentence in cases:
        code, output = run(program, *arguments)
        assert code == 2, arguments
        assert sentence in output and "Traceback" not in output, arguments


def test_feature_files_that_are_missing_or_truncated(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    data = make_tiny_set(tmp_path / "broken")
    write_json(config_path, tiny_config(data, tmp_path / "saved"))
    whole = (data / "look.npz").read_bytes()
    (data / "look.npz").write_bytes(whole[: len(whole) // 2])
    code, output = run(train_program, "--config", config_path)
    assert code == 2 and "look.npz" in output and "Traceback" not in output
    (data / "look.npz").unlink()
    code, output = run(train_program, "--config", config_path)
    assert code == 2 and "look.npz" in output and "Traceback" not in output


def test_checkpoint_of_another_architecture(run: Run, config_path: Path, tmp_path: Path) -> None:
    run(train_program, "--config", config_path)
    checkpoint = only_run(tmp_path / "saved") / "trained_model.pth"
    moee = ["--custom_args", "arch.args.use_ce@"]
    code, output = run(test_program, "--config", config_path, "--resume", checkpoint, *moee)
    assert code == 2 and "does not fit" in output
    code, output = run(train_program, "--config", config_path, "--resume", checkpoint, *moee)
    assert code == 2 and "arch.args.use_ce" in output and "--init_from" in output


def test_a_save_dir_that_cannot_be_made(run: Run, config_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    override = f"trainer.save_dir@{tmp_path / 'file' / 'saved'}"
    code, output = run(train_program, "--config", config_path, "--custom_args", override)
    assert code == 2 and "Cannot write" in output and "Traceback" not in output
