"""Runs and their folders: what is a run's own, how it goes on, and how it starts from another."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import test as test_program
import train as train_program
from tests.conftest import ROOT
from tests.run_files import Run, beside, only_run, weights
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.runs.finding import find_checkpoint
from trainer.runs.folder import RunFolder
from trainer.step import TrainingStep

Change = Callable[[dict], object]


def changed(path: Path, change: Change, name: str = "") -> Path:
    """Write a config again, changed; under another name if one is given."""
    values = json.loads(path.read_text())
    change(values)
    return write_json(path.with_name(name or path.name), values)


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- What is a run's own --------------------------------------------------------------------------


def test_a_run_is_marked_in_all_of_its_folders(run: Run, config_path: Path, tmp_path: Path) -> None:
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    marks = [json.loads((beside(models, k) / "run.json").read_text()) for k in ("log", "web")]
    assert marks[0] == marks[1] == json.loads((models / "run.json").read_text())
    assert marks[0]["seed"] == 0
    found = RunFolder.of(models)
    assert found and found == RunFolder.of(beside(models, "web")) and found.is_finished


@pytest.mark.parametrize(
    "wrong", ["data_loader.args.batch_size@1", "data_loader.args.dataset_name@/no/such/set"]
)
def test_what_lies_below_a_folder_called_models_is_never_removed(
    run: Run, config_path: Path, tmp_path: Path, wrong: str
) -> None:
    run(train_program, "--config", config_path)
    others = tmp_path / "data" / "models" / "published" / "stamp"
    others.parent.mkdir(parents=True)
    only_run(tmp_path / "saved").rename(others)  # a mark that was copied elsewhere is none
    for name in ("log", "web"):
        place = tmp_path / "data" / name / "published" / "stamp"
        place.mkdir(parents=True)
        (place / "mine.txt").write_text("mine")
    before = content_of(tmp_path / "data")
    for arguments in ([], ["--custom_args", wrong]):
        code, output = run(
            train_program, "--resume", others / "trained_model.pth", *arguments, "--config",
            config_path,
        )  # fmt: skip
        assert code == 2 and "Traceback" not in output
        assert content_of(tmp_path / "data") == before


def test_an_unmarked_checkpoint_is_tested_into_a_run_of_its_own(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    published = tmp_path / "data" / "models" / "published" / "stamp"
    published.mkdir(parents=True)
    for name in ("trained_model.pth", "config.json"):
        (models / name).rename(published / name)
    before = content_of(tmp_path / "data")
    code, output = run(test_program, "--resume", published / "trained_model.pth")
    assert code == 0 and content_of(tmp_path / "data") == before
    made = [p.parent for p in (tmp_path / "saved" / "models").rglob("run.json")]
    assert len(made) == 2 and any(p.name in output for p in made if p != models)

    code, output = run(train_program, "--resume", published / "trained_model.pth")
    assert code == 2 and f"--init_from {published / 'trained_model.pth'}" in output
    assert content_of(tmp_path / "data") == before


def test_purging_leaves_what_carries_no_mark(run: Run, config_path: Path, tmp_path: Path) -> None:
    run(train_program, "--config", config_path)
    saved = tmp_path / "saved"
    first = only_run(saved)
    mark = (first / "run.json").read_bytes()
    old = saved / "models" / first.parent.name / "2020-01-01_00-00-00"
    old.mkdir()
    (old / "trained_model.pth").write_text("of an earlier version")
    code, output = run(train_program, "--config", config_path, "--purge_exp_dir")
    assert code == 0 and "no mark" in output
    assert old.is_dir() and (old / "trained_model.pth").is_file()
    [new] = (saved / "models").rglob("run.json")
    assert new.read_bytes() != mark
    assert len(list((saved / "log").rglob("run.json"))) == 1


def test_purging_spares_a_run_that_is_alive(run: Run, config_path: Path, tmp_path: Path) -> None:
    run(train_program, "--config", config_path)
    folder = RunFolder.of(only_run(tmp_path / "saved"))
    with folder.held():
        code, output = run(train_program, "--config", config_path, "--purge_exp_dir")
        assert code == 2 and "still running" in output and folder.best_checkpoint.is_file()
        code, output = run(train_program, "--resume", folder.models)
        assert code == 2 and "still running" in output


def test_runs_that_start_at_the_same_moment_have_folders_of_their_own(tmp_path: Path) -> None:
    found: list[RunFolder] = []
    gate = threading.Barrier(12)

    def start() -> None:
        gate.wait()
        with RunFolder.new(tmp_path, "same", facts={"seed": 0}) as folder:
            found.append(folder)

    threads = [threading.Thread(target=start) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({folder.models for folder in found}) == 12
    assert all(RunFolder.of(folder.log) == folder for folder in found)


def test_a_failed_start_removes_no_more_than_it_made(tmp_path: Path) -> None:
    from utils.errors import UserError

    (tmp_path / "models" / "mine").mkdir(parents=True)
    for with_other in (False, True):
        with pytest.raises(UserError), RunFolder.new(tmp_path, "mine") as folder:
            folder.config.write_text("{}")
            if with_other:
                (folder.log / "notes.txt").write_text("somebody's")
            raise UserError("wrong")
        assert (tmp_path / "models" / "mine").is_dir()
        assert not folder.models.exists() and folder.log.exists() == with_other
    assert not (tmp_path / "web" / "mine").exists()


def test_a_run_that_is_not_in_its_place_is_told(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    moved = tmp_path / "disk"
    models.rename(moved)
    code, output = run(train_program, "--resume", moved)
    assert code == 2 and f"models/{models.parent.name}/{models.name}" in output


def test_places_that_cannot_be_written_are_told_before_data_are_opened(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for flags in (
        ["--leaderboard", tmp_path / "file" / "board"],
        ["--custom_args", f"trainer.save_dir@{tmp_path / 'file' / 'saved'}"],
        ["--custom_args", "trainer.save_dir@"],
    ):
        code, output = run(train_program, "--config", config_path, *flags)
        assert code == 2 and "Traceback" not in output and "train: look" not in output, flags
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("moment", ["Training took", "The best performing"])
def test_a_signal_after_the_last_epoch_saves_all_of_it(
    run: Run, config_path: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import session

    original = session._log.info

    def info(message: str, *rest: object) -> None:
        original(message, *rest)
        if message.startswith(moment):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(session._log, "info", info)
    code, output = run(train_program, "--config", config_path, "--seeds", "0,1")
    assert code == 143 and "--resume auto" in output.splitlines()[-1]
    [last] = (tmp_path / "saved").rglob("checkpoint-last.pth")
    assert torch.load(last, weights_only=True)["epoch"] == 3


def test_tests_on_two_splits_and_of_two_checkpoints_stand_beside_each_other(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    web = beside(models, "web")
    page, matrix = web / "index.html", models / "test-similarities-full-test.npy"
    before = page.read_bytes(), matrix.read_bytes()
    code, output = run(test_program, "--resume", models)
    assert code == 0 and "validation split full-val" in output
    assert output.rstrip().endswith("--eval_from_training_config")
    assert (models / "test-similarities-full-val.npy").is_file()
    assert (web / "test-full-val.html").is_file()
    code, output = run(test_program, "--resume", models / "checkpoint-epoch1.pth",
                       "--eval_from_training_config")  # fmt: skip
    assert code == 0 and "test split" in output
    assert (models / "test-similarities-full-test-checkpoint-epoch1.npy").is_file()
    assert (page.read_bytes(), matrix.read_bytes()) == before
    metrics = json.loads((beside(models, "log") / "metrics.json").read_text())
    labels = [test["test_label"] for test in metrics["tests"]]
    assert labels == ["full-test", "full-val", "full-test-checkpoint-epoch1"]
    assert metrics["test_label"] == "full-test"
    log = (beside(models, "log") / "info.log").read_text()
    assert len(re.findall(r" test_t2v_metrics_R1: ", log)) == 3
    assert len(re.findall(r"Saved similarity matrix predictions to ", log)) == 3


# --- Continuing -----------------------------------------------------------------------------------


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the process get a signal within a step of its training; 0: never again."""
    original = TrainingStep.__call__

    def arrange(steps: int, number: int = signal.SIGTERM) -> None:
        made = [0]

        def step(self, batch, epoch):
            made[0] += 1
            if made[0] == steps:
                signal.raise_signal(number)
            return original(self, batch, epoch)

        monkeypatch.setattr(TrainingStep, "__call__", step)

    return arrange


