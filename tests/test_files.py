"""Files are whole or not there, what killed processes leave goes, and what is wrong is said."""

import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from utils import files
from utils.errors import UserError
from utils.files import (
    alone,
    is_there,
    make_folder,
    read_json,
    remove_abandoned,
    replacing,
    temporary_name,
    write_json,
)

OURS = ".checkpoint-epoch3.pth.4194999-0a1b2c3d.tmp"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process, which has not looked into any folder."""
    monkeypatch.setattr(files, "_tidied", set())


def grown_old(path: Path) -> Path:
    os.utime(path, (time.time() - 60, time.time() - 60), follow_symlinks=False)
    return path


def left(folder: Path, name: str = OURS) -> Path:
    """What a process left that was killed a minute ago."""
    (folder / name).write_bytes(b"half")
    return grown_old(folder / name)


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path, below = left(tmp_path), tmp_path / "below"
    other = left(make_folder(below))
    write_json(tmp_path / "a.json", 1)
    assert not path.exists()
    assert other.exists()  # nobody writes there
    again = left(tmp_path)
    write_json(tmp_path / "a.json", 2)
    assert again.exists()  # a folder is looked at once
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "below"]


KILLED = """
import os, signal, sys
from utils.files import replacing
with replacing(sys.argv[1], **eval(sys.argv[2])) as handle:
    handle.write(b"half")
    handle.flush()
    print("written", flush=True)
    if sys.stdin.readline():
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_living_writer_keeps_its_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a"), "{}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as writer:
        assert writer.stdout.readline() == "written\n"
        [temporary] = tmp_path.iterdir()
        assert files._TEMPORARY.fullmatch(temporary.name)
        grown_old(temporary)
        remove_abandoned(tmp_path, age=0)
        assert temporary.exists()
        writer.communicate("now\n")
    assert writer.returncode == -signal.SIGKILL
    remove_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_still_young_stays(tmp_path: Path) -> None:
    (tmp_path / OURS).write_bytes(b"")
    remove_abandoned(tmp_path)
    assert (tmp_path / OURS).exists()


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint.pth.12-0a1b2c3d.tmp",
        ".checkpoint.pth.12-0A1B2C3D.tmp",
        ".checkpoint.pth.12-0a1b2c3.tmp",
        ".checkpoint.pth.x-0a1b2c3d.tmp",
        ".checkpoint.pth.12-0a1b2c3d.tmp.bak",
        ".checkpoint.pth.tmp",
        ".12-0a1b2c3d.tmp",
        "notes.tmp",
    ],
)
def test_only_names_of_ours_are_removed(tmp_path: Path, name: str) -> None:
    path = left(tmp_path, name)
    (tmp_path / OURS).mkdir()
    remove_abandoned(tmp_path)
    assert path.exists()
    assert (tmp_path / OURS).is_dir()


def test_a_link_that_was_left_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"whole")
    grown_old(target)
    link = tmp_path / OURS
    link.symlink_to(target)
    grown_old(link)
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_without_locks_files_are_written_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    path = left(tmp_path)
    write_json(tmp_path / "a.json", 1)
    assert read_json(tmp_path / "a.json") == 1
    assert path.exists()
    with pytest.raises(UserError, match="Cannot lock"), alone(tmp_path, "at work"):
        pass
    with alone(tmp_path, "at work", required=False):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [OURS, "a.json"]


def test_a_file_that_was_taken_away_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, first = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not first:
            first.extend(tmp_path.glob(".a.*.tmp"))
            first[0].unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with replacing(tmp_path / "a") as handle:
        handle.write(b"whole")
        assert [Path(handle.name)] == list(tmp_path.iterdir()) != first
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert len(first) == 1


