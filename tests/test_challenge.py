"""The video pentathlon from training to score, on small copies of its five sets."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import misc.cvpr2020_challenge.ground_truth as truth_program
import misc.cvpr2020_challenge.prepare_submission as prepare_program
import misc.cvpr2020_challenge.score as score_program
import misc.cvpr2020_challenge.test_baselines as predict_program
import misc.cvpr2020_challenge.train_baselines as train_baselines_program
import misc.results.studies
import test as test_program
import train as train_program
from misc.cvpr2020_challenge.sets import SETS, TEST, VAL
from misc.cvpr2020_challenge.submission import phase_of
from tests.challenge_layout import OVERRIDES, SEARCHED, ChallengeLayout
from tests.conftest import ROOT
from tests.run_files import Run
from utils.command_line import run_main

CUSTOM = ("--custom_args", OVERRIDES)
PROGRAMS = {"train.py": train_program, "test.py": test_program}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pentathlon")
    for name in SETS:
        layout_of(folder, name).write()
    return folder


def layout_of(folder: Path, name: str) -> ChallengeLayout:
    places = {"ActivityNet": "activity-net"}
    return ChallengeLayout(folder / "data" / places.get(name, name), name)


@pytest.fixture
def ran(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run programs in this process, which is quicker; the list fills with their names."""
    names: list[str] = []

    def run_command(command: list[str]) -> int:
        path = Path(command[1])
        assert command[0] == sys.executable and path == ROOT / path.name
        names.append(path.name)
        return run_main(PROGRAMS[path.name].main, command[2:])

    monkeypatch.chdir(workplace)
    monkeypatch.setattr(misc.results.studies, "run_command", run_command)
    return names


def rows(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", dtype=int, ndmin=2)


@pytest.mark.slow
def test_from_training_to_score(workplace: Path, ran: list[str], run: Run) -> None:
    # A set that cannot be trained keeps nothing back.
    broken = workplace / "data/MSVD/challenge-release-1/train_list.txt"
    content = broken.read_text()
    broken.write_text("")
    stale = workplace / "data/challenge" / VAL / "MSVD.csv"
    stale.parent.mkdir(parents=True)
    stale.write_text("of another training")
    code, output = run(train_baselines_program, *CUSTOM)
    assert code == 2 and ran == ["train.py"] * 5, output
    assert "(MSVD)" in output.splitlines()[-1] and not stale.exists()
    assert "[2/5] MSVD, public_server_val: failed" in output
    assert sum(path.suffix == ".csv" for path in stale.parent.iterdir()) == 4

    # The same command trains what failed, and no other.
    broken.write_text(content)
    ran.clear()
    code, output = run(train_baselines_program, *CUSTOM)
    assert code == 0 and ran == ["train.py"], output
    assert "misc.cvpr2020_challenge.prepare_submission --phase public_server_val" in output
    code, output = run(train_baselines_program, *CUSTOM, "--dry_run")
    assert code == 0 and "5 of 5" in output

    # Where the predictions are gone, or another model's, they are made again.
    [log] = (workplace / "data/saved/log").glob("didemo-*/challenge/seed-0/*")
    before = (log / f"predictions-{VAL}.csv").read_bytes()
    (log / f"predictions-{VAL}.csv").unlink()
    ran.clear()
    code, output = run(train_baselines_program, *CUSTOM)
    assert code == 0 and ran == ["test.py"], output
    assert (log / f"predictions-{VAL}.csv").read_bytes() == before

    ran.clear()
    code, output = run(predict_program, *CUSTOM, "--dry_run")
    assert code == 0 and output.count("to be predicted") == 5 and not ran
    code, output = run(predict_program, *CUSTOM)
    assert code == 0 and ran == ["test.py"] * 5, output
    code, output = run(predict_program, *CUSTOM)
    assert code == 0 and ran == ["test.py"] * 5, output

    for phase, videos in SEARCHED.items():
        layouts = {name: layout_of(workplace, name) for name in SETS}
        # The copies are smaller than the published sets: nothing is packed that would not fit.
        code, output = run(prepare_program, "--phase", phase)
        assert code == 2 and "rows, " in output and output.startswith("error: ")
        assert not list((workplace / "data/challenge").glob(f"{phase}*.zip"))

        truth = workplace / f"truth {phase}.json"
        code, output = run(truth_program, "--phase", phase, "--output", truth, *CUSTOM)
        assert code == 0, output
        assert "do not fit the challenge" in output
        sets = json.loads(truth.read_text())["sets"]
        for name, layout in layouts.items():
            assert sets[name] == {"videos": videos, "video_of_query": layout.queries(phase)}
            found = rows(workplace / "data/challenge" / phase / f"{name}.csv")
            assert found.shape == (len(layout.queries(phase)), 10)
        assert {len(entry["video_of_query"]) > videos for entry in sets.values()} == {True, False}

        code, output = run(prepare_program, "--phase", phase, "--ground_truth", truth)
        assert code == 0, output
        [submission] = (workplace / "data/challenge").glob(f"{phase}*.zip")
        assert phase_of(submission) == phase
        code, output = run(score_program, submission, "--ground_truth", truth)
        assert code == 0, output
        code, again = run(score_program, submission, *CUSTOM)
        assert code == 0 and output[-300:] in again

        assert scores(output) == pytest.approx(measured(workplace, phase, run), abs=0.006)


def scores(output: str) -> dict[str, float]:
    """The last column of the table, by the first."""
    lines = [line.strip("|").split("|") for line in output.splitlines() if line[:1] == "|"][2:]
    return {cells[0].strip(" *"): float(cells[-1]) for cells in lines}


def measured(workplace: Path, phase: str, run: Run) -> dict[str, float]:
    """What test.py measures of the same models, with metrics in place of predictions."""
    found = {}
    stem = {VAL: "baseline-public-trainval", TEST: "baseline-public-test"}[phase]
    for name, folder in SETS.items():
        [models] = (workplace / "data/saved/models").glob(f"{folder}-*/challenge/seed-0/*")
        config = ROOT / "configs/cvpr2020-challenge" / folder / f"{stem}.json"
        code, output = run(
            test_program,
            *("--config", config, "--resume", models / "trained_model.pth"),
            *("--eval_from_training_config", "--custom_args", f"{OVERRIDES}+challenge_mode@false"),
        )
        assert code == 0, output
        log = Path(str(models).replace("models", "log"))
        metrics = json.loads((log / "metrics.json").read_text())
        [test] = [entry for entry in metrics["tests"] if entry["test_split"] == phase]
        found[name] = test["test"]["t2v_metrics"]["geometric_mean_R1-R5-R10"]
        assert metrics["test_split"] == VAL and "val_t2v_metrics_R1" in metrics["epochs"][0]
    return {**found, "score, mean of 5": sum(found.values()) / 5}
