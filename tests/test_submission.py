"""Submissions to the challenge: what is packed, what is refused, and what it scores."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import misc.cvpr2020_challenge.ground_truth as truth_program
import misc.cvpr2020_challenge.prepare_submission as prepare_program
import misc.cvpr2020_challenge.score as score_program
import misc.cvpr2020_challenge.submission as submission_module
import misc.cvpr2020_challenge.test_baselines as predict_program
import misc.cvpr2020_challenge.train_baselines as train_program
from data_loader.sets.description import Counts
from logger.predictions import as_csv
from misc.cvpr2020_challenge.ground_truth import GroundTruth, SetTruth, read_truth, write_truth
from misc.cvpr2020_challenge.score import GEOMETRIC_MEAN, mean_score, recalls, score
from misc.cvpr2020_challenge.sets import SETS, TEST, VAL, published_counts
from misc.cvpr2020_challenge.submission import (
    phase_of,
    read_folder,
    read_submission,
    write_submission,
)
from model.metric import t2v_metrics
from tests.run_files import Run
from tests.test_predictions_file import TABLES, draw
from tests.tiny_set import write_json
from utils.errors import UserError

VIDEOS = 14
ONE_ROW = "0,1,2,3,4,5,6,7,8,9\n"


@pytest.fixture
def truth() -> GroundTruth:
    rng = np.random.default_rng(0)
    sets = {}
    for number, name in enumerate(SETS):
        counts = rng.integers(1, 4, VIDEOS + number)
        sets[name] = SetTruth(VIDEOS + number, np.repeat(np.arange(VIDEOS + number), counts))
    return GroundTruth(VAL, sets)


@pytest.fixture
def predictions(truth: GroundTruth) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: draw(rng, size.queries, size.videos) for name, size in truth.counts.items()}


@pytest.fixture
def place(
    tmp_path: Path,
    truth: GroundTruth,
    predictions: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A working directory with predictions and ground truth."""
    folder = tmp_path / "data" / "challenge" / VAL
    folder.mkdir(parents=True)
    for name, table in predictions.items():
        (folder / f"{name}.csv").write_text(as_csv(table))
    write_truth(tmp_path / "truth.json", truth)
    monkeypatch.chdir(tmp_path)
    return folder


PREPARE = ("--phase", VAL, "--ground_truth", "truth.json")


# ---- packing ----