def test_the_lock_of_a_folder_leaves_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "file"):
        with alone(path, "at work"):
            [lock] = tmp_path.iterdir()
            grown_old(lock)
            remove_abandoned(tmp_path)
            assert lock.exists()
        assert not list(tmp_path.iterdir())
    # Of a process that was killed while it held the lock.
    left(tmp_path, lock.name)
    with alone(tmp_path / "file", "at work"):
        pass
    assert not list(tmp_path.iterdir())


@given(st.text("aü😀.-", min_size=1, max_size=260))
def test_temporary_names_fit_and_are_known_again(name: str) -> None:
    temporary = temporary_name(Path("/folder") / f"x{name}")
    assert len(os.fsencode(temporary.name)) <= 255
    assert files._TEMPORARY.fullmatch(temporary.name)


ODD_NAMES = {
    "too long": ("a" * 300, "longer than the file system takes"),
    "NUL": ("a\0b", "no file name can have"),
    "half a character": ("a\ud800", "no file name can have"),
    "circle": ("circle/a", "in a circle"),
}


@pytest.mark.parametrize("kind", ODD_NAMES)
def test_paths_that_cannot_be(tmp_path: Path, kind: str) -> None:
    name, why = ODD_NAMES[kind]
    (tmp_path / "circle").symlink_to("circle")
    path = tmp_path / name
    assert not is_there(path)
    for use in (read_json, make_folder, lambda path: write_json(path, 1), replaced):
        with pytest.raises(UserError, match=why):
            use(path)
    remove_abandoned(path)
    with pytest.raises(UserError, match=why), alone(path / "x", "at work"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


def replaced(path: Path) -> None:
    with replacing(path):
        raise AssertionError("refused only after the work")


def test_a_long_name_that_fits_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    write_json(path, 1)
    assert read_json(path) == 1


def test_letters_where_names_are_ascii(tmp_path: Path) -> None:
    program = (
        "import sys; from utils.files import *\n"
        f"for use in (read_json, make_folder, lambda path: write_json(path, 1)):\n"
        f"    try:\n        use({str(tmp_path)!r} + '/gr\\u00fcn')\n"
        "    except UserError as error:\n        print(ascii(str(error)))\n"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **ascii_only},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.count("LC_ALL=C.UTF-8") == 3
    assert not list(tmp_path.iterdir())


BAD_JSON = {
    "deep": (b"[" * 100_000, "nested too deeply"),
    "deep and closed": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "digits": (b'{"a": ' + b"9" * 5000 + b"}", "thousands of digits"),
    "NaN": (b'{"a": NaN}', "holds NaN"),
    "infinity": (b"[-Infinity]", "holds -Infinity"),
    "too large": (b"[1e999]", "the number 1e999"),
    "half a character": (rb'{"\ud800": 1}', "half of a character"),
    "the other half": (rb'["a", {"b": "x\uDFFFy"}]', "half of a character"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "latin-1": ('{"ü": 1}'.encode("latin-1"), "not UTF-8"),
    "empty": (b"", "line 1, column 1"),
    "cut": (b'{"a": [1', "not valid JSON"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_json_that_is_refused(tmp_path: Path, kind: str) -> None:
    data, why = BAD_JSON[kind]
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(UserError, match=why) as caught:
        read_json(tmp_path / "a.json", "config")
    assert str(caught.value).startswith(f"The config {tmp_path / 'a.json'} ")
    assert len(str(caught.value).splitlines()) == 1


def test_what_no_program_could_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="LC_ALL"):
        write_json(tmp_path / "a.json", {"name": "gr\udcc3\udcbcn"})
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "a.json", math.nan)
    assert not list(tmp_path.iterdir())


def values() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    finite = plain.filter(lambda value: not isinstance(value, float) or math.isfinite(value))
    inner = st.deferred(values)
    return finite | st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)


@given(values(), st.booleans(), st.booleans())
def test_json_comes_back_with_and_without_a_byte_order_mark(
    tmp_path_factory: pytest.TempPathFactory, value: Any, mark: bool, escaped: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    text = json.dumps(value, ensure_ascii=escaped)
    path.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    assert read_json(path) == value
