"""Checkpoints written beside a training: what they hold, which are left out, what fails."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train as train_program
from tests.run_files import Run, only_run, weights
from trainer import saving
from trainer.checkpoints import writer as checkpoint_writer
from trainer.checkpoints.checkpoint import save_checkpoint
from trainer.checkpoints.writer import CheckpointWriter
from utils.errors import UserError


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> CheckpointWriter:
    """A writer as for a GPU, of which no more is needed than that it can be waited for."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    return CheckpointWriter(torch.device("cuda"))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event, list[str]]:
    """Hold all writing until an event; gives also that one has begun, and the names in order."""
    begun, go, names = threading.Event(), threading.Event(), []

    def save(path: Path, content: dict) -> None:
        names.append(f"{path.name} {content['n']}")
        begun.set()
        assert go.wait(30)
        save_checkpoint(path, content)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save)
    return begun, go, names


def number(n: int) -> Callable[[], dict]:
    return lambda: {"n": n}


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_is_written_is_the_state_of_its_moment(
    tmp_path: Path, beside: CheckpointWriter, kind: str
) -> None:
    writer = beside if kind == "cuda" else CheckpointWriter(torch.device("cpu"))
    x, path, order = torch.zeros(3), tmp_path / "a.pth", []
    content = {"x": x, "deep": {"list": [x], "pair": (x, 1)}, "text": "t"}
    writer.write(path, lambda: content, [lambda: order.append(path.is_file())])
    x += 1
    writer.finish()
    assert order == [True] and writer.seconds > 0
    found = torch.load(path, weights_only=True)
    assert found["text"] == "t" and found["deep"]["pair"][1] == 1
    for tensor in (found["x"], found["deep"]["list"][0], found["deep"]["pair"][0]):
        assert torch.equal(tensor, torch.zeros(3))


def test_of_one_name_the_newest_alone_waits(
    tmp_path: Path, beside: CheckpointWriter, held: tuple
) -> None:
    begun, go, names = held
    for n in range(5):
        beside.write(tmp_path / "best", number(n))
        assert begun.wait(30)
    go.set()
    beside.finish()
    assert names == ["best 0", "best 4"]
    assert torch.load(tmp_path / "best", weights_only=True) == {"n": 4}


def test_those_to_be_kept_are_all_written(
    tmp_path: Path, beside: CheckpointWriter, held: tuple
) -> None:
    begun, go, names = held
    beside.write(tmp_path / "epoch", number(0))
    assert begun.wait(30)
    beside.write(tmp_path / "best", number(1))
    go.set()
    for n in (2, 3):
        beside.write(tmp_path / f"epoch{n}", number(n))
    beside.finish()
    assert names == ["epoch 0", "best 1", "epoch2 2", "epoch3 3"]


def test_what_cannot_be_written_is_told_once(tmp_path: Path, beside: CheckpointWriter) -> None:
    (tmp_path / "file").write_text("")
    beside.write(tmp_path / "file" / "a.pth", number(1))
    with pytest.raises(UserError, match="Cannot write"):
        beside.finish()
    beside.write(tmp_path / "b.pth", number(2))
    beside.finish()
    assert torch.load(tmp_path / "b.pth", weights_only=True) == {"n": 2}


def test_a_training_is_the_same_whoever_writes(
    run: Run, config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    found = {}
    for name in ("at_once", "beside"):
        if name == "beside":
            writer = lambda _: CheckpointWriter(torch.device("cuda"))  # noqa: E731
            monkeypatch.setattr(saving, "CheckpointWriter", writer)
        saves = f"trainer.save_dir@{tmp_path / name}+trainer.save_only_best@false"
        assert run(train_program, "--config", config_path, "--custom_args", saves)[0] == 0
        models = only_run(tmp_path / name)
        names = sorted(path.name for path in models.glob("*.pth"))
        found[name] = names, weights(models / "trained_model.pth")
    assert found["at_once"][0] == found["beside"][0]
    one, other = found["at_once"][1], found["beside"][1]
    assert all(torch.equal(one[key], other[key]) for key in one)
