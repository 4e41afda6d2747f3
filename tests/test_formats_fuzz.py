"""Damaged files of every format end in a clear error or in valid data, in time, with little memory.

This is a small part of the campaign `python3 -m tests.fuzz_formats`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzz_formats
from tests.conftest import ROOT
from tests.fuzz_formats import Format
from utils.errors import UserError


@pytest.mark.slow
def test_damaged_files() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_formats", "--count", "3000", "--seed", "5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == [kind.name for kind in fuzz_formats.all_formats()] + ["all"]
    # Damage that nobody notices would be no damage.
    assert all(int(row[2].replace(",", "")) for row in rows)


def counted(tmp_path: Path, read: object) -> list[str]:
    kind = Format("file", lambda path: path.write_bytes(b"x" * 100), read)
    return [outcome for _, outcome, _ in fuzz_formats.read_damaged(kind, tmp_path, range(3), 0, 1)]


def test_the_campaign_sees_what_must_not_be(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise UserError(f"Cannot read {path}: it is damaged.")

    def unnamed(path: Path) -> None:
        raise UserError("It is damaged.")

    def hang(path: Path) -> None:
        while True:
            pass

    assert counted(tmp_path, Path.read_bytes) == ["accepted"] * 3
    assert counted(tmp_path, refuse) == ["refused"] * 3
    assert counted(tmp_path, unnamed) == ["TRACEBACK"] * 3
    assert counted(tmp_path, lambda path: 1 // 0) == ["TRACEBACK"] * 3
    assert counted(tmp_path, lambda path: bytearray(1 << 30)) == ["MEMORY"] * 3
    assert counted(tmp_path, hang) == ["HANG"] * 3
