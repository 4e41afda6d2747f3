"""The real programs in several processes: equal results, going on with others, sudden ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch._dynamo  # which an optimiser loads: once here, not in each fork

import test as test_program
import train as train_program
from tests.conftest import ROOT
from tests.run_files import Run, beside, only_run, weights
from tests.test_runs import changed
from tests.test_teachtext import (  # fixtures, and what goes with them
    distilling,
    metrics_of,
    models_of,
    teacher_files,  # noqa: F401
    teachers,  # noqa: F401
    write_config,
)
from trainer.processes import launch, starting
from trainer.step import TrainingStep
from utils.command_line import run_main
from utils.errors import UserError

Together = Callable[..., tuple[int, str]]


@pytest.fixture
def together(tmp_path: Path) -> Together:
    """Run a program as `--device cpu,cpu` does, in forks of this process; as the fixture `run`.

    `within(rank)` is called in each process before it begins. With the port of an `agent`'s store,
    it is torchrun that has started them.
    """

    def call(
        count: int,
        program: ModuleType,
        *arguments: object,
        within: Callable | None = None,
        agent: int = 0,
    ) -> tuple[int, str]:
        output = tmp_path / "output"
        output.write_bytes(b"")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port, parent = listening.getsockname()[1], os.getpid()
            launched = {launch.SOCKET: str(listening.fileno()), launch.PARENT: str(parent)}
            elastic = {"TORCHELASTIC_RUN_ID": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
            children = []
            for rank in range(count):
                child = Fork()
                if not child.number:
                    os.environ |= {
                        **{"RANK": str(rank), "WORLD_SIZE": str(count)},
                        **{"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)},
                        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent or port)},
                        **(elastic if agent else launched),
                        "GLOO_SOCKET_IFNAME": "lo",
                    }
                    if rank:
                        listening.close()
                    _be(program, arguments, output, within and (lambda r=rank: within(r)))
                children.append(child)
        with output.open("a") as handle, redirect_stderr(handle):
            code = launch.wait(children)
        return code, output.read_text()

    return call


class Fork:
    """A fork of this process, as `subprocess.Popen` tells of a process."""

    def __init__(self) -> None:
        self.number, self.code = os.fork(), None

    def poll(self, how: int = os.WNOHANG) -> int | None:
        if self.code is None:
            number, status = os.waitpid(self.number, how)
            self.code = os.waitstatus_to_exitcode(status) if number else None
        return self.code

    def wait(self) -> int:
        return self.poll(how=0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.number, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _be(program: ModuleType, arguments: tuple, output: Path, prepare: Callable | None) -> None:
    """Be a process of a program, to the end."""
    code = 99
    try:
        with output.open("ab") as handle:
            os.dup2(handle.fileno(), 1)
            os.dup2(handle.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        torch.set_num_threads(1)
        if prepare:
            prepare()
        code = run_main(program.main, [str(a) for a in arguments])
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - nothing of a fork may go on as a test
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(autouse=True)
def with_sgd(config_path: Path) -> None:
    """Weights without influence on the loss stay where they are, up to rounding."""

    def change(values: dict) -> None:
        values["optimizer"] = {"type": "SGD", "args": {"lr": 0.01, "momentum": 0.9}}
        values["trainer"] |= {"save_only_best": True, "monitor": "off", "epochs": 3}

    changed(config_path, change)


def close(one: Path, other: Path, near: float) -> None:
    expected, found = (weights(path / "trained_model.pth") for path in (one, other))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=near, atol=near)


def signalled(rank: int, steps: int, number: int) -> Callable[[int], None]:
    """Have one process get a signal within a step."""

    def prepare(own: int) -> None:
        original, made = TrainingStep.__call__, [0]

        def step(self, batch, epoch):
            made[0] += 1
            if own == rank and made[0] == steps:
                os.kill(os.getpid(), number)
            return original(self, batch, epoch)

        TrainingStep.__call__ = step

    return prepare


def saved_in(folder: Path) -> list[str]:
    return ["--custom_args", f"trainer.save_dir@{folder}"]


def test_processes_train_and_test_as_one_does(
    run: Run, together: Together, config_path: Path, tmp_path: Path
) -> None:
    changed(config_path, lambda v: v["trainer"].update(accumulate=2, ema=0.5, log_every=1))
    changed(config_path, lambda v: v["data_loader"]["args"].update(text_dropout=0.5, batch_size=9))
    code, output = run(train_program, "--config", config_path, *saved_in(tmp_path / "one"))
    assert code == 0, output
    one = only_run(tmp_path / "one")
    for count in (2, 3):
        many = ["--config", config_path, *saved_in(tmp_path / f"{count}")]
        code, output = together(count, train_program, *many)
        assert code == 0, output
        assert output.count("Setting experiment random seed") == 1 and "rror" not in output
        models = only_run(tmp_path / f"{count}")
        close(one, models, 1e-5)
        expected, found = (
            json.loads((beside(path, "log") / "metrics.json").read_text()) for path in (one, models)
        )
        assert found["test"] == expected["test"]
        assert (beside(models, "web") / "index.html").is_file()
        names = [sorted(path.name for path in folder.iterdir()) for folder in (one, models)]
        assert names[0] == names[1]
    code, output = together(2, test_program, "--resume", models, "--config", config_path)
    assert code == 0 and "t2v" in output, output
    tests = json.loads((beside(models, "log") / "metrics.json").read_text())["tests"]
    [again] = [test for test in tests if test["test_split"] == "full-val"]
    assert again["test"]["t2v_metrics"]["R5"] == expected["epochs"][-1]["val_t2v_metrics_R5"]


def test_a_student_follows_its_teachers(
    run: Run,
    together: Together,
    teacher_files: dict[str, Path],  # noqa: F811
    tiny_set: Path,
    tmp_path: Path,
) -> None:
    student = distilling(*teacher_files.values(), aggregate="random")
    student["optimizer"] = {"type": "SGD", "args": {"lr": 0.01}}
    configs = {name: write_config(tmp_path, name, tiny_set, student) for name in ("one", "two")}
    assert run(train_program, "--config", configs["one"])[0] == 0
    code, output = together(2, train_program, "--config", configs["two"])
    assert code == 0, output
    close(models_of(tmp_path, "one"), models_of(tmp_path, "two"), 1e-5)
    assert metrics_of(tmp_path, "one")["test"] == metrics_of(tmp_path, "two")["test"]


@pytest.mark.parametrize(("first", "then"), [(2, 2), (2, 1), (1, 3)])
def test_a_stopped_training_goes_on_with_other_processes(
    together: Together, config_path: Path, tmp_path: Path, first: int, then: int
) -> None:
    whole = ["--config", config_path, *saved_in(tmp_path / "whole")]
    assert together(first, train_program, *whole)[0] == 0
    stop = signalled(first - 1, 5, signal.SIGTERM)
    code, output = together(first, train_program, "--config", config_path, within=stop)
    assert code == 143 and output.count("ended by SIGTERM; saved in") == 1, output
    models = only_run(tmp_path / "saved")
    assert torch.load(models / "checkpoint-last.pth", weights_only=True)["epoch"] == 1
    code, output = together(then, train_program, "--resume", models)
    assert code == 0 and "Continuing after epoch 1 and" in output, output
    close(only_run(tmp_path / "whole"), models, 0.0 if first == then else 1e-5)


def test_a_dry_run_tells_of_the_processes(
    together: Together, config_path: Path, tmp_path: Path
) -> None:
    code, output = together(2, train_program, "--config", config_path, "--dry_run")
    assert code == 0 and not (tmp_path / "saved").exists()
    assert "2 processes of" in output and "at the peak, each of 2 processes" in output


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_others(
    together: Together, config_path: Path, tmp_path: Path, rank: int
) -> None:
    kill = signalled(rank, 4, signal.SIGKILL)
    started = time.monotonic()
    code, output = together(3, train_program, "--config", config_path, within=kill)
    assert code == 137 and f"error: Process {rank} was killed by SIGKILL" in output
    assert "Traceback" not in output and output.count("rror") == 1
    assert time.monotonic() - started < 60
    code, output = together(2, train_program, "--config", config_path, "--resume", "auto")
    assert code == 0, output
    assert only_run(tmp_path / "saved")


def test_the_first_process_says_why_another_one_ends(together: Together, config_path: Path) -> None:
    def fail(rank: int) -> None:
        def step(self, batch, epoch):
            raise UserError("This process has no teacher.")

        if rank == 1:
            TrainingStep.__call__ = step

    code, output = together(2, train_program, "--config", config_path, within=fail)
    assert code == 2 and "error: Process 1 has ended: This process has no teacher." in output
    assert output.count("rror") == 1


def test_what_is_wrong_for_all_is_said_once(together: Together, config_path: Path) -> None:
    wrong = ["--custom_args", "optimizer.type@SGDD"]
    code, output = together(2, train_program, "--config", config_path, *wrong)
    assert code == 2 and output.count("error:") == 1 and 'did you mean "SGD"' in output


def test_statistics_of_each_process_are_a_choice(
    together: Together, config_path: Path, tmp_path: Path
) -> None:
    found = []
    for choice in ("false", "true"):
        folder = tmp_path / choice
        override = f"trainer.local_batch_norm@{choice}+trainer.save_dir@{folder}"
        given = ["--config", config_path, "--custom_args", override]
        code, output = together(2, train_program, *given)
        assert code == 0, output
        found.append(weights(only_run(folder) / "trained_model.pth"))
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert all(value.isfinite().all() for value in found[1].values())


def test_a_process_does_not_wait_for_ever_for_one_that_cannot_start(
    run: Run, config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "_TIME_TO_MEET", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for name, value in numbered(MASTER_PORT=str(port)).items():
        monkeypatch.setenv(name, value)
    code, output = run(train_program, "--config", config_path)
    assert code == 2 and "Process 0 cannot meet the others" in output and "1/2" in output
    with socket.create_server(("127.0.0.1", port)):
        code, output = run(train_program, "--config", config_path)
    assert code == 2 and "Process 0 cannot meet the others" in output and "in use" in output


def numbered(**others: str) -> dict[str, str]:
    """What the first of two processes is told."""
    numbers = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    return numbers | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"} | others


@pytest.mark.parametrize(
    "wrong",
    [
        *({"RANK": rank} for rank in ("", "x", "-1", "2", "1.0")),
        *({"WORLD_SIZE": count} for count in ("0", "1")),
        *({"LOCAL_RANK": rank} for rank in ("2", "1")),
        *({"MASTER_PORT": port} for port in ("0", "65536", "http")),
    ],
    ids=str,
)
def test_numbers_set_by_hand_are_looked_at(
    run: Run, config_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    for name, value in numbered(**wrong).items():
        monkeypatch.setenv(name, value)
    code, output = run(train_program, "--config", config_path)
    assert code == 2 and "does not number processes as torchrun does" in output


def test_a_stop_before_they_have_met_is_said_once(together: Together, config_path: Path) -> None:
    def stop(rank: int) -> None:
        starting._join = lambda device: os.kill(os.getpid(), signal.SIGTERM)

    code, output = together(3, train_program, "--config", config_path, within=stop)
    assert code == 143 and output == "ended by SIGTERM\n"


def test_torchrun_may_start_all_anew(together: Together, config_path: Path, tmp_path: Path) -> None:
    has_looked = tmp_path / "has looked"

    def anew(rank: int) -> None:
        # An agent counts those starts alone that its own processes have caused.
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(rank)
        # The first process comes when the other one has found what is left of those before.
        if rank:
            starting.time = SimpleNamespace(monotonic=time.monotonic, sleep=look)
        while not rank and not has_looked.exists():
            time.sleep(0.02)

    def look(seconds: float) -> None:
        has_looked.touch()
        time.sleep(seconds)

    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command, kill = ["--config", config_path, "--resume", "auto"], signalled(1, 4, signal.SIGKILL)
    code, output = together(2, train_program, *command, within=kill, agent=store.port)
    assert code == 137 and "error: Process 1 has ended: it was killed" in output
    code, output = together(2, train_program, *command, within=anew, agent=store.port)
    assert code == 0 and "Continuing after epoch 1" in output, output
    assert only_run(tmp_path / "saved")


@pytest.mark.parametrize("device", ["cpu,0", "0,cpu", "0,0", "0,", ",", "cpu,", "a,b", "-1,0"])
def test_wrong_devices(run: Run, config_path: Path, device: str) -> None:
    code, output = run(train_program, "--config", config_path, f"--device={device}")
    assert code == 2 and 'takes different GPUs such as "0,1"' in output


def test_noise_is_not_for_several(together: Together, config_path: Path) -> None:
    noise = ["--custom_args", "arch.args.randomise_feats@look"]
    code, output = together(2, train_program, "--config", config_path, *noise)
    assert code == 2 and "train with one" in output


# ---- the launcher itself ----

CHILD = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
mode, rank = sys.argv[1], int(os.environ["RANK"])
print("rank", rank, "of", os.environ["WORLD_SIZE"], os.environ["OMP_NUM_THREADS"], flush=True)
if mode == "fail" and rank == 1:
    sys.exit(2)
if mode == "die" and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "wait":
    open(sys.argv[2] + str(rank), "w").close()
    signal.pause()
"""


