"""Fixtures that several test files share."""

import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def interrupts_as_on_a_terminal() -> None:
    """Job runners start programs with SIGINT ignored, which the programs under test inherit."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with inputs and outputs of the published code; tests that need it skip without it."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the folder of golden values is not here")
    return folder
