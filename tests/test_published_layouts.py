"""Each published data set trains with its own config on a small copy of its layout."""

import json
from pathlib import Path

import pytest

import train as train_program
from tests.conftest import ROOT
from tests.published_layout import NUM_HELD_OUT, Layout
from tests.tiny_set import write_json
from utils.command_line import run_main
from utils.config import Config

CONFIGS = [
    "msrvtt/train-full-ce",
    "msvd/train-full-ce",
    "lsmdc/train-full-ce",
    "didemo/train-full-ce",
    "activity-net/train-full-ce",
    "youcook2/train-full-ce",
    "queryd/train-full-ce",
    "querydsegments/train-full-moee",
]
# Sizes of the data stay as published; the model is made small enough for a test.
SMALLER = {
    "experts.ce_shared_dim": 4,
    "data_loader.args.batch_size": 3,
    "trainer.epochs": 1,
    "trainer.tensorboard": "false",
}


# VaTeX has a published layout, but no config: that of a set with the same kinds of features.
VATEX = {
    "inherit_from": "configs/queryd/train-full-ce.json",
    "data_loader": {"args": {"dataset_name": "VaTeX", "split_name": "full-val"}},
    "eval_settings": {"data_loader": {"args": {"split_name": "full-test"}}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_trains_an_epoch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    train_an_epoch(f"configs/{name}.json", tmp_path)


def test_vatex_trains_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    train_an_epoch(str(write_json(tmp_path / "vatex.json", VATEX)), tmp_path)


def train_an_epoch(path: str, tmp_path: Path) -> None:
    config = Config.from_file(path)
    Layout(tmp_path / "data", config).write()
    changes = SMALLER | {
        "data_loader.args.data_dir": tmp_path / "data",
        "trainer.save_dir": tmp_path / "saved",
    }
    clusters = config["arch.args.vlad_clusters"]
    changes |= {f"arch.args.vlad_clusters.{key}": 1 for key in clusters if "." not in key}
    overrides = "+".join(f"{key}@{value}" for key, value in changes.items())
    code = run_main(train_program.main, ["--config", path, "--custom_args", overrides])
    assert code == 0
    [metrics] = (tmp_path / "saved" / "log").rglob("metrics.json")
    found = json.loads(metrics.read_text())
    assert len(found["epochs"]) == 1 and found["test_videos"] == NUM_HELD_OUT
    assert set(found["test"]) == {"t2v_metrics", "v2t_metrics"}
