"""The log, progress bars, curves, tables and summaries over seeds."""

import io
import itertools
import logging
import re
import statistics
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logger.log_file import close_log, open_log
from logger.progress import progress
from logger.results import metrics_table, seeds_table, summarise_seeds
from logger.tensorboard import TensorBoardWriter
from utils.errors import UserError

log = logging.getLogger("trainer.something")


@pytest.fixture(autouse=True)
def handlers_do_not_pile_up():
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    close_log()
    assert (root.handlers, root.level) == before


# --------------------------------------------------------------------------------- the log


def test_messages_end_the_lines_of_console_and_file_as_they_are(tmp_path, capsys):
    lines = ["Setting experiment random seed to 0", " test_t2v_metrics_R1: 43.1", "a\nb"]
    with open_log(tmp_path / "log" / "exp"):
        for line in lines:
            log.info(line)
        log.warning("careful")
        log.debug("not wanted")
    log.info("after the end")
    assert capsys.readouterr().out == "\n".join([*lines, "warning: careful", ""])
    written = (tmp_path / "log/exp/info.log").read_text()
    assert re.search(
        r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d.* - INFO -  test_t2v_metrics_R1: 43.1$",
        written,
        re.MULTILINE,
    )
    for line in lines:
        assert f" - trainer.something - INFO - {line}\n" in written
    assert "not wanted" not in written and "after the end" not in written


def test_a_resumed_run_appends(tmp_path):
    for line in ("first", "second"):
        with open_log(tmp_path):
            log.info(line)
    assert re.findall(r"first|second", (tmp_path / "info.log").read_text()) == ["first", "second"]


def test_each_seed_has_its_own_file(tmp_path, capsys):
    for seed in range(3):
        open_log(tmp_path / f"seed-{seed}")  # not closed: the next one does that
        log.info("seed %d", seed)
    close_log()
    close_log()
    for seed in range(3):
        assert (tmp_path / f"seed-{seed}/info.log").read_text().endswith(f" - seed {seed}\n")
        assert (tmp_path / f"seed-{seed}/info.log").read_text().count("\n") == 1
    assert capsys.readouterr().out == "seed 0\nseed 1\nseed 2\n"


def test_level_and_other_peoples_loggers(tmp_path, capsys):
    with open_log(None, logging.DEBUG):
        log.debug("ours")
        logging.getLogger("somebody.else").info("theirs")
        logging.getLogger("somebody.else").warning("their warning")
    assert capsys.readouterr().out == "ours\nwarning: their warning\n"
    assert list(tmp_path.iterdir()) == []


def test_the_file_says_why_a_run_stopped(tmp_path, capsys):
    for error in (UserError("No such split."), KeyboardInterrupt(), ZeroDivisionError("1/0")):
        with pytest.raises(type(error)), open_log(tmp_path):
            raise error
    written = (tmp_path / "info.log").read_text()
    assert "ERROR - Stopped: No such split.\n" in written
    assert "ERROR - Interrupted.\n" in written
    assert written.rstrip().endswith("ZeroDivisionError: 1/0")
    assert written.count("Traceback") == 1
    assert capsys.readouterr() == ("", "")


class Stopped(BaseException):
    """Stands for a signal."""


def test_the_file_tells_a_stop_by_a_signal_without_a_traceback(tmp_path):
    for error in (Stopped("SIGTERM came."), Stopped(), KeyboardInterrupt("Ctrl-C")):
        with pytest.raises(type(error)), open_log(tmp_path):
            raise error
    written = (tmp_path / "info.log").read_text()
    for line in ("SIGTERM came", "Stopped", "Ctrl-C"):
        assert f"ERROR - Interrupted: {line}.\n" in written
    assert "Traceback" not in written