def noisy(values: dict) -> None:
    """A model that draws random numbers, and a schedule whose state matters."""
    values["arch"]["args"] |= {"randomise_feats": "look"}
    values["lr_scheduler"] = {
        "type": "ReduceLROnPlateau",
        "args": {"factor": 0.5, "patience": 0, "cooldown": 1, "threshold": 1000},
    }
    values["trainer"] |= {"save_only_best": True, "epochs": 6}
    values["visualizer"]["args"]["vis_vid_freq"] = 2


def results(models: Path) -> dict:
    metrics = json.loads((beside(models, "log") / "metrics.json").read_text())
    for record in metrics["epochs"]:
        del record["seconds"], record["steps_per_second"]
    return {key: metrics[key] for key in ("epochs", "test", "best_epoch", "parameters", "seed")}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_training_that_is_stopped_goes_on_in_the_middle_of_its_epoch(
    run: Run, config_path: Path, tmp_path: Path, stop_after: Callable, number: int, code: int
) -> None:
    changed(config_path, noisy)
    whole = ["--custom_args", f"trainer.save_dir@{tmp_path / 'whole'}"]
    assert run(train_program, "--config", config_path, *whole)[0] == 0
    expected = only_run(tmp_path / "whole")

    stop_after(5, number)
    found, output = run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    assert found == code
    assert f"--resume {models}" in output and "Traceback" not in output
    last = torch.load(models / "checkpoint-last.pth", weights_only=True)
    assert (last["epoch"], last["epoch_in_course"]["steps"]) == (1, 2)

    for steps in (1, 4, 0):  # at the end of the epoch, then within the third, then never again
        stop_after(steps, number)
        found, output = run(train_program, "--resume", models)
        assert found == (code if steps else 0), output
    assert not (models / "checkpoint-last.pth").exists()
    one, other = weights(expected / "trained_model.pth"), weights(models / "trained_model.pth")
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert results(models) == results(expected)
    for name in ("lr_scheduler", "random_state"):
        states = [
            torch.load(m / "trained_model.pth", weights_only=True)[name] for m in (expected, models)
        ]
        assert str(states[0]) == str(states[1])


