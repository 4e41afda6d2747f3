"""A server that misbehaves, and clients that are killed: a few rounds of `tests.fuzz_fetching`."""

from pathlib import Path

import pytest

from tests import fuzz_fetching
from tests.fetch_server import serving
from tests.fuzz_fetching import Round, features


def test_a_few_rounds(capfd: pytest.CaptureFixture[str]) -> None:
    code = fuzz_fetching.main(["--count", "12", "--seed", "1"])
    said = capfd.readouterr().out
    assert code == 0, said
    assert said.startswith("whole: ") and said.endswith("BAD: 0\n")


def test_the_campaign_sees_what_must_not_be(tmp_path: Path) -> None:
    one = Round(0, 0, tmp_path / "data")
    place = one.data / "MSVD" / "raw-captions.pkl"
    place.parent.mkdir(parents=True)
    place.write_bytes(features(1)["MSVD/raw-captions.pkl"][:-1])
    one._check_files(complete=False)
    assert one.faults.pop().startswith("half or foreign: MSVD/raw-captions.pkl")
    place.write_bytes(features(1)["MSVD/raw-captions.pkl"])
    one._check_files(complete=False)
    assert not one.faults
    one._check_files(complete=True)
    assert one.faults.pop().startswith("not whole")
    (one.data / "MSVD" / ".x.1-01234567.tmp").write_bytes(b"")
    one._check_leftovers()
    assert ".x.1-01234567.tmp" in one.faults.pop()
    for code, said in ((1, "error: a\n"), (2, ""), (2, "error: a\nerror: b\n"), (0, "Traceback")):
        one._check_end(code, said)
        assert one.faults.pop()
    with serving() as server:
        assert Round(0, 0, tmp_path / "other").run(server) != "BAD"
