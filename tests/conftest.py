"""Fixtures that several test files share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with inputs and outputs of the published code; tests that need it skip without it."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the folder of golden values is not here")
    return folder
