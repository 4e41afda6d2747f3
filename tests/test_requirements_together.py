"""All requirements files in one environment: nothing that one brings breaks what another needs."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from misc.extract_experts.expert import Settings
from misc.extract_experts.experts.packages import HUB, package
from misc.extract_experts.experts.table import WHEEL_ROWS
from misc.text_embeddings.captions import Captions
from misc.text_embeddings.encoders import make_job
from misc.text_embeddings.encoding import encode_chunk
from misc.text_embeddings.job import Settings as TextSettings
from tests.conftest import ROOT
from tests.tiny_encoders import SENTENCES, make_encoder

_PIN = re.compile(r"^([\w.-]+)==([\w.]+)", re.MULTILINE)


@pytest.fixture
def everything() -> dict[str, str]:
    """Every distribution that is pinned, with its version; all are installed."""
    pins: dict[str, str] = {}
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        for name, version in _PIN.findall(path.read_text("utf-8")):
            assert pins.setdefault(name, version) == version, f"{name} is pinned twice"
    for name in pins:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
    return pins


def test_every_requirement_is_there_as_it_is_pinned(everything: dict[str, str]) -> None:
    installed = {name: metadata.version(name).partition("+")[0] for name in everything}
    assert installed == everything
    names = {distribution.name.lower() for distribution in metadata.distributions()}
    assert "torchaudio" not in names, "it breaks transformers where it does not fit its torch"
    assert len({name for name in names if name.startswith("opencv-")}) == 1


@pytest.mark.parametrize("family", ["bert", "clip"])
def test_text_encoders_run_beside_all_experts(
    tmp_path: Path, everything: dict[str, str], family: str
) -> None:
    for row in WHEEL_ROWS:
        row.load(Settings())
    for name in ("timm", "open_clip", "torchvision"):
        package(name, name, HUB)
    model = make_encoder(tmp_path / family, family)
    captions = Captions(tmp_path, ["v"], [len(SENTENCES)], SENTENCES)
    job = make_job(TextSettings(str(model)), captions)
    values = encode_chunk(job, 0, len(SENTENCES), "cpu", 8192, lambda tokens: None)
    assert values.shape == (int(job.rows.sum()), job.size) and values.std() > 0
