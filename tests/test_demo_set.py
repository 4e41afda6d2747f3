"""The demo set as a user gets it: the same files every time, whatever happened on the way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from misc.demo_set import make
from misc.demo_set.__main__ import main
from misc.demo_set.make import make_demo_set
from utils.command_line import run_main
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
TINY = {"num_train": 24, "num_val": 6, "num_test": 8}
SMALL = {"num_train": 11, "num_val": 2, "num_test": 3}  # two chunks


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def features(folder: Path, expert: str) -> dict[str, np.ndarray]:
    with np.load(folder / "features" / f"{expert}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def start(program: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a program that makes the small set in `folder` (its first argument)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    opening = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from misc.demo_set import assemble, make, workers\n"
        "folder = Path(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", opening + program, str(folder)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


MAKE = f"make.make_demo_set(folder, workers=2, **{SMALL})\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    make_demo_set(folder, workers=2, **TINY)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the small set that nothing disturbed, made by one worker."""
    folder = tmp_path_factory.mktemp("demo") / "small"
    make_demo_set(folder, workers=1, **SMALL)
    return contents(folder)


def test_same_files_for_any_number_of_workers(small: dict[str, bytes], tmp_path: Path) -> None:
    """And with videos of the training clips: they come on top, nothing else changes."""
    make_demo_set(tmp_path / "demo", workers=3, train_videos=True, **SMALL)
    made = contents(tmp_path / "demo")
    extra = {f"videos/clip{number:05d}.mp4" for number in range(SMALL["num_train"])}
    assert made.keys() == small.keys() | extra
    assert {name: made[name] for name in small} == small


# Where the process kills itself, and whether a finished chunk is there by then.
KILLS = {
    "after the first chunk": (
        "run = workers.run_chunks\n"
        "def killing(*given):\n"
        "    for place in run(*given):\n"
        "        yield place\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "make.run_chunks = killing\n"
    ),
    "before the descriptor": (
        "def killing(settings):\n"
        "    (folder / 'features' / '.scene.npz.1-0123abcd.tmp').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "assemble.describe = killing\n"
    ),
}


@pytest.mark.parametrize("moment", KILLS)
def test_killed_and_run_again_ends_in_the_same_files(
    moment: str, small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    process = start(KILLS[moment] + MAKE, folder)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "dataset.json").exists()
    finished = {int(path.stem[-5:]) for path in folder.glob(".work/chunk-*.npz")}
    assert finished
    with pytest.raises(UserError, match="unfinished"):
        make_demo_set(folder, **TINY)

    remade = []
    run_chunks = make.run_chunks

    def spy(settings, places, chunks, *others):
        remade.extend(chunks)
        return run_chunks(settings, places, chunks, *others)

    monkeypatch.setattr(make, "run_chunks", spy)
    make_demo_set(folder, workers=2, **SMALL)
    assert not finished & set(remade)
    assert contents(folder) == small


