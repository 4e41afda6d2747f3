"""Damaged files of every format end in a clear error or in valid data, with little memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.every_format import WRITERS
from tests.fuzz_formats import HDF5


@pytest.mark.parametrize(
    ("names", "count"),
    [(sorted(set(WRITERS) - set(HDF5)), 500), (HDF5, 80)],
    ids=["plain", "hdf5"],
)
def test_damaged_files(tmp_path: Path, names: list[str], count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_formats", str(tmp_path), str(count), *names],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert all(name in done.stdout for name in names)
