"""What evaluation leaves out of videos that lack experts does not show in any number."""

import pytest
import torch
from torch import nn

from model.fast import once_for_missing, skips_missing
from tests.test_model import make_batch, make_net


class CountingLayer(nn.Module):
    """Doubles rows, and notes how many it was given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows = len(x)
        return 2 * x.flatten(1)


@pytest.mark.parametrize("present", ["11111", "01111", "10101", "00001", "00000"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_missing_rows_are_computed_once(present: str, shape: tuple[int, ...]) -> None:
    present_B = torch.tensor([float(p) for p in present])
    x = torch.randn(5, *shape, 2) * present_B.view(-1, *[1] * (len(shape) + 1)) + 1
    layer = CountingLayer()
    assert torch.equal(once_for_missing(layer, x, present_B), 2 * x.flatten(1))
    assert layer.rows == present.count("1") + min(1, present.count("0"))


def test_training_and_other_devices_leave_nothing_out() -> None:
    assert skips_missing(False, torch.device("cpu"))
    assert not skips_missing(True, torch.device("cpu"))
    assert not skips_missing(False, torch.device("meta"))


@pytest.mark.parametrize("use_ce", ["pairwise", "triplet", ""])
@pytest.mark.parametrize("missing", [["ocr"], ["audio", "ocr", "scene"], []])
def test_evaluation_is_the_same_when_nothing_is_left_out(
    use_ce: str, missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net(5, use_ce=use_ce)
    net.train()(**make_batch(1))
    net.eval()
    batch = make_batch(2)
    for name in missing:
        batch["ind"][name][:] = 0
    with torch.inference_mode():
        found = net(**batch)
        for room in ("ce_net", "expert_module", "collaborative_gating"):
            monkeypatch.setattr(f"model.{room}.skips_missing", lambda *_: False)
        expected = net(**batch)
    torch.testing.assert_close(found["vid_embds"], expected["vid_embds"])
    torch.testing.assert_close(found["cross_view_conf_matrix"], expected["cross_view_conf_matrix"])