def test_interrupted_ends_its_workers_and_says_how_to_go_on(tmp_path: Path) -> None:
    program = (
        "run, begin = workers.run_chunks, workers._start\n"
        "def noting(*given):\n"
        "    process = begin(*given)\n"
        "    print(process.pid, flush=True)\n"
        "    return process\n"
        "def interrupting(*given):\n"
        "    for place in run(*given):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        yield place\n"
        "workers._start, make.run_chunks = noting, interrupting\n"
        "from misc.demo_set.__main__ import main\n"
        "from utils.command_line import run_main\n"
        "given = ['--folder', str(folder), '--workers', '2']\n"
        "sys.exit(run_main(main, given, 'the same command continues'))\n"
    )
    process = start(program, tmp_path / "demo")
    output, errors = process.communicate()
    assert process.returncode == 130
    assert b"continues" in errors
    assert b"Traceback" not in errors
    pids = [int(line) for line in output.split()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_two_processes_at_once_make_one_good_set(small: dict[str, bytes], tmp_path: Path) -> None:
    pair = [start(MAKE, tmp_path / "demo") for _ in range(2)]
    outcomes = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outcomes
    assert contents(tmp_path / "demo") == small


def test_complete_set_is_left_alone(tiny: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    make_demo_set(tiny, workers=2, **TINY)
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before


def test_lost_files_are_made_again(small: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for name, data in small.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "features/scene.npz").unlink()
    (folder / f"videos/clip{SMALL['num_train']:05d}.mp4").unlink()
    make_demo_set(folder, workers=2, **SMALL)
    assert contents(folder) == small


def test_other_size_or_seed_is_refused(tiny: Path) -> None:
    for other in ({"num_train": 25}, {"seed": 9}):
        with pytest.raises(UserError, match=r"choose another") as refusal:
            make_demo_set(tiny, **{**TINY, **other})
        assert str(tiny) in str(refusal.value)


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        make_demo_set(tmp_path, **TINY)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot create"):
        make_demo_set(tmp_path / "file" / "demo", **TINY)


def test_worker_that_cannot_write_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / ".work" / "chunk-00000.npz").mkdir(parents=True)
    with pytest.raises(UserError, match="Cannot write"):
        make_demo_set(folder, workers=2, **SMALL)


@pytest.mark.parametrize(
    "wrong", [["--num_test", "0"], ["--seed", "-1"], ["--workers", "0"], ["--num_val", "many"]]
)
def test_wrong_value_is_one_sentence(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run_main(main, ["--folder", str(tmp_path / "demo"), *wrong])
    except SystemExit as end:
        code = end.code
    output = capsys.readouterr()
    assert code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert wrong[1] in output.err


def test_command_line_says_what_was_made(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [f"--{name}={value}" for name, value in TINY.items()]
    assert run_main(main, ["--folder", str(tiny), *sizes]) == 0
    said = capsys.readouterr().out
    assert "24 training, 6 validation and 8 test" in said
    assert " MB" in said


def test_files_are_those_that_the_descriptor_names(tiny: Path) -> None:
    described = json.loads((tiny / "dataset.json").read_text())
    splits = {name: (tiny / f"splits/{name}.txt").read_text().split() for name in ("train", "val")}
    assert described["splits"]["full-val"] == {"train": "splits/train.txt", "val": "splits/val.txt"}
    assert described["splits"]["full-test"]["val"] == "splits/test.txt"
    assert [len(ids) for ids in splits.values()] == [24, 6]
    test_ids = (tiny / "splits/test.txt").read_text().split()
    everyone = [*splits["train"], *splits["val"], *test_ids]
    assert len(set(everyone)) == 38
    assert list(json.loads((tiny / described["captions"]).read_text())) == everyone
    for name, expert in described["experts"].items():
        arrays = features(tiny, name)
        assert arrays["feats"].dtype == np.float32
        assert arrays["feats"].shape[1] == expert["size"]
        assert np.isfinite(arrays["feats"]).all()
        present = set(arrays["ids"].tolist())
        assert arrays["ids"].tolist() == [clip for clip in everyone if clip in present]
        if expert.get("variable_length"):
            offsets = arrays["offsets"]
            assert offsets[0] == 0
            assert offsets[-1] == len(arrays["feats"])
            assert len(offsets) == len(arrays["ids"]) + 1
            assert (np.diff(offsets) > 0).all()
        else:
            assert len(arrays["feats"]) == len(arrays["ids"])
    for table in described["text_features"].values():
        assert (tiny / table["word_vectors"]).is_file()


def test_some_experts_are_missing_for_some_clips(tiny: Path) -> None:
    counts = {name: len(features(tiny, name)["ids"]) for name in ("appearance", "scene", "audio")}
    assert counts == {"appearance": 38, "scene": 38, "audio": 38}
    for name in ("motion", "ocr", "speech"):
        assert 0 < len(features(tiny, name)["ids"]) < 38


def test_training_features_have_mean_0_and_deviation_1(tiny: Path) -> None:
    train = (tiny / "splits/train.txt").read_text().split()
    for name in ("appearance", "scene", "motion"):
        arrays = features(tiny, name)
        chosen = arrays["feats"][np.isin(arrays["ids"], train)]
        assert np.abs(chosen.mean(0)).max() < 1e-3
        # A dimension that never varies stays 0.
        assert ((np.abs(chosen.std(0) - 1) < 1e-2) | (chosen.std(0) < 1)).all()


def test_videos_play(tiny: Path) -> None:
    held_out = [(tiny / f"splits/{name}.txt").read_text().split() for name in ("val", "test")]
    clips = [clip for ids in held_out for clip in ids]
    assert sorted(path.stem for path in (tiny / "videos").iterdir()) == sorted(clips)
    for clip in clips:
        path = tiny / "videos" / f"{clip}.mp4"
        data = path.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")  # plays before it is loaded entirely
        with av.open(str(path)) as container:
            picture, sound = container.streams.video[0], container.streams.audio[0]
            assert picture.codec_context.name == "h264"
            assert picture.codec_context.pix_fmt == "yuv420p"
            assert sound.codec_context.name == "aac"
            seconds = picture.frames / 10
            assert 3 <= seconds <= 4
            assert container.duration / 1e6 == pytest.approx(seconds, abs=0.1)
            assert sum(frame.samples for frame in container.decode(sound)) >= 16000 * seconds
