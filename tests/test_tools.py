"""What all command-line tools have in common: how they end where something is wrong."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

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
