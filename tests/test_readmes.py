"""The commands of all guides: what they name exists, and they run as they stand.

The commands of a guide run in a small world, in the order of the guides: what one leaves there, the
next ones find. What no test can run says what it needs.
"""

import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

import misc.results.studies
import misc.tools
from misc.page_server import PageServer
from tests.conftest import ROOT
from tests.readme_commands import (
    GUIDES,
    NEEDS,
    fences,
    guide_name,
    inline_commands,
    lines_of,
    needs,
    promised,
    read_by_bash,
    runnable,
)
from tests.readme_world import make_world
from tests.run_files import Run
from utils.errors import UserError

# Programs and modules of others.
OTHERS = ("pip", "export", "for", "done", "tensorboard", "ruff", "mypy", "apt-get")
OTHER_MODULES = ("pytest", "http.server")
MODELS = Path("data/saved/models")


def commands(text: str) -> Iterator[str]:
    for block in fences(text):
        for command, _, _ in lines_of(block):
            yield from (part.strip() for part in command.split("&&"))
    yield from inline_commands(text)


CASES = sorted({(guide_name(p), c) for p in GUIDES for c in commands(p.read_text())})


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
    words = shlex.split(command)
    if command.startswith(OTHERS):
        return
    module, arguments = program_of(words)
    if module in OTHER_MODULES:
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


def test_what_a_command_needs_is_one_of_a_few_things() -> None:
    for guide in GUIDES:
        for block in fences(guide.read_text()):
            for command, _, lacking in lines_of(block):
                assert set(lacking) <= set(NEEDS), f"{guide_name(guide)}: {command}: {lacking}"


def test_needs_are_read_from_comments() -> None:
    assert needs("needs a GPU and a download: MSVD's features") == ["a GPU", "a download"]
    assert needs("features of one set") == []
    block = 'a "b" # -> x/$c\n# needs hours: all\nb \\\n  c\nd  # needs a GPU\n\ne # what\n'
    assert list(lines_of(block)) == [
        ('a "b"', "-> x/$c", []),
        ("b    c", "", ["hours"]),
        ("d", "needs a GPU", ["a GPU"]),
        ("e", "what", []),
    ]
    assert runnable(block).splitlines() == ['a "b"', "e"]
    assert promised(block) == ["x/*"]


def test_bash_reads_a_script_and_starts_nothing(tmp_path: Path) -> None:
    for name in ("a-1.json", "a-2.json"):
        (tmp_path / name).write_text("{}")
    script = "for c in x y; do\n  python3 $c.py a-*.json 'two words' '' && pip b\ndone"
    x, pip, y, _ = read_by_bash(script, tmp_path)
    assert x == ["python3", "x.py", "a-1.json", "a-2.json", "two words", ""]
    assert pip == ["pip", "b"] and y[1] == "y.py"
    with pytest.raises(AssertionError, match="rm: "):
        read_by_bash("rm x", tmp_path)


class World:
    """Runs commands in the small world's folder, in this process."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def fence(self, block: str) -> None:
        """Run a fence's commands as they stand, those that need what a machine may lack aside."""
        shutil.rmtree("data/mine", ignore_errors=True)  # two ways to make one, a fence for each
        for words in read_by_bash(self.filled_in(runnable(block)), Path.cwd()):
            self.command(words)
        for path in promised(block):
            assert list(Path().glob(path)), f"no {path} was made"

    def command(self, words: list[str]) -> None:
        if words[0] == "pip":
            assert all((ROOT / file).is_file() for file in words[3::2])
            return
        module, arguments = program_of(words)
        if module == "pytest":  # which runs just now
            return
        try:
            code, said = self.run(importlib.import_module(module), *arguments)
        except SystemExit as end:  # of --version
            code, said = end.code, ""
        assert code == 0, f"{shlex.join(words)}\n{said}"

    def filled_in(self, script: str) -> str:
        """Replace what stands for something of the reader's own by that of this world."""
        runs = sorted(path.parent for path in MODELS.glob("demo-train-full-ce/*/config.json"))
        if runs and not Path("trained_model.pth").exists():
            shutil.copy(runs[0] / "trained_model.pth", "trained_model.pth")
        for name, value in {
            "<experiment>/<timestamp>": str(runs[0].relative_to(MODELS)) if runs else "",
            "<config>": "configs/demo/train-full-ce.json",
            "ENCODER": "vectors.txt",
        }.items():
            script = script.replace(name, value)
        assert not (unknown := re.findall(r"<\w+>", script)), unknown
        return script


def is_whole(command: str) -> bool:
    """Tell a command within a sentence from the name of a tool, or of what its arguments stand for.

    Benchmarks measure for minutes: their own tests run them small.
    """
    module, arguments = program_of(command.split())
    is_named = not arguments or any(word.isupper() for word in arguments)
    return not is_named and not module.startswith("misc.benchmarks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, where a study trains in this process, and a server ends once it has answered."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def train(command: list[str]) -> int:
        return run(importlib.import_module("train"), *command[2:])[0]

    monkeypatch.setattr(misc.results.studies, "run_command", train)
    running = PageServer.serve_forever

    def answer_once(server: PageServer) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(PageServer, "serve_forever", running)
            with server.running() as address, urlopen(address) as response:
                assert b"</html>" in response.read()

    monkeypatch.setattr(PageServer, "serve_forever", answer_once)
    monkeypatch.setattr(misc.tools, "DEFAULT_PORT", 0)
    return World(run)


@pytest.mark.slow
def test_the_commands_of_all_guides_run(world: World) -> None:
    """Those that need nothing, in their order; guides after the first use what that one made."""
    for guide in GUIDES:
        for block in fences(guide.read_text()):
            world.fence(block)
        for command in filter(is_whole, inline_commands(guide.read_text())):
            world.command(shlex.split(command))
