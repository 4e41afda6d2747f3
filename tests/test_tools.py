"""What all command-line tools have in common: how they end where something is wrong."""

import ast
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from misc.__main__ import main as list_main
from misc.tools import find_tools
from tests.conftest import ROOT
from tests.own_data import OwnData
from utils.command_line import run_main

TOOLS = [tool.name for tool in find_tools()]
# Paths that users of the published code know.
FILES = [
    "misc/denoise_captions.py",
    "misc/make_teachers.py",
    "misc/prepare_text_embeddings.py",
    "misc/sync_experts.py",
]


def test_what_is_listed_is_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """A naive twin: whatever a shell could start with `python3 -m misc.<tool>`, but workers."""
    assert run_main(list_main, []) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    startable = set()
    for path in (ROOT / "misc").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / "misc").with_suffix("").parts)
        body = ast.parse(path.read_text()).body
        guarded = [node for node in body if isinstance(node, ast.If)]
        if any("__main__" in ast.unparse(node.test) for node in guarded):
            startable.add(name.removesuffix(".__main__"))
    workers = {"demo_set.workers", "extract_experts.decoding.worker"}
    assert set(listed) == startable - {"__main__", *workers}
    for name, line in listed.items():
        module = importlib.import_module(f"misc.{name}")
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"misc.{name}.__main__")
        assert line == module.__doc__.split("\n")[0] and line.endswith(".")


def test_the_list_is_made_without_loading_the_tools() -> None:
    program = "import sys, misc.__main__ as m; m.main([]); print([*sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = ast.literal_eval(result.stdout.splitlines()[-1])
    assert not {"torch", "numpy", "misc.describe"} & {*loaded}


def test_a_slip_on_the_command_line_does_not_wait_for_torch() -> None:
    """All tools but the two whose flags name what a GPU can do."""
    packages = [name for name in TOOLS if (ROOT / "misc" / name.replace(".", "/")).is_dir()]
    names = [f"{name}.__main__" if name in packages else name for name in TOOLS]
    program = """
import contextlib, importlib, io, sys
for name in sys.argv[1:]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        importlib.import_module(f"misc.{name}").main(["--relase"])
    assert "torch" not in sys.modules, name
"""
    names = [name for name in names if not name.startswith("benchmarks.gpu")]
    subprocess.run([sys.executable, "-c", program, *names], cwd=ROOT, check=True)


def test_the_guide_says_of_every_tool_what_its_docstring_says() -> None:
    guide = (ROOT / "misc" / "README.md").read_text(encoding="utf-8").splitlines()
    lines = [f"| `{tool.name}` | {tool.summary.removesuffix('.')} |" for tool in find_tools()]
    assert [line for line in lines if line not in guide] == []


@pytest.mark.parametrize("name", TOOLS)
def test_help_says_what_the_docstring_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"misc.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"misc.{name}.__main__")
    main = module.main
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert shown.split("[-h]")[0].split() == ["usage:", "python3", "-m", f"misc.{name}"]
    assert " ".join(module.__doc__.split("\n")[0].split()) in " ".join(shown.split())
    examples = [line for line in shown.splitlines() if line.startswith("  python3 -m misc.")]
    assert examples and all(line.split()[2] == f"misc.{name}" for line in examples)
    assert f"example:\n{examples[0]}" in shown


@pytest.mark.parametrize("file", FILES)
def test_published_paths_work_from_anywhere(tmp_path: Path, file: str) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / file, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    name = file.removeprefix("misc/").removesuffix(".py")
    assert result.stdout.startswith(f"usage: python3 -m misc.{name} ")


def test_no_other_file_changes_the_path_of_imports() -> None:
    changing = [
        path.relative_to(ROOT).as_posix()
        for room in ("data_loader", "logger", "misc", "model", "trainer", "utils")
        for path in (ROOT / room).rglob("*.py")
        if "sys.path" in path.read_text()
    ]
    assert sorted(changing) == FILES


@pytest.mark.parametrize(
    "command",
    [["-m", f"misc.{tool}"] for tool in TOOLS] + [[file] for file in FILES],
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
    "import_data_set.__main__ --output new --features a=own/fixed.npz --captions {}",
    "import_data_set.__main__ --output new --captions own/captions.json --features a={}",
    "import_data_set.__main__ --output new --captions own/captions.json --features "
    "a=own/fixed.npz --split-files train={}",
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
        "import_data_set.__main__ --captions own/captions.json --features a=own/fixed.npz "
        "--output {}",
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
    command = f"{sys.executable} -m misc {redirection}"
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
