"""The commands of the guides: where they stand, which need what a machine may lack, what they do.

A comment at the end of a command says `needs a GPU`; one on a line of its own says it for the
commands below it, down to the next empty line.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

GUIDES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("*/*/README.md")),
]
# What a command may need so that no test runs it.
NEEDS = ("a GPU", "GPUs", "a download", "hours")
# Fences that hold no commands; other tests read them.
OTHER_LANGUAGES = ("json", "python")

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s)#(.*)$")
_NEEDS = re.compile(r"\bneeds ([^:;()]+)")
# Bash reads the commands as it does for a reader, but does not run them: it says what it read.
_READ_ALOUD = """
for program in python3 torchrun pip; do
    eval "$program() { printf '%d\\0' \\$((\\$# + 1)); printf '%s\\0' $program \\"\\$@\\"; }"
done
set -euo pipefail
PATH=
"""


def guide_name(guide: Path) -> str:
    return guide.relative_to(ROOT).as_posix()


def fences(text: str) -> list[str]:
    """The blocks of commands of a guide."""
    found = _FENCE.findall(text)
    strange = {language for language, _ in found} - {"", *OTHER_LANGUAGES}
    assert not strange, f"a fence of commands has no language: {strange}"
    return [block for language, block in found if not language]


def inline_commands(text: str) -> list[str]:
    """The commands within a guide's sentences."""
    found = re.findall(r"`((?:python3 |torchrun )[^`<]+)`", _FENCE.sub("", text))
    return [" ".join(command.split()) for command in found]


def needs(comment: str) -> list[str]:
    """What a comment says that a command needs: `needs a GPU and a download: MSVD's features`."""
    found = _NEEDS.search(comment)
    return re.split(r", (?:and )?| and ", found[1].strip()) if found else []


def lines_of(block: str) -> Iterator[tuple[str, str, list[str]]]:
    """Walk the commands of a fence: as they stand, their comment, and what they need."""
    for paragraph in block.replace("\\\n", " ").split("\n\n"):
        above: list[str] = []
        for line in paragraph.splitlines():
            found = _COMMENT.search(line)
            comment = found[1].strip() if found else ""
            command = line[: found.start()].rstrip() if found else line.rstrip()
            if command.strip():
                yield command, comment, needs(comment) or above
            else:
                above = needs(comment) or above


def runnable(block: str) -> str:
    """The commands of a fence that need nothing, as a script."""
    return "\n".join(command for command, _, lacking in lines_of(block) if not lacking)


def promised(block: str) -> list[str]:
    """Paths that comments promise of these: `# -> data/index/demo`; "*" for variables."""
    comments = [comment for _, comment, lacking in lines_of(block) if not lacking]
    found = [re.match(r"-> (\S+)", comment) for comment in comments]
    return [re.sub(r"\$\w+", "*", match[1]) for match in found if match]


def read_by_bash(script: str, folder: Path) -> list[list[str]]:
    """The programs that a script starts in a folder, each with its arguments.

    Loops, patterns, quotes and variables are bash's own; no program is started. What is neither
    python3, torchrun nor pip is an error.
    """
    bash = shutil.which("bash")
    assert bash
    said = subprocess.run(
        [bash, "-s"], input=_READ_ALOUD + script, cwd=folder, capture_output=True, text=True
    )
    assert said.returncode == 0, f"{said.stderr}\n{script}"
    words = iter(said.stdout.split("\0")[:-1])
    return [[next(words) for _ in range(int(count))] for count in words]