@pytest.mark.parametrize("lost", ["lr_scheduler", "random_state"])
def test_a_state_that_is_not_put_back_is_noticed(
    run: Run, config_path: Path, tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above insists on can be told from what a forgetful training would give."""
    changed(config_path, noisy)
    changed(config_path, lambda values: values["trainer"].update(save_only_best=False, keep_last=9))
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    expected = results(models)
    if lost == "lr_scheduler":
        monkeypatch.setattr("trainer.saving.restore_schedule", lambda *_: None)
    else:
        monkeypatch.setattr("trainer.saving.restore_random_state", lambda *_: None)
    assert run(train_program, "--resume", models / "checkpoint-epoch3.pth")[0] == 0
    assert results(models) != expected


def test_a_rolling_checkpoint_bounds_what_a_kill_costs(
    run: Run, config_path: Path, tmp_path: Path, stop_after: Callable
) -> None:
    def rarely_better(values: dict) -> None:
        values["optimizer"]["args"]["lr"] = 1e-12
        values["trainer"] |= {"save_only_best": True, "epochs": 5, "checkpoint_minutes": 0}

    changed(config_path, rarely_better)

    def die(self, batch, epoch):
        raise ZeroDivisionError  # as sudden as a kill: nothing is saved any more

    original = TrainingStep.__call__
    kept = []

    def step(self, batch, epoch):
        if epoch == 4:
            die(self, batch, epoch)
        return original(self, batch, epoch)

    TrainingStep.__call__ = step
    try:
        with pytest.raises(ZeroDivisionError):
            train_program.main(["--config", str(config_path)])
    finally:
        TrainingStep.__call__ = original
    models = only_run(tmp_path / "saved")
    last = torch.load(models / "checkpoint-last.pth", weights_only=True)
    best = torch.load(models / "trained_model.pth", weights_only=True)
    assert (last["epoch"], best["epoch"]) == (3, 1)
    code, output = run(train_program, "--resume", models)
    assert code == 0 and "Continuing after epoch 3 " in output, kept
    assert not (models / "checkpoint-last.pth").exists()


def test_continuing_refuses_what_changes_the_training(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    before = content_of(tmp_path / "saved")
    cases = [
        ("optimizer.args.lr@0.5", "optimizer.args.lr: 0.01 -> 0.5"),
        ("loss.args.margin@0.3", "loss.args.margin"),
        ('experts.modalities@["look"]', "experts.modalities"),
        ("data_loader.args.batch_size@4", "data_loader.args.batch_size"),
        ("precision@bf16", "precision"),
    ]
    for override, sentence in cases:
        code, output = run(train_program, "--resume", models, "--custom_args", override)
        assert code == 2 and sentence in output and "--init_from" in output, override
    for flags, sentence in (
        (["--seeds", "0,1"], "one run, of the seed 0"),
        (["--group_seed", "3"], "one run, of the seed 0"),
        (["--group_id", "a"], 'not "a"'),
        (["--mini_train"], "no quick try"),
    ):
        code, output = run(train_program, "--resume", models, *flags)
        assert code == 2 and sentence in output, flags
    assert content_of(tmp_path / "saved") == before

    override = "trainer.epochs@4+visualizer.args.num_samples@3"
    code, output = run(train_program, "--resume", models, "--seeds", "0", "--custom_args", override)
    assert code == 0, output
    assert json.loads((models / "config.json").read_text())["trainer"]["epochs"] == 4
    assert len(results(models)["epochs"]) == 4
    assert only_run(tmp_path / "saved") == models


def test_continuing_with_other_data_is_refused(run: Run, config_path: Path, tmp_path: Path) -> None:
    data = make_tiny_set(tmp_path / "own")
    write_json(config_path, tiny_config(data, tmp_path / "saved"))
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    splits = json.loads((data / "splits.json").read_text())
    splits["train"].pop()
    write_json(data / "splits.json", splits)
    before = content_of(tmp_path / "saved")
    code, output = run(train_program, "--resume", models)
    assert code == 2 and "training videos" in output and "Traceback" not in output
    assert content_of(tmp_path / "saved") == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.update(epoch="three"), "epoch"),
        (lambda c: c.update(seed=[1]), "seed"),
        (lambda c: c.update(seed="1"), "seed"),
        (lambda c: c["progress"].update(history="x"), "cannot be continued"),
        (lambda c: c["progress"].update(best_value="x"), "cannot be continued"),
        (lambda c: c["progress"].update(more=1), "cannot be continued"),
        (lambda c: c["optimizer"].update(state=3), "cannot be continued"),
        (lambda c: c["optimizer"]["param_groups"][0].update(lr="x"), "cannot be continued"),
        (lambda c: c["optimizer"]["state"][0].update(exp_avg=torch.ones(3)), "another shape"),
        (lambda c: c["optimizer"]["state"][0].update(step="x"), "cannot be continued"),
        (lambda c: c["lr_scheduler"].update(last_epoch="x"), "cannot be continued"),
        (lambda c: c["lr_scheduler"].update(more=1), "cannot be continued"),
        (lambda c: c.update(lr_scheduler=7), "cannot be continued"),
        (lambda c: c.update(random_state={"cpu": torch.ones(3)}), "cannot be continued"),
        (lambda c: c.update(epoch_in_course={"epoch": 9}), "cannot be continued"),
        (lambda c: c.update(config=3), "config"),
        (lambda c: c.update(seed=-5), "seed"),
        (lambda c: c.update(data="x"), "not those"),
        (lambda c: c.update(monitor_best="x"), "cannot be continued"),
        (lambda c: c["progress"]["history"][0].update(loss=float("nan")), "cannot be continued"),
        (lambda c: c["config"].update({3: 4}), "3"),
    ],
)
def test_a_checkpoint_with_values_of_wrong_kinds(
    run: Run, config_path: Path, tmp_path: Path, change: Change, sentence: str
) -> None:
    override = "trainer.epochs@1"
    run(train_program, "--config", config_path, "--custom_args", override)
    models = only_run(tmp_path / "saved")
    path = models / "checkpoint-epoch1.pth"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    before = content_of(tmp_path / "saved")
    code, output = run(train_program, "--resume", path)
    assert code == 2 and sentence in output and "Traceback" not in output
    assert not re.search(r"__|NoneType|argument|attribute|instance|object", output), output
    assert content_of(tmp_path / "saved") == before


# --- The unfinished run of a command line ---------------------------------------------------------


def test_auto_goes_on_with_the_unfinished_run(
    run: Run, config_path: Path, tmp_path: Path, stop_after: Callable
) -> None:
    auto = ["--config", config_path, "--resume", "auto"]
    stop_after(5)
    assert run(train_program, *auto)[0] == 143
    models = only_run(tmp_path / "saved")
    other = ["--custom_args", "optimizer.args.lr@0.02", "--train_single_epoch"]
    stop_after(0)
    assert run(train_program, *auto, *other)[0] == 0  # other values: another run
    assert models.is_dir() and not RunFolder.of(models).is_finished
    with RunFolder.of(models).held():  # taken: a new one
        assert run(train_program, *auto)[0] == 0
    assert not RunFolder.of(models).is_finished
    code, output = run(train_program, *auto)
    assert code == 0 and "epoch 1 and 2 steps" in output
    assert RunFolder.of(models).is_finished


def test_auto_leaves_out_finished_seeds(
    run: Run, config_path: Path, tmp_path: Path, stop_after: Callable
) -> None:
    seeds = ["--config", config_path, "--resume", "auto", "--seeds", "0,1"]
    stop_after(12)  # 3 epochs of 3 steps with seed 0, then within those of seed 1
    assert run(train_program, *seeds)[0] == 143
    stop_after(0)
    code, output = run(train_program, *seeds)
    assert code == 0 and "Seed 0 is done" in output and "over 2 seeds" in output
    assert len(list((tmp_path / "saved" / "models").rglob("run.json"))) == 2
    group = ["--config", config_path, "--resume", "auto", "--group_id", "g", "--group_seed", "4"]
    assert run(train_program, *group)[0] == 0
    assert "is done" in run(train_program, *group)[1]


def test_auto_starts_a_run_anew_that_has_saved_nothing(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path)
    models = only_run(tmp_path / "saved")
    expected = weights(models / "trained_model.pth")
    for path in (
        *models.glob("*.pth"),
        *models.glob("*.npy"),
        beside(models, "log") / "metrics.json",
    ):
        path.unlink()
    code, _ = run(train_program, "--config", config_path, "--resume", "auto")
    assert code == 0 and only_run(tmp_path / "saved") == models
    found = weights(models / "trained_model.pth")
    assert all(torch.equal(found[k], expected[k]) for k in expected)


# --- Starting from weights ------------------------------------------------------------------------


def as_bare(content: dict, path: Path) -> Path:
    torch.save(content["state_dict"], path)
    return path


def as_safetensors(content: dict, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_file({k: v.contiguous() for k, v in content["state_dict"].items()}, path)
    return path


def as_parallel(content: dict, path: Path) -> Path:
    state = {f"module.{name}": value for name, value in content["state_dict"].items()}
    torch.save({"state_dict": state}, path)
    return path


@pytest.mark.parametrize("form", [as_bare, as_safetensors, as_parallel, None])
def test_a_new_run_starts_from_weights(
    run: Run, config_path: Path, tmp_path: Path, form: Callable | None
) -> None:
    run(train_program, "--config", config_path)
    first = only_run(tmp_path / "saved")
    content = torch.load(first / "trained_model.pth", weights_only=True)
    source = form(content, tmp_path / "weights.pth") if form else first
    before = content_of(first)
    override = f"optimizer.args.lr@0+trainer.epochs@1+trainer.save_dir@{tmp_path / 'tuned'}"
    code, output = run(
        train_program, "--config", config_path, "--init_from", source, "--custom_args", override
    )
    assert code == 0, output
    assert (
        f"loaded {len(content['state_dict']):>8} tensors"
        in output.replace("  ", " ").replace("loaded", "loaded")
        or "loaded" in output
    )
    tuned = only_run(tmp_path / "tuned")
    assert json.loads((tuned / "config.json").read_text())["init_from"] == str(source)
    found = weights(tuned / "trained_model.pth")
    learned = [k for k in found if "running" not in k and "num_batches" not in k]
    assert all(torch.equal(found[k], content["state_dict"][k]) for k in learned)
    assert content_of(first) == before
    code, output = run(test_program, "--config", config_path, "--resume", source)
    assert code == 0, output
    again = ["--config", config_path, "--custom_args", override, "--resume"]
    assert run(train_program, *again, tuned)[0] == 0  # the weights it began with are over
    assert json.loads((tuned / "config.json").read_text())["init_from"] == str(source)
    code, output = run(train_program, *again, "auto", "--init_from", source)
    assert code == 0 and "loaded" in output


def test_what_does_not_fit_is_listed_and_nothing_is_refused(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    run(train_program, "--config", config_path)
    source = only_run(tmp_path / "saved") / "trained_model.pth"
    saved = f"trainer.save_dir@{tmp_path / 'tuned'}"
    override = f"{saved}+experts.ce_shared_dim@6+trainer.epochs@1"
    arguments = ["--config", config_path, "--init_from", source, "--custom_args", override]
    code, output = run(train_program, *arguments)
    assert code == 0
    rows = {line.split()[0]: line for line in output.splitlines() if " tensors, " in line}
    assert set(rows) == {"loaded", "new", "left"}
    assert "text_pooling" in rows["new"] or "video" in rows["new"]

    torch.save({"state_dict": {"other.weight": torch.ones(2)}}, tmp_path / "other.pth")
    arguments[3] = tmp_path / "other.pth"
    before = content_of(tmp_path / "tuned")
    code, output = run(train_program, *arguments)
    assert code == 2 and "Nothing in" in output
    assert content_of(tmp_path / "tuned") == before
    code, output = run(train_program, *arguments, "--resume", source)
    assert code == 2 and "--init_from" in output


# --- What a user may mean by a run ----------------------------------------------------------------


def test_a_checkpoint_a_run_and_an_experiment_are_taken_alike(
    run: Run, config_path: Path, tmp_path: Path, stop_after: Callable
) -> None:
    run(train_program, "--config", config_path)
    done = only_run(tmp_path / "saved")
    best = done / "trained_model.pth"
    stop_after(8)
    assert run(train_program, "--config", config_path)[0] == 143
    [killed] = {p.parent for p in done.parent.rglob("run.json")} - {done}
    assert find_checkpoint(best) == best
    for path in (done, beside(done, "log"), beside(done, "web"), done.parent, done.parents[1]):
        assert find_checkpoint(path) == best
    assert find_checkpoint(killed) == killed / "trained_model.pth"
    assert find_checkpoint(done.parent, "continue") == killed / "checkpoint-last.pth"
    stop_after(0)
    for path in (best, done, done.parent):
        code, output = run(test_program, "--resume", path)
        assert code == 0 and str(best) in output
    code, output = run(train_program, "--resume", done.parent)
    assert code == 0 and RunFolder.of(killed).is_finished
    code, output = run(train_program, "--resume", done.parent)
    assert code == 2 and "finished" in output
    code, output = run(test_program, "--resume", tmp_path / "configs")
    assert code == 2 and "trained_model.pth" in output


# --- Before anything is trained -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda c: c["eval_settings"]["data_loader"]["args"].update(split_name="full-tast"),
            "full-test",
        ),
        (lambda c: c["eval_settings"].update(metrics=["mean_average_precision"]), "labels"),
        (lambda c: c["eval_settings"].update(experts={"modalities": ["look"]}), "another model"),
        (lambda c: c.update(metrics=["mean_average_precision"]), "labels"),
        (lambda c: c["trainer"].update(monitor="max val_t2v_metrics_R2"), "measure"),
    ],
)
def test_the_test_side_is_opened_before_the_first_epoch(
    run: Run, config_path: Path, tmp_path: Path, change: Change, sentence: str
) -> None:
    changed(config_path, change)
    code, output = run(train_program, "--config", config_path)
    assert code == 2 and sentence in output and "epoch 1" not in output
    assert not (tmp_path / "saved").exists()


def test_a_test_video_without_captions_is_found_before_the_first_epoch(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    data = make_tiny_set(tmp_path / "own")
    write_json(config_path, tiny_config(data, tmp_path / "saved"))
    captions = json.loads((data / "captions.json").read_text())
    del captions["clip40"]
    write_json(data / "captions.json", captions)
    code, output = run(train_program, "--config", config_path)
    assert code == 2 and "clip40" in output and "epoch 1" not in output
    assert not (tmp_path / "saved").exists()


def test_ctrl_c_while_a_program_loads_leaves_no_traceback(tmp_path: Path) -> None:
    for program in ("train.py", "test.py"):
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", program, "--config", "no.json"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = []
        for line in process.stderr:
            said.append(line)
            if line.rstrip().endswith(" logging"):  # one of the first that it imports
                process.send_signal(signal.SIGINT)
                break
        said += process.stderr.readlines()
        assert process.wait(60) in (-signal.SIGINT, 130)
        assert "Traceback" not in "".join(said)
