"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest

# Threads do nothing for tensors as small as those of the tests, and much harm on a busy machine.
# Set before torch is imported; the programs that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