@pytest.mark.parametrize(("mode", "code"), [("well", 0), ("fail", 2), ("die", 137)])
def test_the_launcher_gives_the_code_of_its_processes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str, code: int
) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    assert launch.launch([str(tmp_path / "child.py"), mode], 2) == code
    assert capfd.readouterr().out.startswith("rank 0 of 2 ")


class Scripted:
    """A child whose code is None until its last look, or until it is killed."""

    def __init__(self, codes: list[int | None]) -> None:
        self.codes = codes

    def poll(self) -> int | None:
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]

    def wait(self) -> int:
        assert self.codes[-1] is not None, "it would wait for ever"
        return self.codes[-1]

    def kill(self) -> None:
        self.codes = [-signal.SIGKILL]


SILENT, ABORTED = launch.WITHOUT_A_WORD, -signal.SIGABRT


@pytest.mark.parametrize(
    ("children", "code", "said"),
    [
        ([[None, 0], [0]], 0, ""),
        ([[None, 1], [None, 1, 2]], 1, ""),
        ([[None, SILENT], [-9]], 137, "Process 1 was killed by SIGKILL (as the system does"),
        ([[-11], [-11]], 139, "Process 0 was killed by SIGSEGV"),
        ([[SILENT], [-35]], 163, "Process 1 was killed by signal 35"),
        ([[None, SILENT], [3]], 3, "Process 1 has ended with code 3"),
        ([[SILENT], [3]], 3, "Process 1 has ended with code 3"),
        ([[None, None, ABORTED], [None, 2]], 2, ""),  # the end of one may tear others along
        ([[None], [2]], 2, ""),
    ],
)
def test_the_launcher_says_what_nobody_else_can(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    children: list[list[int | None]],
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(launch, "_SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(launch, "_SECONDS_TO_LEAVE", 0.01)
    assert launch.wait([Scripted(codes) for codes in children]) == code
    output = capsys.readouterr().err
    assert output.startswith(f"error: {said}") if said else output == ""
    assert output.count("\n") == bool(said)


def test_the_launcher_passes_signals_on(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    program = (
        "import sys; from utils.command_line import run_main; from trainer.processes import launch;"
        "sys.exit(run_main(lambda a: sys.exit(launch.launch(a, 2)), sys.argv[1:]))"
    )
    arguments = [str(tmp_path / "child.py"), "wait", str(tmp_path / "is-here-")]
    launcher = subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT)
    while len([*tmp_path.glob("is-here-*")]) < 2:
        assert launcher.poll() is None
        time.sleep(0.02)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait() == 143
