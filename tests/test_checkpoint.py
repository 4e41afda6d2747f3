"""Checkpoints are whole or not there, hold plain data, and say what does not fit."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from trainer.checkpoints.checkpoint import (
    link_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from utils.errors import UserError

CONTENT = {
    "arch": "CENet",
    "epoch": 3,
    "config": {"seed": 0, "metrics": ["t2v_metrics"]},
    "monitor_best": None,
    "state_dict": {"weight": torch.arange(6.0).view(2, 3)},
}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "trained_model.pth"
    save_checkpoint(path, CONTENT)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.pop("state_dict")["weight"], CONTENT["state_dict"]["weight"])
    assert loaded == {k: v for k, v in CONTENT.items() if k != "state_dict"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trained_model.pth"
    save_checkpoint(path, CONTENT)
    before = path.read_bytes()
    real_open = Path.open

    def open_full_disk(self: Path, mode: str = "r", *args, **kwargs):
        if "w" in mode:
            real_open(self, mode).close()  # the name is taken, then nothing more fits
            return real_open(Path("/dev/full"), mode, *args, **kwargs)
        return real_open(self, mode, *args, **kwargs)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    monkeypatch.setattr(Path, "open", open_full_disk)
    with pytest.raises(UserError, match="no space"):
        save_checkpoint(path, CONTENT | {"epoch": 4})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*file/a\.pth"):
        save_checkpoint(tmp_path / "file" / "a.pth", CONTENT)


class RunsCode:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "a.pth", tmp_path / "ran"
    torch.save(CONTENT | {"config": RunsCode(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"a\.pth as a checkpoint"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(RunsCode(mark)))
    with pytest.raises(UserError, match=r"a\.pth as a checkpoint"):
        load_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_checkpoints_are_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, CONTENT)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(UserError, match=r"a\.pth as a checkpoint"):
        load_checkpoint(path)


def test_missing_files_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path / "no.pth")
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="no arch"):
        load_checkpoint(tmp_path / "weights.pth")
    torch.save(torch.ones(1), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "tensor.pth")


def test_weights_of_another_architecture_are_listed_and_not_taken() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    weights = {"0.weight": torch.ones(2, 4), "0.bias": torch.ones(2), "2.bias": torch.ones(1)}
    with pytest.raises(UserError) as caught:
        load_weights(net, weights, Path("a.pth"))
    text = str(caught.value)
    assert "2 missing: 1.weight, 1.bias" in text
    assert "1 unexpected: 2.bias" in text
    assert "0.weight (2, 4) instead of (2, 3)" in text
    with pytest.raises(UserError, match=r"99 unexpected: w0, w1 and 97 more\. Use"):
        load_weights(net, before | {f"w{n}": torch.ones(1) for n in range(99)}, Path("a.pth"))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_a_link_replaces_what_had_the_name(tmp_path: Path) -> None:
    first, second, name = tmp_path / "1.pth", tmp_path / "2.pth", tmp_path / "best.pth"
    for epoch, path in enumerate((first, second), start=1):
        save_checkpoint(path, CONTENT | {"epoch": epoch})
        link_checkpoint(path, name)
        assert load_checkpoint(name)["epoch"] == epoch
    second.unlink()
    assert load_checkpoint(name)["epoch"] == 2
