"""Fixtures that several test files share."""

import gc
import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Threads do nothing for tensors as small as those of the tests, and much harm on a busy machine.
# Set before torch is imported; the programs that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from tests.run_files import Run
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.memory import keeping_freed_memory
from utils.command_line import run_main

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BROWSER_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for the whole suite, which take less than 3 GB with all that they start.

    A few files are done before a second process has loaded what they import.
    """
    return 2 if config.args_source == config.ArgsSource.TESTPATHS else 0


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator:
    """Between processes goes text alone, and tests log names of files that are none."""
    return _as_text((yield))


def _as_text(value: object) -> object:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_as_text(key): _as_text(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(map(_as_text, value))
    return value


def declare_missing_operators() -> None:
    """Let torchvision be imported beside a torch for which its compiled half was not made.

    What uses that half (boxes of detectors) stays out of reach; networks and transforms need none
    of it. Where torchvision fits its torch, nothing is declared.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    try:
        for half in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(half)
    except OSError:
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(name + signature)
        _declared.append(library)


_declared: list[torch.library.Library] = []  # what is declared lasts as long as its library
declare_missing_operators()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What has been loaded by now stays: there is no garbage to be looked for."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def memory_goes_back() -> Iterator[None]:
    """The tests of a file give back what they freed: forks cost the more, the more there is."""
    yield
    with keeping_freed_memory():  # which gives it back at its end
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def interrupts_as_on_a_terminal() -> None:
    """Job runners and nohup ignore signals, which the programs under test would inherit."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with inputs and outputs of the published code; tests that need it skip without it."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the folder of golden values is not here")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium; tests that need one skip where none is installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(_BROWSERS)})")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_BROWSER_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser) -> Iterator:
    """A page whose complaints (console, exceptions, dialogs, policy) fail the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.complaints = []
    page.on("console", lambda m: page.complaints.append(m.text) if m.type != "log" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))

    def on_dialog(dialog):
        page.complaints.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", on_dialog)
    page.add_init_script(
        "window.violations = [];"
        "addEventListener('securitypolicyviolation', (e) => violations.push(e.blockedURI))"
    )
    yield page
    assert page.complaints == []
    context.close()


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small data set."""
    return make_tiny_set(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def config_path(tmp_path: Path, tiny_set: Path) -> Path:
    """A config that trains on it, into `saved` in the test's folder."""
    folder = tmp_path / "configs" / "tiny"
    folder.mkdir(parents=True)
    return write_json(folder / "train-ce.json", tiny_config(tiny_set, tmp_path / "saved"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run an entry point as the shell does; returns its exit code and what it wrote."""

    def call(program, *arguments: object) -> tuple[int, str]:
        capsys.readouterr()  # what came before is not of this run
        code = run_main(program.main, [str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call
