"""Flags, seeds, devices, and what the user sees when a run stops."""

import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from trainer.session import seed_everything
from utils.command_line import (
    chosen_seeds,
    log_device,
    parse_seeds,
    run_main,
    select_device,
    test_parser,
    train_parser,
    version,
)
from utils.errors import UserError
from utils.stopping import Stopped


def seeds_of(*arguments):
    return chosen_seeds(train_parser().parse_args(arguments), default=7)


def test_every_flag_of_training():
    arguments = train_parser().parse_args(
        shlex.split(
            "--config c.json --resume r.pth --device 0,1 --seeds 0,1 --group_id g --mini_train "
            "--train_single_epoch --disable_workers --purge_exp_dir --custom_args a@1 "
            "--leaderboard l.txt --dry_run"
        )
    )
    assert vars(arguments) == {
        "config": "c.json",
        "resume": "r.pth",
        "device": "0,1",
        "seeds": "0,1",
        "group_seed": None,
        "group_id": "g",
        "mini_train": True,
        "init_from": None,
        "train_single_epoch": True,
        "disable_workers": True,
        "purge_exp_dir": True,
        "custom_args": "a@1",
        "leaderboard": "l.txt",
        "dry_run": True,
    }


def test_every_flag_of_testing():
    arguments = test_parser().parse_args(
        shlex.split("--config c.json --resume r.pth --eval_from_training_config")
    )
    assert vars(arguments) == {
        "config": "c.json",
        "resume": "r.pth",
        "device": None,
        "custom_args": None,
        "eval_from_training_config": True,
    }


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "..", "a/b"])
def test_a_group_is_named_like_a_folder(name, capsys):
    with pytest.raises(SystemExit) as end:
        train_parser().parse_args(["--group_id", name])
    assert end.value.code == 2
    assert "name of a folder" in capsys.readouterr().err


@pytest.mark.parametrize("parser", [train_parser, test_parser])
def test_help_explains_every_flag(parser, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for flag in vars(parser().parse_args([])):
        assert f"--{flag}" in shown


@pytest.mark.parametrize("parser", [train_parser, test_parser])
def test_the_version_is_shown_with_that_of_torch(parser, capsys):
    assert re.search(rf'^version = "{version()}"$', Path(ROOT, "pyproject.toml").read_text(), re.M)
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{parser().prog} {version()}, torch {torch.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--devise", "0"], '"--devise" (did you mean "--device"'),
        (["--conf=c.json"], '"--conf" (did you mean "--config"'),
        (["c.json"], '"c.json"'),
        (["--config"], "--config"),
        (["--seeds", "0", "--group_seed", "1"], "--group_seed"),
        (["--config", "c.json", "--device", ""], "--device is empty"),
        (["--resume="], "--resume is empty"),
        (["trainer.epochs=3"], '"trainer.epochs" (--custom_args replaces'),
        (["--group_id", " ", "--dry_run"], "--group_id is empty"),
    ],
)
def test_a_wrong_command_line_gets_one_sentence(arguments, part, capsys):
    with pytest.raises(SystemExit) as end:
        train_parser().parse_args(arguments)
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and part in shown and shown.count("\n") == 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5, unique=True))
def test_seeds_are_read_as_they_were_written(seeds):
    assert parse_seeds(",".join(map(str, seeds))) == seeds
    assert seeds_of("--seeds", ", ".join(map(str, seeds))) == seeds


@pytest.mark.parametrize("text", ["", ",", "0,", "a", "-1", "1.0", "0 1", "4294967296", "٣", "1_0"])
def test_what_is_no_seed_is_refused(text):
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_seeds_from_the_flags():
    assert seeds_of() == [7]
    assert seeds_of("--group_seed", "3", "--group_id", "g") == [3]
    assert seeds_of("--seeds", "1,2", "--group_id", "g") == [1, 2]
    with pytest.raises(UserError, match="one seed"):
        seeds_of("--group_seed", "1,2")
    with pytest.raises(UserError, match="--group_seed"):
        seeds_of("--group_seed", "x")
    with pytest.raises(UserError, match="1 twice"):
        seeds_of("--seeds", "1,01")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU model {index}")


@pytest.mark.parametrize("text", [None, "cpu", "CPU"])
def test_without_ids_it_is_the_cpu(text, two_gpus):
    assert select_device(text) == "cpu"


def test_ids_choose_gpus(two_gpus, caplog):
    assert select_device("1") == "cuda:1" and not caplog.records
    assert select_device("1, 0") == "cuda:1"
    assert "cuda:1" in caplog.text