def test_a_submission_is_named_after_what_it_holds(
    place: Path, run: Run, truth: GroundTruth, predictions: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = run(prepare_program, *PREPARE)
    assert code == 0, output
    [path] = place.parent.glob("*.zip")
    assert phase_of(path) == VAL and str(path.name) in output
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{name}.csv" for name in SETS]
        assert archive.read("MSVD.csv").decode() == as_csv(predictions["MSVD"])
    found = read_submission(path, truth.counts)
    for name, table in predictions.items():
        np.testing.assert_array_equal(found[name], table)

    # The same predictions make the same bytes, however their files are spelt.
    before = path.read_bytes()
    file = place / "MSVD.csv"
    file.write_text(file.read_text().replace(",", ", ").replace("\n", "\r\n"))
    assert run(prepare_program, *PREPARE)[0] == 0
    assert list(place.parent.glob("*.zip")) == [path] and path.read_bytes() == before
    monkeypatch.setattr(submission_module, "date", type("", (), {"today": lambda: Later}))
    later = write_submission(place, VAL, predictions)
    assert later.name == path.name[: -len("YYYY-MM-DD.zip")] + "2031-02-03.zip"

    predictions["MSVD"][0, [0, 1]] = predictions["MSVD"][0, [1, 0]]
    assert write_submission(place, VAL, predictions).name[:29] != later.name[:29]
    assert write_submission(place, TEST, predictions).name.startswith(f"{TEST}-")


class Later:
    @staticmethod
    def isoformat() -> str:
        return "2031-02-03"


def test_what_is_missing_or_wrong_is_not_packed(place: Path, run: Run) -> None:
    (place / "LSMDC.csv").write_text("of no concern")
    (place / "MSVD.csv").unlink()
    (place / "DiDeMo.csv").rename(place / "didemo.csv")
    for arguments, sentence in (
        (
            PREPARE,
            "There is no MSVD.csv, DiDeMo.csv in the folder data/challenge/public_server_val",
        ),
        (("--phase", TEST), "There is no MSRVTT.csv, MSVD.csv, "),
        (("--phase", TEST, *PREPARE[2:]), "is of public_server_val, not of public_server_test"),
        ((*PREPARE, "--predictions", "nowhere"), "in the folder nowhere"),
        (("--phase", VAL, "--ground_truth", "none.json"), "Cannot read the ground truth none.json"),
    ):
        code, output = run(prepare_program, *arguments)
        assert code == 2 and sentence in output, output
        assert output.startswith("error: ") and output.count("\n") == 1
    (place / "didemo.csv").rename(place / "DiDeMo.csv")
    (place / "MSVD.csv").write_text("1,2\n")
    code, output = run(prepare_program, *PREPARE)
    assert code == 2 and f"{place.name}/MSVD.csv has 1 rows, " in output
    truth = json.loads(Path("truth.json").read_text())
    del truth["sets"]["MSVD"]
    write_json(Path("truth.json"), truth)
    code, output = run(prepare_program, *PREPARE)
    assert code == 2 and "truth.json lacks MSVD" in output
    assert {path.name for path in place.parent.iterdir()} == {VAL}


def test_predictions_of_the_published_size_fit(tmp_path: Path) -> None:
    counts = published_counts(VAL)
    rng = np.random.default_rng(2)
    tables = {name: draw(rng, size.queries, size.videos) for name, size in counts.items()}
    for name, table in tables.items():
        (tmp_path / f"{name}.csv").write_text(as_csv(table))
    found = read_folder(tmp_path, counts)
    path = write_submission(tmp_path, VAL, found)
    assert [len(table) for table in found.values()] == [9940, 4290, 1065, 1001, 969]
    again = read_submission(path, counts)
    assert all((again[name] == tables[name]).all() for name in SETS)


# ---- a zip that anybody may have made ----


def packed(path: Path, files: list[tuple[str | zipfile.ZipInfo, bytes | str]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.fixture
def members(predictions: dict[str, np.ndarray]) -> list[tuple[str, bytes | str]]:
    return [(f"{name}.csv", as_csv(table)) for name, table in predictions.items()]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda files: files[1:], "lacks MSRVTT.csv"),
        (lambda files: [*files, ("../../evil.csv", "1")], r"holds '../../evil.csv': only"),
        (lambda files: [*files, ("/etc/passwd", "1")], "holds '/etc/passwd'"),
        (lambda files: [*files, ("a\u202eb\n", "1")], r"holds 'a\\u202eb\\n'"),
        (lambda files: [*files, *((str(n), "") for n in range(500))], "and 497 more"),
        (lambda files: [(f"run/{name}", text) for name, text in files], "in no folder"),
        (lambda files: [*files[:4], (files[4][0], "\0" * 10**8)], "too much"),
        (lambda files: [*files[:4], (files[4][0], b"\xff")], "YouCook2.csv.*ASCII"),
        (lambda files: [*files, (link("MSVD.csv"), "/etc/passwd")], "twice"),
        (lambda files: [files[0], (link("MSVD.csv"), "/etc/passwd"), *files[2:]], "has 1 rows"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip_is_refused(
    place: Path, truth: GroundTruth, members: list, change: Callable, sentence: str
) -> None:
    path = packed(place / "hostile.zip", change(members))
    before = sorted(place.parents[2].rglob("*"))
    with pytest.raises(UserError, match=sentence) as error:
        read_submission(path, truth.counts)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert sorted(place.parents[2].rglob("*")) == before


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o120777 << 16
    return member


def test_a_zip_may_lie_about_sizes_and_methods(
    place: Path, truth: GroundTruth, members: list
) -> None:
    whole = packed(place / "whole.zip", members).read_bytes()
    at = whole.index(b"PK\x01\x02")  # the first entry of the directory
    lies = {
        "size": (24, struct.pack("<I", 2**31)),
        "small size": (24, struct.pack("<I", 3)),
        "packed size": (20, struct.pack("<I", 2**31)),
        "encrypted": (8, struct.pack("<H", 1)),
        "method": (10, struct.pack("<H", 14)),
        "odd method": (10, struct.pack("<H", 77)),
        "place": (42, struct.pack("<I", 2**31)),
        "check sum": (16, struct.pack("<I", 1)),
    }
    for what, (offset, value) in lies.items():
        content = bytearray(whole)
        content[at + offset : at + offset + len(value)] = value
        (place / "lie.zip").write_bytes(content)
        try:
            read_submission(place / "lie.zip", truth.counts)
        except UserError as error:
            assert "lie.zip" in str(error)
        else:
            assert what in ("size", "packed size")  # no matter: they are not believed


@pytest.fixture(scope="module")
def small_zip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder, and a submission of one query for each set."""
    folder = tmp_path_factory.mktemp("damaged")
    path = packed(folder / "whole.zip", [(f"{name}.csv", ONE_ROW) for name in SETS])
    return folder, path.read_bytes()


@settings(deadline=None)
@given(st.data())
def test_a_damaged_zip_is_read_or_refused(
    small_zip: tuple[Path, bytes], data: st.DataObject
) -> None:
    folder, whole = small_zip[0], bytearray(small_zip[1])
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.zip"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    try:
        found = read_submission(path, dict.fromkeys(SETS, Counts(12, 1)))
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert {table.shape for table in found.values()} == {(1, 10)}


def test_what_is_no_zip(place: Path, truth: GroundTruth, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no submission"):
        read_submission(place, truth.counts)
    (place / "text.zip").write_text("PK or not")
    with pytest.raises(UserError, match="damaged"):
        read_submission(place / "text.zip", truth.counts)
    monkeypatch.setattr(submission_module, "LARGEST_ZIP", 5)
    with pytest.raises(UserError, match="larger"):
        read_submission(place / "text.zip", truth.counts)


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        (f"{VAL}-0123456789-2020-06-01.zip", VAL),
        (f"{TEST}-abcdefabcd-2020-06-01.zip", TEST),
        (f"{VAL}-012345678-2020-06-01.zip", None),
        (f"a{VAL}-0123456789-2020-06-01.zip", None),
        ("public_server_-0123456789-2020-06-01.zip", None),
    ],
)
def test_a_name_tells_the_phase(name: str, phase: str | None) -> None:
    assert phase_of(Path("folder", name)) == phase


# ---- the score ----


@settings(deadline=None)
@given(TABLES)
def test_recalls_are_what_counting_gives(case: tuple[int, int, int]) -> None:
    queries, videos, seed = case
    rng = np.random.default_rng(seed)
    table, own = draw(rng, queries, videos), rng.integers(0, videos, queries)
    found = recalls(table, own)
    product = 1.0
    for k in (1, 5, 10):
        hits = sum(int(own[q]) in table[q, :k].tolist() for q in range(queries))
        assert found[f"R{k}"] == pytest.approx(100 * hits / queries)
        product *= 100 * hits / queries
    assert found[GEOMETRIC_MEAN] == pytest.approx(product ** (1 / 3))


@settings(deadline=None)
@given(st.integers(10, 14), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_recalls_agree_with_the_metrics(videos: int, captions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((videos, captions)) < 0.6
    masks[:, 0] = True
    sims = np.array([rng.permutation(videos) for _ in range(masks.size)], dtype=np.float32)
    sims[np.arange(masks.size), np.arange(masks.size) // captions] += 3.5
    valid = masks.flatten()
    table = np.argsort(-sims[valid], axis=1)[:, :10]
    metrics = t2v_metrics(sims, masks)
    found = recalls(table, np.nonzero(masks)[0])
    assert found == {name: metrics[name] for name in found} and GEOMETRIC_MEAN in found


def test_a_submission_is_scored(place: Path, run: Run, truth: GroundTruth) -> None:
    assert run(prepare_program, *PREPARE)[0] == 0
    [path] = place.parent.glob("*.zip")
    rows = score(path, truth)
    code, output = run(score_program, path, "--ground_truth", "truth.json")
    assert code == 0 and list(rows) == list(SETS)
    for name, row in rows.items():
        size = truth.counts[name]
        cells = [name, str(size.videos), str(size.queries), *(f"{v:.2f}" for v in row.values())]
        assert f"| {' | '.join(cells)} |" in output
    assert f"{mean_score(rows):.2f} |" in output.splitlines()[-1]
    mean = sum(row[GEOMETRIC_MEAN] for row in rows.values()) / 5
    assert mean_score(rows) == pytest.approx(mean)

    # Without the ground truth of a set, the others are measured, and it is said.
    some = GroundTruth(VAL, {name: truth.sets[name] for name in ("MSVD", "DiDeMo")})
    write_truth(Path("some.json"), some)
    code, output = run(score_program, path, "--ground_truth", "some.json", "--format", "latex")
    assert code == 0 and "score, mean of 2" in output
    assert "MSRVTT, ActivityNet, YouCook2" in output


def test_a_perfect_submission_has_a_hundred(tmp_path: Path, truth: GroundTruth) -> None:
    tables = {
        name: (entry.video_of_query[:, None] + np.arange(10)) % entry.videos
        for name, entry in truth.sets.items()
    }
    rows = score(write_submission(tmp_path, VAL, tables), truth)
    assert mean_score(rows) == pytest.approx(100)
    last = {name: table[:, ::-1] for name, table in tables.items()}
    rows = score(write_submission(tmp_path, VAL, last), truth)
    assert mean_score(rows) == 0 and rows["MSVD"]["R10"] == 100 and rows["MSVD"]["R5"] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.zip"], "--phase"),
        (["nowhere.zip", "--phase", VAL], "nowhere.zip"),
        (["none.zip", "--ground_truth", "truth.json"], "damaged"),
        (["none.zip", "--phase", TEST, "--ground_truth", "truth.json"], "is of public_server_val"),
        ([f"{TEST}-0123456789-2020.zip", "--ground_truth", "truth.json"], "is of public_server_v"),
        (["none.zip", "--phase", VAL, "--datasets", "LSMDC"], '"LSMDC"'),
        (["none.zip", "--phase", VAL, "--datasets", "MSDV"], 'did you mean "MSVD"'),
        (["none.zip", "--phase", VAL, "--datasets", "MSVD,MSVD"], "twice"),
        (
            ["none.zip", "--phase", VAL, "--datasets", "MSVD"],
            "sync_experts.py --dataset MSVD --release challenge-release-1",
        ),
    ],
)
def test_what_cannot_be_scored(place: Path, run: Run, arguments: list[str], sentence: str) -> None:
    if arguments[0] != "nowhere.zip":
        Path(arguments[0]).write_bytes(b"")
    code, output = run(score_program, *arguments)
    assert code == 2 and sentence in output
    assert output.splitlines()[-1].startswith("error: ") and "Traceback" not in output


def test_ground_truth_survives_its_file(tmp_path: Path, truth: GroundTruth) -> None:
    write_truth(tmp_path / "deep" / "er" / "truth.json", truth)
    found = read_truth(tmp_path / "deep" / "er" / "truth.json")
    assert found.phase == truth.phase and found.counts == truth.counts
    for name, entry in found.sets.items():
        np.testing.assert_array_equal(entry.video_of_query, truth.sets[name].video_of_query)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: [], 'must hold "phase"'),
        (lambda t: t | {"phase": "val"}, 'must hold "phase"'),
        (lambda t: t | {"sets": {}}, 'must hold "phase"'),
        (lambda t: t | {"sets": {"LSMDC": {}}}, 'has a set "LSMDC"'),
        (lambda t: t | {"sets": {"MSVD": []}}, 'MSVD.*"videos"'),
        (lambda t: t | {"sets": {"MSVD": entry(True, [0])}}, 'must hold "videos"'),
        (lambda t: t | {"sets": {"MSVD": entry(3, [])}}, 'must hold "videos"'),
        (lambda t: t | {"sets": {"MSVD": entry(3, [0, 3])}}, "query 1 the video 3"),
        (lambda t: t | {"sets": {"MSVD": entry(3, [-1])}}, "the query 0 the video -1"),
        (lambda t: t | {"sets": {"MSVD": entry(3, [1.0])}}, r"the query 0 the video 1\.0"),
    ],
)
def test_ground_truth_is_checked(
    tmp_path: Path, truth: GroundTruth, change: Callable, sentence: str
) -> None:
    write_truth(tmp_path / "truth.json", truth)
    content = change(json.loads((tmp_path / "truth.json").read_text()))
    with pytest.raises(UserError, match=sentence):
        read_truth(write_json(tmp_path / "truth.json", content))


def entry(videos: object, own: list) -> dict:
    return {"videos": videos, "video_of_query": own}


# ---- the baselines' command lines ----


@pytest.mark.parametrize("program", [train_program, predict_program, truth_program])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--datasets", "MSVDD"], 'did you mean "MSVD"'),
        (["--configs", "nowhere"], "nowhere/msrvtt/baseline-public-trainval.json"),
        (["--custom_args", "trainer.epoch@1"], 'did you mean "trainer.epochs"'),
        (["--custom_args", "challenge_mode@false"], "challenge_mode"),
        (["--custom_args", "eval_settings@false"], "eval_settings"),
    ],
)
def test_wrong_input_is_answered_at_once(
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    program: object,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    others = ["--phase", VAL, "--output", "truth.json"] if program is truth_program else []
    code, output = run(program, *arguments, *others)
    assert code == 2 and sentence in output and output.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_baselines_take_one_seed(tmp_path: Path, run: Run) -> None:
    code, output = run(train_program, "--seed", "0,1", "--output", tmp_path / "out")
    assert code == 2 and "--seed" in output and not (tmp_path / "out").exists()


def test_without_a_training_there_is_nothing_to_test(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run(predict_program, "--datasets", "MSVD, LSMDC")
    assert code == 2 and "(MSVD, LSMDC)" in output
    assert output.count("failed: it is not trained: misc.cvpr2020_challenge.train_baselines") == 2
    assert "prepare_submission" not in output
