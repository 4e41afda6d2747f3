"""A handful of kills at random moments; the campaign itself notices what it is to notice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.kill_campaign import Campaign, Difference, Kill
from tests.kill_programs import Program, nothing

QUICK = ["train, best only", "train, two seeds", "teachers", "denoise", "pack", "text", "sync"]


@pytest.mark.slow
def test_killed_programs_end_as_unbroken_ones() -> None:
    command = [sys.executable, "-m", "tests.kill_campaign", "--kills", "12", "--program", *QUICK]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "All ended as the unbroken runs did." in result.stdout


def killed_once() -> None:
    """Die at the first start in this place."""
    if not Path("../died").exists():
        Path("../died").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def leaves_a_file(_: object) -> None:
    temporary = Path(f".made.{os.getpid()}-00000000.tmp")
    temporary.write_text("all")
    killed_once()
    temporary.rename("made")


def takes_half_for_all(_: object) -> None:
    if not Path("made").exists():
        Path("made").write_text("half")
        killed_once()
        Path("made").write_text("all")


def begins_anew(_: object) -> None:
    runs = len(list(Path().glob("2020-*")))
    run = Path(f"2020-01-01_00-00-0{runs}")
    run.mkdir()
    killed_once()
    (run / "made").write_text("all")


def fails_after_a_kill(_: object) -> None:
    if Path("../died").exists():
        raise ValueError
    killed_once()


def does_well(_: object) -> None:
    killed_once()
    Path("made").write_text("all")


@pytest.mark.parametrize(
    ("main", "complaint"),
    [
        (leaves_a_file, "is left"),
        (takes_half_for_all, "'made': 'differs'"),
        (begins_anew, "run 1/made': 'is left'"),
        (fails_after_a_kill, "ended with 1"),
        (does_well, ""),
    ],
)
def test_the_campaign_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: object, complaint: str
) -> None:
    # The program dies by itself, long before it would be killed.
    kill = Kill(after=60, number=signal.SIGKILL, everybody=True)
    monkeypatch.setattr(Campaign, "_draw", lambda *_: kill)
    program = Program("one", main, (), nothing)
    campaign = Campaign(program, tmp_path, np.random.default_rng(0))
    (tmp_path / "died").touch()
    if main is fails_after_a_kill:
        (tmp_path / "died").unlink()
        unbroken = {}
    else:
        unbroken = campaign.unbroken()[0]
        (tmp_path / "died").unlink()
    place = tmp_path / "one, round"
    place.mkdir()
    if complaint:
        with pytest.raises(Difference, match=complaint):
            campaign.round(place, 1, 1.0, unbroken)
    else:
        campaign.round(place, 1, 1.0, unbroken)
        assert not place.exists()