@pytest.mark.parametrize(
    ("text", "device"),
    [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("CUDA:1,0", "cuda:1"), ("auto", "cuda:0")],
)
def test_devices_may_be_named_as_torch_does(text, device, two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select_device(text) == device


def test_auto_is_the_cpu_where_torch_can_use_no_gpu(two_gpus, monkeypatch):
    def complain():
        warnings.warn("the driver is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", complain)
    assert select_device("auto") == "cpu"


def test_one_line_names_the_device_and_a_gpu_that_stands_idle(two_gpus, monkeypatch, caplog):
    def line(*given):
        caplog.clear()
        with caplog.at_level("INFO"):
            log_device(*given)
        return caplog.messages[0]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert line("cpu", None) == "Device: the CPU, 1 thread"
    assert line("cpu", "cpu", 2) == "Device: the CPU, 2 processes of 1 thread each"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert line("cpu", None) == "Device: the CPU, 4 threads"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert line("cpu", None).endswith("while 2 GPUs stand idle (--device cuda uses it)")
    assert "idle" not in line("cpu", "cpu")
    about = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU model of {device}")
    assert line("cuda:1", "1") == "Device: cuda:1, GPU model of cuda:1 (80 GiB)"
    assert line("cuda:1", "0,1", 2).endswith("; 2 processes, each with its GPU")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "0,", "0,0", "0,cuda:0", "cuda:", "cuda,1", "auto,0", "1.5", "0 1"]
)
def test_what_is_no_device_is_refused(text, two_gpus):
    with pytest.raises(UserError, match="--device"):
        select_device(text)


def test_a_gpu_that_is_not_there_is_refused(two_gpus, monkeypatch):
    with pytest.raises(UserError, match=r"GPU 2.*GPU model 0.*GPU model 1"):
        select_device("0,2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="GPU 0"):
        select_device("0")


def test_why_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match=r"GPU 0.*without CUDA"):
        select_device("0")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    too_old = (
        "The NVIDIA driver on your system is too old (found version 1). Please update it.\nMore."
    )

    def fail():
        raise RuntimeError(too_old)

    monkeypatch.setattr(torch.cuda, "init", fail)
    with pytest.raises(UserError, match=r"too old \(found version 1\)\)\. Without"):
        select_device("0")


def test_the_gpu_is_started_while_the_flag_is_read(two_gpus, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "init", lambda: chosen.append("begun"))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert select_device("1") == "cuda:1" and chosen == ["begun", "cuda:1"]

    def fail():
        raise RuntimeError("CUDA error: all devices are busy\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "init", fail)
    with pytest.raises(UserError, match=r"--device 1: .*devices are busy\)\. Without"):
        select_device("1")


def test_how_a_run_ends(capsys):
    given_arguments = []

    def wrong(arguments):
        raise UserError("The split x does not exist.")

    def interrupted(arguments):
        signal.raise_signal(signal.Signals[arguments[0]])

    def saved(arguments):
        try:
            interrupted(arguments)
        except Stopped as stop:
            stop.saved = "go on with this"
            raise

    def faulty(arguments):
        raise ZeroDivisionError

    assert run_main(given_arguments.extend, ("--config", "c.json")) == 0
    assert given_arguments == ["--config", "c.json"]
    assert capsys.readouterr() == ("", "")
    assert run_main(wrong, []) == 2
    assert capsys.readouterr() == ("", "error: The split x does not exist.\n")
    for name, code in (("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)):
        before = signal.getsignal(signal.Signals[name])
        assert run_main(interrupted, [name], "do that again") == code
        stopped = capsys.readouterr().err
        assert stopped.endswith("; do that again\n") and stopped.count("\n") == 1
        assert run_main(saved, [name], "do that again") == code
        assert capsys.readouterr().err.endswith("; go on with this\n")
        assert signal.getsignal(signal.Signals[name]) is before
    with pytest.raises(ZeroDivisionError):
        run_main(faulty, [])


def test_seeding_repeats_the_draws_of_all_three_generators():
    import random

    import numpy as np

    def draws(seed):
        seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first, other, again = draws(3), draws(4), draws(3)
    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize(
    ("line", "found"),
    [("train.py --see", {"--seeds"}), ("train.py --seeds 0 --gr", {"--group_id"})],
)
def test_a_shell_completes_flags(line, found, tmp_path):
    pytest.importorskip("argcomplete")
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    answer = tmp_path / "answer"
    done = subprocess.run(
        [sys.executable, ROOT / "train.py"],
        env=os.environ | asked | {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(map(str.strip, answer.read_text().split("\v"))) == found
    assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / "train.py").read_text()[:1024]