def test_a_log_that_gets_its_folder_later_holds_all_that_was_said(tmp_path, capsys):
    values = ["as it was"]
    with open_log(None) as opened:
        log.info("before %s", values)
        values[0] = "as it is"
        log.debug("not wanted")
        logging.getLogger("somebody.else").info("not ours")
        try:
            raise ZeroDivisionError("1/0")
        except ZeroDivisionError:
            log.exception("a fault")
        assert list(tmp_path.iterdir()) == []
        opened.into(tmp_path / "run")
        log.info("after")
        with pytest.raises(AssertionError):
            opened.into(tmp_path / "other")
    written = (tmp_path / "run/info.log").read_text()
    lines = re.findall(r"before .*|not .*|a fault|^Zero.*|after", written, re.MULTILINE)
    assert lines == ["before ['as it was']", "a fault", "ZeroDivisionError: 1/0", "after"]
    assert written.count("Traceback") == 1
    shown = capsys.readouterr().out
    assert shown.count("before") == 1 and shown.count("after") == 1


def test_a_stop_stands_in_a_file_that_was_made_later(tmp_path):
    with pytest.raises(UserError), open_log(None) as opened:
        log.info("one")
        opened.into(tmp_path)
        raise UserError("No.")
    assert (tmp_path / "info.log").read_text().endswith(" - ERROR - Stopped: No.\n")


def test_what_waits_for_a_folder_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("logger.log_file.MOST_WAITING", 3)
    with open_log(None) as opened:
        for number in range(5):
            log.info("line %d", number)
        opened.into(tmp_path)
    assert re.findall(r"line \d", (tmp_path / "info.log").read_text()) == [
        *("line 2", "line 3", "line 4")
    ]


def test_a_later_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with open_log(None) as opened:
        with pytest.raises(UserError, match="Cannot"):
            opened.into(tmp_path / "file")
        log.info("one")
        opened.into(tmp_path / "run")
    assert (tmp_path / "run/info.log").read_text().endswith(" - one\n")


def test_nothing_in_a_message_steers_the_terminal(tmp_path, capsys):
    with open_log(tmp_path):
        log.warning("%s", "a\x1b[2Jb\rc\x9bd\u202ee\ud800\tf\ng ü")
        logging.getLogger("\x1b[1m").warning("other")
    expected = "a\\x1b[2Jb\\rc\\x9bd\\u202ee\\ud800\tf\ng ü\n"
    assert capsys.readouterr().out == f"warning: {expected}warning: other\n"
    written = (tmp_path / "info.log").read_text(encoding="utf-8")
    assert expected in written and "\x1b" not in written


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "info.log").mkdir()
    for folder in (tmp_path / "file", tmp_path):
        with pytest.raises(UserError, match="Cannot"):
            open_log(folder)


def test_a_full_disk_ends_the_file_not_the_run(tmp_path, capsys):
    (tmp_path / "info.log").symlink_to("/dev/full")
    with open_log(tmp_path):
        log.info("one")
        log.info("two")
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\n"
    assert shown.err.count("\n") == 1 and "no space" in shown.err


