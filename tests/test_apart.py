"""What reads files of strangers runs in a process of its own, and brings down nothing else."""

import errno
import itertools
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from data_loader.formats import apart as wall
from data_loader.formats.apart import Refused, apart
from data_loader.formats.read import read_plain_mapping
from data_loader.store.packed import Part, Recipe, load_or_make
from logger.progress import PackingBar
from tests.conftest import ROOT
from utils.errors import UserError


def test_plain_data_and_arrays_come_back() -> None:
    value = {
        "a": [1, 2.5, None, True, "größer", b"x"],
        "rows": list(np.arange(12, dtype="f2").reshape(4, 3)),
        "turned": np.arange(6).reshape(2, 3).T,
        "cut": np.arange(9.0)[::2],
        "none": np.empty((0, 3), "f4"),
    }
    here = os.getpid()
    found, process = apart([], lambda: (value, os.getpid()))
    assert process != here
    assert found["a"] == value["a"]
    for name in ("turned", "cut", "none"):
        np.testing.assert_array_equal(found[name], value[name])
        assert found[name].dtype == value[name].dtype
    np.testing.assert_array_equal(found["rows"], value["rows"])


def test_only_plain_data_come_back() -> None:
    with pytest.raises(RuntimeError, match=r"answered with pathlib\.PosixPath"):
        apart([], lambda: Path("x"))
    with pytest.raises(RuntimeError, match=r"(?s)failed.*pickle"):
        apart([], lambda: threading.Lock())


def test_a_refusal_is_the_same_sentence(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> NoReturn:
        logging.getLogger("some.reader").warning("%d of %s", 3, "them")
        logging.getLogger("some.reader").debug("not asked for")
        raise UserError("Cannot read x: it is y.")

    with caplog.at_level("INFO"), pytest.raises(Refused, match=r"^Cannot read x: it is y\.$"):
        apart([], refuse)
    assert caplog.record_tuples == [("some.reader", logging.WARNING, "3 of them")]


def test_errors_of_writing_and_of_the_program_are_told_apart() -> None:
    def full() -> NoReturn:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full") as found:
        apart([], full)
    assert found.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match=r"(?s)ZeroDivisionError"):
        apart([], lambda: 1 // 0)


def ends() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: np.ones(600 << 20, np.uint8).sum(), "far more memory"),
        (lambda: [b"x" * n for n in itertools.count(1 << 20)], "far more memory"),
        (ends, "crashed"),
        (lambda: all(True for _ in itertools.count()), "more than 1 seconds"),
    ],
    ids=["an array", "objects", "a crash", "for ever"],
)
def test_memory_time_and_crashes_end_the_child_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any], message: str
) -> None:
    monkeypatch.setattr(wall, "_FREE_SECONDS", 1)
    path = tmp_path / "e.pkl"
    path.write_bytes(b"x" * 100)
    with pytest.raises(Refused, match=rf"^Cannot read {path}: .*{message}.*\.$"):
        apart([path], function)


@pytest.mark.parametrize("code", [0, 7])
def test_a_child_that_ends_without_an_answer(tmp_path: Path, code: int) -> None:
    with pytest.raises(Refused, match=r"e\.pkl.*without an answer"):
        apart([tmp_path / "e.pkl"], lambda: os._exit(code))


def test_a_process_that_ignores_how_its_children_end() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert apart([], lambda: 5) == 5
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_many_small_items_are_no_attack(tmp_path: Path) -> None:
    captions = {f"v{n}": [[f"{word:x}" for word in range(12)]] for n in range(300_000)}
    path = tmp_path / "captions.pkl"
    path.write_bytes(pickle.dumps(captions, protocol=4))
    assert read_plain_mapping(path, "captions") == captions


def test_memory_grows_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "e.pkl"
    with path.open("wb") as handle:
        handle.truncate(200 << 20)
    assert apart([path], lambda: int(np.ones(600 << 20, np.uint8)[0])) == 1


def test_a_system_without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(kind: int, limits: object) -> NoReturn:
        raise ValueError("not supported")

    monkeypatch.setattr(resource, "setrlimit", none)
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert apart([], lambda: 5) == 5


def test_within_the_child_nothing_is_forked_again() -> None:
    assert apart([], lambda: apart([], os.getpid) == os.getpid())


def test_an_interrupt_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the wait: Ctrl-C, or a handler of SIGTERM that raises."""
    receiver, sender = os.pipe()

    def wait_for_ever() -> None:
        os.write(sender, str(os.getpid()).encode())
        os.close(sender)
        threading.Event().wait()

    wait, first = os.waitpid, []

    def interrupted(child: int, options: int) -> tuple[int, int]:
        if not first:
            first.append(int(os.read(receiver, 20)))
            raise KeyboardInterrupt
        return wait(child, options)

    monkeypatch.setattr(os, "waitpid", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apart([], wait_for_ever)
    os.close(receiver)
    os.close(sender)
    with pytest.raises(ProcessLookupError):
        os.kill(first[0], 0)


KILLED = """
import os, sys, threading
from pathlib import Path
import numpy as np
from data_loader.formats.read import read_plain_mapping
from data_loader.store.packed import Part, Recipe, load_or_make

def pieces():
    yield np.ones(1 << 20)
    sys.stdout.write(f"{os.getpid()}\\n")
    sys.stdout.flush()
    threading.Event().wait()

def make():
    return {"values": Part(np.dtype("f8"), (2 << 20,), pieces)}, {}

load_or_make(Recipe("e", (), {}, make), [Path(sys.argv[1])])
"""


@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_leaves_no_child_and_no_file(tmp_path: Path, name: int) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cache")]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert int(parent.stdout.readline()) != parent.pid
        assert len(list((tmp_path / "cache").iterdir())) == 2
        parent.send_signal(name)
        # The child holds the other end, too: the pipe ends with the last of them.
        assert parent.stdout.read() == ""
    assert not list((tmp_path / "cache").iterdir())


def test_what_cannot_be_written_is_held(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    values = np.arange(6.0).reshape(2, 3)
    recipe = Recipe("e", (), {}, lambda: ({"values": Part.of(values)}, {"ids": ["a", "b"]}))
    found = load_or_make(recipe, [tmp_path / "file"])
    np.testing.assert_array_equal(found.arrays["values"], values)
    assert found.facts == {"ids": ["a", "b"]}


def test_what_is_packed_can_be_watched(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = tmp_path / "e.npy"
    path.write_bytes(b"x")

    def slow() -> int:
        for done in (1, 2, 3):
            wall.tell(done, 3)
        return 5

    with wall.watched(lambda *told: seen.append(told)):
        assert apart([path], slow) == 5
    assert seen[-1] == (str(path), 3, 3)
    seen.clear()
    wall.tell(1, 3)  # nobody watches, and this is no child
    assert apart([path], slow) == 5 and not seen


def test_a_bar_for_what_is_packed(capsys: pytest.CaptureFixture[str]) -> None:
    bar = PackingBar()
    for done, total in ((0, 0), (0, 10), (4, 10), (10, 10), (3, 5)):
        bar("a/b/clip.h5", done, total)
    assert bar._bar is not None
    bar("clip.h5", 5, 5)
    assert bar._bar is None
