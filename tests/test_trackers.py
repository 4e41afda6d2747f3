"""Trackers: names in groups, several at once, offline, and none that can stop a training."""

import importlib
import json
import signal
import sqlite3
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import train as train_program
from logger import trackers
from logger.trackers import About, Trackers, check_trackers, flattened, group_of
from tests.run_files import Run, only_run
from tests.test_runs import stop_after  # noqa: F401  (a fixture)
from tests.tiny_set import write_json
from utils.errors import UserError
from utils.stopping import Stopped


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

    def close(self, code):
        self._note("closed", code)


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
        ("closed", 0),
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
    assert good.told == [("closed", 1)]


@pytest.mark.parametrize(
    ("error", "code"),
    [(Stopped(signal.SIGTERM), 143), (UserError("diverged"), 1), (ZeroDivisionError(), 1)],
)
def test_trackers_learn_that_a_training_did_not_succeed(tmp_path, monkeypatch, error, code):
    fake = Fake()
    monkeypatch.setattr(trackers, "TRACKERS", {"fake": (lambda _: fake, "json")})
    with pytest.raises(type(error)), Trackers(["fake"], about(tmp_path)) as writer:
        raise error
    writer.close()
    assert fake.told == [("closed", code)]


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


@pytest.fixture(params=["wandb", "mlflow"])
def offline(request, monkeypatch) -> str:
    """A tracker whose package is here, and is told nothing by the environment."""
    pytest.importorskip(request.param)
    if request.param == "mlflow":
        pytest.importorskip("alembic")
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    return request.param


def test_a_training_is_tracked_offline(run: Run, config_path: Path, tmp_path: Path, offline: str):
    values = json.loads(config_path.read_text())
    values["trainer"] |= {"trackers": ["tensorboard", offline], "log_every": 1}
    values["visualizer"]["args"] |= {"src_video_dir": str(tmp_path), "vis_vid_freq": 2}
    write_json(config_path, values)
    code, output = run(train_program, "--config", config_path)
    assert code == 0, output
    saved = tmp_path / "saved"
    assert only_run(saved) and "ends here" not in output
    if offline == "wandb":
        importlib.import_module("wandb").teardown()  # its service has written all by then
        [kept] = saved.glob("wandb/offline-run-*/run-*.wandb")
        content = kept.read_bytes()
        assert b"val/t2v/R@1" in content and b"test/v2t/MedR" in content
        assert b"optimizer.args.lr" in content and b"step/loss" in content
        pictures = [*kept.parent.glob("files/media/images/*/rankings_*.jpg")]
        assert sorted(path.parent.name for path in pictures) == ["test", "val"]
        assert "wandb" in sys.modules and exit_code(kept) == 0
        return
    with sqlite3.connect(saved / "mlflow.db") as base:
        metrics = base.execute("SELECT key, step FROM metrics").fetchall()
        params = dict(base.execute("SELECT key, value FROM params").fetchall())
        status = base.execute("SELECT status FROM runs").fetchall()
    assert [step for key, step in sorted(metrics) if key == "val/t2v/R1"] == [1, 2, 3]
    assert ("test/t2v/MedR", 0) in metrics
    assert params["trainer.epochs"] == "3" and status == [("FINISHED",)]


@pytest.mark.parametrize("ends", ["by a signal", "as it diverges"])
def test_a_training_that_does_not_succeed_is_not_tracked_as_one_that_did(
    run: Run,
    config_path: Path,
    tmp_path: Path,
    offline: str,
    stop_after: Callable,  # noqa: F811
    ends: str,
):
    values = json.loads(config_path.read_text())
    values["trainer"]["trackers"] = [offline]
    if ends == "by a signal":
        stop_after(5)
    else:
        values["optimizer"] = {"type": "SGD", "args": {"lr": 1e30}}
    write_json(config_path, values)
    code, output = run(train_program, "--config", config_path)
    assert code == (143 if ends == "by a signal" else 2), output
    if offline == "wandb":
        importlib.import_module("wandb").teardown()  # its service has written all by then
        [kept] = (tmp_path / "saved").glob("wandb/offline-run-*/run-*.wandb")
        assert exit_code(kept) == (143 if ends == "by a signal" else 1)
        return
    with sqlite3.connect(tmp_path / "saved" / "mlflow.db") as base:
        status = base.execute("SELECT status FROM runs").fetchall()
    assert status == [("KILLED" if ends == "by a signal" else "FAILED",)]


def exit_code(kept: Path) -> int:
    """The exit code in what Weights & Biases keeps of a run: records in the form of LevelDB's log.

    Blocks of 32 KB hold pieces of records: whole ones (1), or first (2), middle and last (4) ones.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    block, header = 32768, struct.Struct("<4xHB")
    content, record = kept.read_bytes(), b""
    at = header.size  # behind a header of the file's own
    while at < len(content):
        if block - at % block < header.size:
            at += block - at % block
        length, kind = header.unpack_from(content, at)
        at += header.size + length
        piece = content[at - length : at]
        record = piece if kind in (1, 2) else record + piece
        if kind in (1, 4):
            found = Record.FromString(record)
            if found.WhichOneof("record_type") == "exit":
                return found.exit.exit_code
    raise AssertionError("the run was never ended")
