"""The commands of all guides: programs, flags and files that they name exist."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("*/*/README.md")),
]
# Programs and modules of others.
OTHERS = ("pip", "export", "for", "done", "tensorboard", "ruff", "mypy", "apt-get")
OTHER_MODULES = ("pytest", "http.server")


def commands(text: str) -> Iterator[str]:
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in "" if language else block.replace("\\\n", " ").splitlines():
            yield from (part.strip() for part in line.split("&&"))
    yield from re.findall(r"`((?:python3 |torchrun )[^`<]+)`", text)


CASES = sorted(
    {(p.relative_to(ROOT).as_posix(), c) for p in GUIDES for c in commands(p.read_text())}
)


def program_of(words: list[str]) -> tuple[str, list[str]]:
    """Return the module of a command, and what follows it."""
    start = next(i for i, word in enumerate(words) if word.endswith(".py") or word == "-m")
    if words[start] == "-m":
        name = words[start + 1]
        package = (ROOT / name.replace(".", "/") / "__main__.py").is_file()
        return f"{name}.__main__" if package else name, words[start + 2 :]
    assert (ROOT / words[start]).is_file(), words[start]
    return words[start].removesuffix(".py").replace("/", "."), words[start + 1 :]


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(("guide", "command"), CASES)
def test_the_command_of_a_guide_exists(
    guide: str, command: str, helps: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command, comments=True)
    if not words or command.startswith(OTHERS):
        return
    module, arguments = program_of(words)
    if module in OTHER_MODULES:
        return
    if module.startswith("tests."):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        return
    if module not in helps:
        with pytest.raises((SystemExit, UserError)):
            importlib.import_module(module).main(["--help"])
        helps[module] = capsys.readouterr().out
    for word in arguments:
        if word.startswith("--") and word != "--":
            assert re.search(rf"{re.escape(word.partition('=')[0])}\b", helps[module]), word
        if word.startswith("configs/") and not re.search(r"[*<${]|/own/", word):
            assert (ROOT / word).exists(), word
