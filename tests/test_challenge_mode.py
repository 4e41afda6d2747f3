"""Challenge mode: the ten best videos of each query that exists, in place of metrics."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import misc.results_table as table_program
import test as test_program
import train as train_program
import trainer.evaluation.evaluate as evaluation_module
from data_loader.sets.description import find_description, published_names
from model.ranks import best_in_rows, blocks_of, find_best
from tests.conftest import SHARED
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.build import build_loader, build_net
from trainer.evaluation.evaluate import evaluate, predict
from utils.command_line import run_main
from utils.config import Config
from utils.errors import UserError

# Few values, so that ties are everywhere.
MATRICES = st.integers(1, 6).flatmap(
    lambda videos: st.tuples(
        st.just(videos),
        st.integers(1, 3),
        st.integers(1, videos),
        st.integers(1, 5),
        st.integers(0, 2**32 - 1),
    )
)


@settings(deadline=None)
@given(MATRICES)
def test_the_best_are_those_of_a_stable_sort(case: tuple[int, ...]) -> None:
    videos, captions, k, rows_per_block, seed = case
    rng = np.random.default_rng(seed)
    sims = rng.integers(-1, 2, (videos * captions, videos)).astype(np.float32)
    sims[rng.random(sims.shape) < 0.1] = -np.inf
    masks = rng.random((videos, captions)) < 0.7
    found = find_best(blocks_of(torch.from_numpy(sims), rows_per_block), torch.from_numpy(masks), k)
    expected = [
        sorted(range(videos), key=lambda video: (-row[video], video))[:k]
        for row, exists in zip(sims, masks.flatten(), strict=True)
        if exists
    ]
    assert found.dtype == torch.int64 and found.shape == (len(expected), k)
    assert found.tolist() == expected


def test_what_is_tied_at_the_last_place_is_taken_from_the_left() -> None:
    row = torch.tensor([[1.0, 2.0, 1.0, 3.0, 1.0, 2.0]])
    assert best_in_rows(row, 4).tolist() == [[3, 1, 5, 0]]
    assert best_in_rows(torch.zeros(2, 40), 10).tolist() == [list(range(10))] * 2
    assert best_in_rows(torch.zeros(0, 40), 10).shape == (0, 10)


def test_a_similarity_that_is_not_a_number_has_no_place() -> None:
    sims = torch.zeros(2, 2)
    sims[1, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        find_best(blocks_of(sims), torch.ones(2, 1), 1)


@pytest.fixture
def values(tmp_path: Path) -> dict:
    made = tiny_config(make_tiny_set(tmp_path / "set"), tmp_path / "saved")
    made["trainer"] |= {"epochs": 1, "tensorboard": False}
    captions = json.loads((tmp_path / "set" / "captions.json").read_text())
    for number, video in enumerate(captions):
        captions[video] = captions[video][: 1 + number % 3]
    write_json(tmp_path / "set" / "captions.json", captions)
    made["eval_settings"]["data_loader"]["args"]["num_test_captions"] = 3
    return made | {"challenge_mode": True}


def config_of(values: dict, tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir(exist_ok=True)
    return write_json(tmp_path / "tiny" / "train-ce.json", values)


@pytest.mark.parametrize("kept", [True, False])
def test_predictions_are_the_best_of_the_matrix(
    values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    config = Config.from_file(config_of(values, tmp_path)).eval_config()
    loader = build_loader(config, 0)
    torch.manual_seed(0)
    net = build_net(config, loader)
    evaluation = evaluate(net, loader.retrieval, ["t2v_metrics"], torch.device("cpu"))
    if not kept:
        monkeypatch.setattr(evaluation_module, "KEPT_MATRIX_BYTES", 0)
        monkeypatch.setattr(evaluation_module, "QUERIES_PER_BLOCK", 5)
    found = predict(net, loader.retrieval, torch.device("cpu"))
    exists = loader.retrieval.query_masks.flatten() > 0
    sims = evaluation.sims.numpy()[exists]
    np.testing.assert_array_equal(found, np.argsort(-sims, axis=1, kind="stable")[:, :10])
    own = np.arange(len(exists))[exists] // 3
    assert (found == own[:, None]).any(axis=1).mean() * 100 == pytest.approx(
        evaluation.metrics["t2v_metrics"]["R10"]
    )
    net.test_caption_mode = "avg"
    with pytest.raises(UserError, match="test_caption_mode"):
        predict(net, loader.retrieval, torch.device("cpu"))


def test_a_training_validates_and_ends_with_predictions(
    values: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(config_of(values, tmp_path))
    flags = ["--config", path, "--seeds", "0,1"]
    assert run_main(train_program.main, [*flags, "--leaderboard", "board.jsonl"]) == 2
    assert "--leaderboard" in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()
    assert run_main(train_program.main, flags) == 0
    logs = sorted((tmp_path / "saved/log").rglob("metrics.json"))
    assert len(logs) == 2
    found = json.loads(logs[0].read_text())
    assert "val_t2v_metrics_R1" in found["epochs"][0] and found["test_split"] == "full-test"
    assert "test" not in found and "tests" not in found and not list(tmp_path.rglob("index.html"))
    [made] = found["predictions"]
    lines = (logs[0].parent / made["file"]).read_text().splitlines()
    assert len(lines) == made["test_queries"] == 24 and made["test_videos"] == 12
    for line in lines:
        row = [int(cell) for cell in line.split(",")]
        assert len(set(row)) == 10 and set(row) <= set(range(12))
    assert f"predictions  {logs[0].parent / made['file']}" in capsys.readouterr().out

    # A table of metrics has none of it, and says so.
    assert run_main(table_program.main, [str(tmp_path / "saved/log/tiny-train-ce")]) == 0
    assert "no metrics" in capsys.readouterr().err
    [checkpoint] = (tmp_path / "saved/models/tiny-train-ce/seed-0").rglob("trained_model.pth")
    test = ["--resume", str(checkpoint), "--eval_from_training_config"]
    assert run_main(test_program.main, [*test, "--custom_args", "challenge_mode@false"]) == 0
    found = json.loads(logs[0].read_text())
    assert found["predictions"] == [made] and "test" not in found and len(found["tests"]) == 1
    capsys.readouterr()
    assert run_main(table_program.main, [str(tmp_path / "saved/log/tiny-train-ce")]) == 0
    assert "| tiny-train-ce |" in capsys.readouterr().out.replace("\\", "")


def test_what_the_data_set_counts_otherwise_is_said(
    values: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "set" / "dataset.json"
    description = json.loads(file.read_text())
    path = str(config_of(values, tmp_path))
    for queries, is_other in ((24, False), (25, True)):
        description["splits"]["full-test"]["expected"] = {"videos": 12, "queries": queries}
        write_json(file, description)
        assert run_main(train_program.main, ["--config", path]) == 0
        output = "".join(capsys.readouterr())
        sentence = "tiny full-test has 12 videos and 24 queries here, but 12 videos and 25 queries"
        assert (sentence in output) == is_other


def test_ten_of_eight_videos_cannot_be_named(
    values: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values["eval_settings"] = False
    assert run_main(train_program.main, ["--config", str(config_of(values, tmp_path))]) == 2
    assert "has 8" in capsys.readouterr().err
    assert not list(tmp_path.rglob("predictions*")) and list(tmp_path.rglob("trained_model.pth"))


def test_counts_are_those_published() -> None:
    facts = SHARED / "reference" / "challenge.json"
    if not facts.is_file():
        pytest.skip("the facts of the challenge are not here")
    facts = json.loads(facts.read_text())
    counted = set()
    for name in published_names():
        for phase, split in find_description(name).splits.items():
            if split.expected is None:
                continue
            counted.add((name, phase))
            videos = facts["videos"][name][phase]
            queries = videos * facts["max_descriptions_per_video"][name]
            queries -= facts["invalid_queries"][name][phase]
            assert (split.expected.videos, split.expected.queries) == (videos, queries)
    assert counted == {(n, phase) for n, phases in facts["videos"].items() for phase in phases}
