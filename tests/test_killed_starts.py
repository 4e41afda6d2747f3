"""A kill at the worst moments of a run's start and end, and signals that strike in a finaliser."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import train as train_program
from tests.own_data import OwnData
from tests.run_files import Run, only_run
from trainer import testing
from trainer.runs import folder, marks
from utils import files
from utils.command_line import run_main
from utils.config import Config
from utils.errors import UserError


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(place: object, name: str, call: int, flags: Sequence[object]) -> None:
    """Train in a fork that is killed when a function is called for the n-th time."""
    child = os.fork()
    if not child:
        try:
            before: Callable = getattr(place, name)
            calls = []

            def counted(*arguments: object, **more: object) -> object:
                calls.append(1)
                return (die if len(calls) == call else before)(*arguments, **more)

            setattr(place, name, counted)
            run_main(train_program.main, [str(flag) for flag in flags])
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


MOMENTS = {
    "a folder is made, but not marked": (marks, "write_json", 1),
    "the second folder is made": (marks, "write_json", 2),
    "the third folder is to be made": (folder, "make_marked", 3),
    "the config is to be written": (Config, "save", 1),
    "the best model is tested": (testing.Test, "run", 1),
    "the test is to be recorded": (testing.Test, "_record", 1),
    "the page of the test is to be drawn": (testing, "replacing", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_start_or_end_that_was_killed_is_gone_on_with(
    run: Run, config_path: Path, tmp_path: Path, moment: str
) -> None:
    flags = ["--config", config_path, "--group_id", "g", "--group_seed", "0", "--resume", "auto"]
    killed_at(*MOMENTS[moment], flags)
    for left in (tmp_path / "saved").rglob(".*.tmp"):
        os.utime(left, (0, 0))  # long ago
    code, output = run(train_program, *flags)
    assert code == 0, output
    models = only_run(tmp_path / "saved")
    for kind in ("models", "log", "web"):
        above = tmp_path / "saved" / kind / models.parent.relative_to(tmp_path / "saved/models")
        assert [path.name for path in above.iterdir()] == [models.name], kind
        assert (above / models.name / "run.json").is_file()
    assert list((tmp_path / "saved/web").rglob("index.html"))
    assert list(models.glob("test-similarities-*.npy"))
    assert not list(models.glob("checkpoint-last.pth"))


def test_the_last_state_goes_though_the_kill_came_before(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    flags = ["--config", config_path, "--group_id", "g", "--group_seed", "0", "--resume", "auto"]
    run(train_program, *flags)
    last = only_run(tmp_path / "saved") / "checkpoint-last.pth"
    last.write_bytes(b"state")
    code, output = run(train_program, *flags)
    assert code == 0 and "is done" in output and not last.exists()


def test_two_starts_in_one_second_do_not_share_a_folder(tmp_path: Path) -> None:
    runs = []
    for _ in range(5):
        with folder.RunFolder.new(tmp_path, "experiment") as run:
            runs.append(run)
    assert len({made.models for made in runs}) == 5
    assert not list(tmp_path.rglob(".*"))


def test_a_name_that_is_taken_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="in the way"):
        marks.make_marked(tmp_path / "file", {})
    assert marks.make_marked(tmp_path / "folder", {}) is None
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "folder"}


class Strikes:
    """A signal arrives while this is finalised, where Python lets no exception through."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_a_finaliser_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> None:
        strikes = [Strikes()]
        strikes.clear()
        signal.pause()

    assert run_main(main, [], "go on") == 143
    assert capfd.readouterr().err == "ended by SIGTERM; go on\n"


def test_a_signal_that_comes_out_as_a_mistake_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    class Strikes:
        def __set_name__(self, owner: type, name: str) -> None:
            os.kill(os.getpid(), signal.SIGINT)  # while a library is being loaded

    def main(_: list[str]) -> None:
        try:
            type("Loaded", (), {"strikes": Strikes()})
        except RuntimeError as error:
            raise UserError("The settings do not fit.") from error

    assert run_main(main, [], "go on") == 130
    assert capfd.readouterr().err == "interrupted; go on\n"


def test_a_signal_whose_clean_up_fails_is_no_fault(capfd: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> None:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            raise AttributeError("no lock was taken yet")

    assert run_main(main, [], "go on") == 129
    assert capfd.readouterr().err == "ended by SIGHUP; go on\n"

    def faulty(_: list[str]) -> None:
        raise AttributeError("a fault")

    with pytest.raises(AttributeError):
        run_main(faulty, [])


def test_what_a_killed_packer_left_goes_though_all_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = OwnData(tmp_path)
    data.loader()
    left = tmp_path / ".cache" / ".captions.packed.7-00000000.tmp"
    left.touch()
    os.utime(left, (0, 0))  # long ago
    monkeypatch.setattr(files, "_tidied", set())  # as in another process
    data.loader()
    assert not list(tmp_path.rglob(".*.tmp"))