def test_a_console_that_is_closed_or_knows_few_letters(tmp_path, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    with open_log(tmp_path):
        log.info("é")
        assert console.buffer.getvalue() == b"\\xe9\n"
        monkeypatch.setattr(console, "write", lambda text: (_ for _ in ()).throw(BrokenPipeError))
        log.info("two")
        log.info("three")
    assert re.findall("é|two|three", (tmp_path / "info.log").read_text()) == ["é", "two", "three"]


# ---------------------------------------------------------------------------- progress bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_shows_on_a_terminal_only(monkeypatch, capsys):
    assert list(progress(iter([1, 2, 3]), total=3, description="Testing")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("logger.progress.SECONDS_BEFORE_IT_SHOWS", 0)
    with progress(None, total=3, description="Testing") as bar:
        bar.update(3)
        bar.refresh()
        assert "Testing: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue()


# ----------------------------------------------------------------------------- TensorBoard


def read_curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_curves_are_written_and_a_resumed_run_replaces_their_end(tmp_path, monkeypatch):
    # Files are read in the order of their names, which begin with the second.
    seconds = itertools.count(1_000_000_000)
    monkeypatch.setattr(time, "time", lambda: float(next(seconds)))
    with TensorBoardWriter(tmp_path / "curves") as curves:
        for step in range(4):
            curves.scalars("train", {"loss": 4 - step, "lr": 0.5}, step)
    with TensorBoardWriter(tmp_path / "curves", purge_step=2) as curves:
        curves.scalars("train", {"loss": 9}, 2)
        curves.scalars("", {"val_R1": 0.25}, 2)
    curves.close()
    assert read_curves(tmp_path / "curves") == {
        "train/loss": [(0, 4), (1, 3), (2, 9)],
        "train/lr": [(0, 0.5), (1, 0.5)],
        "val_R1": [(2, 0.25)],
    }


def test_histograms_and_texts_are_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoardWriter(tmp_path / "curves") as curves:
        for step in (1, 2):
            curves.histogram("ranks", [1, 2.5, 40.0 * step], step)
            curves.text("rankings", f"    step {step} <b>", step)
        curves.histogram("none", [], 1)
        assert curves.is_enabled
    assert not curves.is_enabled
    keep_all = {"histograms": 0, "tensors": 0}
    events = EventAccumulator(str(tmp_path / "curves"), size_guidance=keep_all)
    events.Reload()
    tags = events.Tags()
    assert tags["histograms"] == ["ranks"]
    ranks = events.Histograms("ranks")
    assert [(e.step, e.histogram_value.num, e.histogram_value.max) for e in ranks] == [
        (1, 3, 40),
        (2, 3, 80),
    ]
    [name] = tags["tensors"]
    texts = [e.tensor_proto.string_val[0].decode() for e in events.Tensors(name)]
    assert name.startswith("rankings") and texts == ["    step 1 <b>", "    step 2 <b>"]


def test_disabled_curves_write_nothing(tmp_path):
    with TensorBoardWriter(tmp_path / "curves", enabled=False) as curves:
        curves.scalars("train", {"loss": 1}, 0)
        curves.histogram("ranks", [1.0], 0)
        curves.text("rankings", "text", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_curves_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot"):
        TensorBoardWriter(tmp_path / "file")


# --------------------------------------------------------------------- tables and summaries

ROW = {"R1": 12.34, "R5": 40, "R10": 51.96, "MedR": 9.5, "MeanR": 120.25, "R50": 80.0}
ROW["geometric_mean_R1-R5-R10"] = 29.49


def test_the_table_is_aligned_and_ordered():
    both = {"t2v_metrics": ROW, "v2t_metrics": {"R1": 100.0}, "other": {"mAP": 0.5, "R1": 1}}
    assert metrics_table(both).splitlines() == [
        "task     R@1   R@5  R@10  R@50  MedR  MeanR  Geom  mAP",
        "t2v     12.3  40.0  52.0  80.0   9.5  120.2  29.5    -",
        "v2t    100.0     -     -     -     -      -     -    -",
        "other    1.0     -     -     -     -      -     -  0.5",
    ]
    assert metrics_table({}) == "task"


def test_the_table_over_seeds_has_means_and_deviations():
    seeds = [{"t2v_metrics": {"R1": r1, "R5": 50.0}} for r1 in (10.0, 20.0, 30.0)]
    assert seeds_table(seeds).splitlines() == [
        "task          R@1         R@5",
        "t2v   20.0 (10.0)  50.0 (0.0)",
    ]
    assert seeds_table(seeds[:1]).splitlines() == ["task   R@1   R@5", "t2v   10.0  50.0"]


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_a_summary_has_mean_and_sample_deviation(values):
    summary = summarise_seeds([{"R1": value, "t2v": {"R5": value}} for value in values])
    assert summary["t2v"]["R5"] == summary["R1"]
    assert summary["R1"]["values"] == values
    assert summary["R1"]["mean"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    if len(values) == 1:
        assert summary["R1"]["std"] is None
    else:
        assert summary["R1"]["std"] == pytest.approx(statistics.stdev(values), abs=1e-6)


def test_seeds_with_other_metrics_are_refused():
    with pytest.raises(ValueError, match="R5"):
        summarise_seeds([{"R1": 1.0}, {"R1": 1.0, "R5": 2.0}])
    with pytest.raises(ValueError, match="no seed"):
        summarise_seeds([])
