"""The plain training step that ours is measured against learns the same."""

import pytest
import torch

from misc.benchmarks import gpu, gpu_check
from misc.benchmarks.training_step import CE, TEACHTEXT, parts, plain_step
from utils.errors import UserError


@pytest.mark.parametrize("path", [CE, TEACHTEXT])
def test_the_plain_step_learns_the_same(path: str) -> None:
    step, batch = parts(path, 0.02, "float32")
    twin, _ = parts(path, 0.02, "float32", foreach=False)
    plain = plain_step(twin, batch)
    for _ in range(3):
        torch.testing.assert_close(step(batch, 1)[0], plain(), atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(step.net.parameters(), twin.net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_training_is_measured_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--epochs", "2", "--scale", "0.003"])
    lines = capsys.readouterr().out.splitlines()
    [row] = [line for line in lines if line.startswith("| CPU")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["CPU", "float32", "no", "2"] and float(cells[5]) > 0


def test_a_device_is_checked_against_the_host(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("STEPS", 1), ("BATCH", 3), ("SIZE", 8), ("GATINGS", {})):
        monkeypatch.setattr(gpu_check, name, value)
    arguments = ["--device", "cpu", "--precision", "float32", "--no_compile"]
    gpu_check.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9 and all(line.startswith("ok ") for line in lines[:-1])
    monkeypatch.setattr(gpu_check, "NEAR", {"float32": -1.0})
    with pytest.raises(UserError, match="6 of 8 checks failed: MoEE, RAdam"):
        gpu_check.main(arguments)
