"""Trackers: names in groups, several at once, offline, and none that can stop a training."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest

import train as train_program
from logger import trackers
from logger.trackers import About, Trackers, check_trackers, flattened, group_of
from tests.run_files import Run, only_run
from tests.tiny_set import write_json
from utils.errors import UserError


def about(folder: Path) -> About:
    return About(folder, folder / "curves", "demo", "seed-0/now")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("val_t2v_metrics_R1", "val/t2v/R@1"),
        ("test_v2t_metrics_MedR", "test/v2t/MedR"),
        ("val_t2v_metrics_geometric_mean_R1-R5-R10", "val/t2v/geometric mean"),
        ("test_t2v_metrics_corrected_R10", "test/t2v, hubs corrected/R@10"),
        ("val_t2v_metrics_worst_rank", "val/t2v/worst_rank"),
        ("lr", "train/learning rate"),
        ("own", "own"),
    ],
)
def test_values_are_named_by_their_groups(name, group):
    assert group_of(name) == group


def test_a_config_is_flat_and_plain():
    config = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None, "f": "x", "g": True, "h": 0.5}
    expected = {"a.b": 1, "a.c.d": "[1, 2]", "e": "None", "f": "x", "g": True, "h": 0.5}
    assert flattened(config) == expected


class Fake:
    """Notes what it is told; fails once it has been told `most` things."""

    def __init__(self, most: int = 99) -> None:
        self.told: list = []
        self.most = most

    def _note(self, *what) -> None:
        if len(self.told) == self.most:
            raise RuntimeError("the network\nis down")
        self.told.append(what)

    def scalars(self, values, step):
        self._note(values, step)

    def picture(self, name, jpeg, step):
        self._note(name, jpeg, step)

    def end(self, hyperparameters, metrics):
        self._note(hyperparameters, metrics)

    def close(self):
        self._note("closed")


def test_every_tracker_is_told_and_one_that_fails_is_left_behind(tmp_path, monkeypatch, caplog):
    good, bad = Fake(), Fake(most=1)
    table = {"good": (lambda _: good, "json"), "bad": (lambda _: bad, "json")}
    monkeypatch.setattr(trackers, "TRACKERS", table)
    with Trackers(["bad", "good", "good"], about(tmp_path)) as writer:
        assert not writer.is_enabled
        writer.scalars("", {"loss": 1.0}, 1)
        writer.scalars("step", {"loss": 2.0}, 2)
        writer.histogram("ranks", [1.0], 1)
        writer.text("rankings", "", 1)
        writer.picture("val/rankings", b"jpeg", 1)
        writer.end({"seed": {"a": 1}}, {"test_t2v_metrics_R1": 3.0})
    assert good.told == [
        ({"train/loss": 1.0}, 1),
        ({"step/loss": 2.0}, 2),
        ("val/rankings", b"jpeg", 1),
        ({"seed.a": 1}, {"test/t2v/R@1": 3.0}),
        ("closed",),
    ]
    assert bad.told == good.told[:1]
    assert caplog.text.count('"bad" ends here: the network is down') == 1


def test_a_tracker_that_cannot_begin_is_refused_and_the_others_are_closed(tmp_path, monkeypatch):
    good = Fake()

    def fail(_):
        raise OSError("no\nserver")

    table = {"good": (lambda _: good, "json"), "bad": (fail, "json")}
    monkeypatch.setattr(trackers, "TRACKERS", table)
    with pytest.raises(UserError, match='The tracker "bad" cannot begin: no server'):
        Trackers(["good", "bad"], about(tmp_path))
    assert good.told == [("closed",)]


def test_what_is_not_known_or_not_installed_is_refused_before_anything_is_written(
    run: Run, config_path: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", (Fake, "no_such_package_at_all"))
    for chosen, sentence in [
        (["tensorbord"], '"tensorbord" is not known (did you mean "tensorboard"?)'),
        (["wandb"], "pip install -r requirements/trackers-requirements.txt"),
    ]:
        values = json.loads(config_path.read_text())
        values["trainer"]["trackers"] = chosen
        write_json(config_path, values)
        code, output = run(train_program, "--config", config_path)
        assert code == 2 and sentence in output and "Traceback" not in output
        assert not list((tmp_path / "saved").rglob("*.pth"))
    with pytest.raises(UserError, match=r"trainer\.trackers"):
        check_trackers(["tensorboard", "nonsense"])


def test_no_tracker_leaves_no_curves(run: Run, config_path: Path, tmp_path: Path):
    values = json.loads(config_path.read_text())
    values["trainer"]["trackers"] = []
    write_json(config_path, values)
    code, output = run(train_program, "--config", config_path)
    assert code == 0 and "tensorboard --logdir" not in output
    assert not list((tmp_path / "saved").rglob("events.out*"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_training_is_tracked_offline(
    run: Run, config_path: Path, tmp_path: Path, monkeypatch, name: str
):
    pytest.importorskip(name)
    if name == "mlflow":
        pytest.importorskip("alembic")
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    values = json.loads(config_path.read_text())
    values["trainer"] |= {"trackers": ["tensorboard", name], "log_every": 1}
    values["visualizer"]["args"]["src_video_dir"] = str(tmp_path)
    write_json(config_path, values)
    code, output = run(train_program, "--config", config_path)
    assert code == 0, output
    saved = tmp_path / "saved"
    assert only_run(saved) and "ends here" not in output
    if name == "wandb":
        [kept] = saved.glob("wandb/offline-run-*/run-*.wandb")
        content = kept.read_bytes()
        assert b"val/t2v/R@1" in content and b"test/v2t/MedR" in content
        assert b"optimizer.args.lr" in content and b"step/loss" in content
        pictures = [*kept.parent.glob("files/media/images/*/rankings_*.jpg")]
        assert sorted(path.parent.name for path in pictures) == ["test", *["val"] * 3]
        assert "wandb" in sys.modules
        return
    with sqlite3.connect(saved / "mlflow.db") as base:
        metrics = base.execute("SELECT key, step FROM metrics").fetchall()
        params = dict(base.execute("SELECT key, value FROM params").fetchall())
        status = base.execute("SELECT status FROM runs").fetchall()
    assert [step for key, step in sorted(metrics) if key == "val/t2v/R1"] == [1, 2, 3]
    assert ("test/t2v/MedR", 0) in metrics
    assert params["trainer.epochs"] == "3" and status == [("FINISHED",)]
