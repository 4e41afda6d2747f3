"""The benchmarks run and find what they measure; what they measure is no matter of tests."""

import json
from pathlib import Path

import pytest

from data_loader.packed import finish_writing
from misc.benchmarks import feature_store


def test_the_benchmark_of_the_feature_store_loads_what_it_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feature_store.make_files(tmp_path, scale=0.001)
    for step in ("parse", "cold", "warm"):
        feature_store.measure(step, tmp_path)
        assert len(json.loads(capsys.readouterr().out)) == 4
    finish_writing()
    packed = {path.name.rsplit("-", 1)[0] for path in (tmp_path / ".cache").iterdir()}
    assert packed == {f"expert-{name}" for name in feature_store.EXPERTS} | {
        "text-text",
        "captions",
    }
