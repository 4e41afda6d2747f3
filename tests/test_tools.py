"""What all command-line tools have in common: how they end where something is wrong."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.own_data import OwnData
from utils.command_line import run_main

TOOLS = [
    path.with_suffix("").relative_to(ROOT).as_posix().replace("/", ".")
    for path in sorted((ROOT / "misc").rglob("*.py"))
    if "__main__" in path.read_text() and "run_main(" in path.read_text()
]
FILES = [f"{tool.replace('.', '/')}.py" for tool in TOOLS]
FILES = [file for file in FILES if "not __package__" in (ROOT / file).read_text()]


def test_all_tools_are_found() -> None:
    assert {"misc.make_teachers", "misc.demo_set.__main__", "misc.cvpr2020_challenge.score"} < {
        *TOOLS
    }


@pytest.mark.parametrize(
    "command",
    [["-m", tool.removesuffix(".__main__")] for tool in TOOLS] + [[file] for file in FILES],
    ids=" ".join,
)
def test_ctrl_c_while_a_tool_loads_is_no_traceback(command: list[str]) -> None:
    """The interpreter tells of each module that it has loaded, so that moments can be chosen."""
    for moment in (0, 60):
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", *command, "--help"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        loaded = iter(process.stderr.readline, "")
        for line in loaded:
            if line.split("|")[-1].strip() == "misc":
                break
        for _, line in zip(range(moment), loaded, strict=False):
            assert line.startswith("import time:")
        process.send_signal(signal.SIGINT)
        rest = [line for line in loaded if not line.startswith("import time:")]
        code = process.wait()
        process.stderr.close()
        # By the system before the tool has begun, by its own answer after.
        assert code in (-signal.SIGINT, 130, 0), (moment, rest)
        assert all(line.startswith("interrupted") for line in rest) and len(rest) <= 1, rest


TEXT = "prepare_text_embeddings --captions own/captions.json"
PHASE = "--phase=public_server_val"
# Tools with a path of the user's in each place where they take one.
WITH_PATHS = [
    "make_teachers --resume {}",
    "make_teachers --resume none.pth --config {}",
    "denoise_captions --top_k 3 --config {}",
    "describe --config {}",
    "results_table {}",
    "run_study --configs {}",
    "serve_rankings {}",
    "check_data_set.__main__ {}",
    f"{TEXT} --output o.npz --encoder {{}}",
    f"{TEXT} --output o.npz --encoder w2v --weights {{}}",
    "prepare_text_embeddings --output o.npz --encoder own/words.bin --captions {}",
    "prepare_text_embeddings --output o.npz --encoder own/words.bin --dataset {}",
    f"cvpr2020_challenge.score {{}} {PHASE}",
    "cvpr2020_challenge.score own/words.bin --ground_truth {}",
    f"cvpr2020_challenge.ground_truth {PHASE} --output o.json --configs {{}}",
    f"cvpr2020_challenge.prepare_submission {PHASE} --predictions {{}}",
    f"cvpr2020_challenge.prepare_submission {PHASE} --ground_truth {{}}",
    "cvpr2020_challenge.train_baselines --configs {}",
    "cvpr2020_challenge.test_baselines --configs {}",
]
PATHS = {
    "missing": "none",
    "a folder": "folder",
    "an empty file": "empty.json",
    "below a file": "empty.json/x",
    "too long": "x" * 300,
    "half a character": "a\udcff",
}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("call", WITH_PATHS)
def test_a_path_that_leads_nowhere_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: str,
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("own", "folder"):
        Path(name).mkdir()
    OwnData(Path("own"))
    Path("empty.json").touch()
    before = sorted(tmp_path.rglob("*"))
    tool, *flags = call.split()
    main = importlib.import_module(f"misc.{tool}").main
    assert run_main(main, [flag.format(PATHS[kind]) for flag in flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "call",
    [
        f"{TEXT} --encoder own/words.bin --output {{}}.npz",
        "run_study --study components --dataset demo --sbatch {}",
        "demo_set.__main__ --num_train 1 --num_val 1 --num_test 1 --folder {}",
        "demo_set.__main__ --num_train 1000000000000 --folder new",
    ],
)
@pytest.mark.parametrize("kind", ["below a file", "too long"])
def test_a_place_that_cannot_be_written_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: str,
    kind: str,
) -> None:
    Path(tmp_path, "configs").symlink_to(ROOT / "configs")
    test_a_path_that_leads_nowhere_is_one_sentence(tmp_path, monkeypatch, capsys, call, kind)


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("> /dev/full", 2, "error: Cannot write the output: there is no space left on the disk.\n"),
    ],
)
def test_an_output_that_is_closed_or_full(redirection: str, code: int, said: str) -> None:
    command = f"{sys.executable} -m misc.published_results {redirection}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (code, said)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict", "latin-1:strict"])
def test_an_output_that_cannot_show_all_letters(tmp_path: Path, encoding: str) -> None:
    OwnData(tmp_path)
    command = [sys.executable, "-m", "misc.prepare_text_embeddings", "--encoder"]
    command += [tmp_path / "words.bin", "--captions", tmp_path / "captions.json", "--output"]
    for name in ("text.npz", "\u72ac.npz", os.fsdecode(b"\xff.npz")):
        result = subprocess.run(
            [*command, tmp_path / name],
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"},
            capture_output=True,
        )
        assert (result.returncode, result.stderr) == (0, b"")
        assert b"vectors of size" in result.stdout
