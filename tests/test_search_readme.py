"""The Python example of the search's guide runs as it stands, on an index of the tests."""

import re
import runpy
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.search_index import make_index


def test_the_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_index(tmp_path)
    guide = (ROOT / "misc" / "search" / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    for there, here in {
        "data/index/demo-train-full-ce": str(tmp_path / "index"),
        "data/saved/models/demo-train-full-ce": str(tmp_path / "trained_model.pth"),
        "a red balloon rises": "a red boat runs",
        "snow": "cat",
        "a blue car": "blue car",
        "speech": "sound",
    }.items():
        assert there in code
        code = code.replace(there, here)
    (tmp_path / "example.py").write_text(code)
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert names["matrix"].shape == (2, 12) and len(names["alike"]) == 3
