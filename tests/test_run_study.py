"""Studies: what is done is skipped, what was stopped goes on, what fails keeps nothing back."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import misc.results.studies
import misc.run_study as study_program
import train as train_program
from misc.results.sbatch import Limits, write_job_array
from misc.results.studies import load_study, study_names
from tests.conftest import ROOT
from tests.test_results_table import column
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from utils.command_line import run_main
from utils.config import Config

Study = Callable[..., tuple[int, str]]

PARTS = {
    "title": "Parts",
    "row": "Model",
    "datasets": {"tiny": {"MoEE": "train-moee", "CE": "train-ce"}, "other": "tiny"},
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a tiny set, two configs and one study of them."""
    folder = tmp_path / "it's a place"
    (folder / "configs" / "tiny").mkdir(parents=True)
    (folder / "studies").mkdir()
    write_json(folder / "studies" / "parts.json", PARTS)
    values = tiny_config(make_tiny_set(tmp_path / "set"), Path("saved"))
    values["trainer"] |= {"epochs": 1, "tensorboard": False}
    write_json(folder / "configs/tiny/train-ce.json", values)
    moee = {"inherit_from": "configs/tiny/train-ce.json", "arch": {"args": {"use_ce": ""}}}
    write_json(folder / "configs/tiny/train-moee.json", moee)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(misc.results.studies, "FOLDER", folder / "studies")
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Train in this process, which is quicker; the list fills with the command lines."""
    commands: list[list[str]] = []

    def train(command: list[str]) -> int:
        assert command[:2] == [sys.executable, str(ROOT / "train.py")]
        commands.append(command[2:])
        return run_main(train_program.main, command[2:])

    monkeypatch.setattr(misc.results.studies, "run_command", train)
    return commands


@pytest.fixture
def study(capsys: pytest.CaptureFixture[str]) -> Study:
    def call(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = run_main(study_program.main, [str(a) for a in arguments], study_program.INTERRUPTED)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


TINY = ("--study", "parts", "--dataset", "tiny")


def change(path: Path, section: str, **values: object) -> None:
    config = json.loads(path.read_text())
    config.setdefault(section, {}).update(values)
    write_json(path, config)


def test_a_study_trains_what_is_not_done_and_prints_its_table(
    workplace: Path, trained: list, study: Study
) -> None:
    code, output = study(*TINY, "--seeds", "0,1", "--dry_run")
    assert code == 0 and "0 of 4" in output
    assert not trained and not (workplace / "saved").exists()

    code, output = study(*TINY, "--seeds", "0,1")
    assert code == 0, output
    assert column(output, "Model") == ["MoEE", "CE"] and column(output, "seeds") == ["2", "2"]
    flags = "--config configs/tiny/train-{}.json --group_id parts --group_seed {} --resume auto"
    expected = [flags.format(name, seed).split() for name in ("moee", "ce") for seed in (0, 1)]
    assert trained == expected

    code, again = study(*TINY, "--seeds", "0,1")
    assert code == 0 and len(trained) == 4 and again.count("done: saved/log/") == 4
    assert [line for line in again.splitlines() if line.startswith("|")] == [
        line for line in output.splitlines() if line.startswith("|")
    ]

    # A quick try is no result, whatever its config.
    moee = "configs/tiny/train-moee.json"
    run_main(train_program.main, ["--config", moee, "--group_seed", "2", "--mini_train"])
    change(workplace / moee, "optimizer", args={"lr": 0.02})
    code, output = study(*TINY, "--seeds", "1,2", "--dry_run")
    assert code == 0 and "1 of 4" in output
    old = next((workplace / "saved/log/tiny-train-moee/parts/seed-1").iterdir())
    place = old.relative_to(workplace)
    reason = f"the run {place} was made with other values (optimizer.args.lr)"
    assert f"{moee}, seed 1: to be trained; {reason}" in output
    assert f"{moee}, seed 2: to be trained\n" in output


def test_a_failing_training_keeps_nothing_back(
    workplace: Path, trained: list, study: Study
) -> None:
    change(workplace / "configs/tiny/train-moee.json", "experts", modalities=["lok"])
    code, output = study(*TINY, "--seeds", "3")
    assert code == 2 and len(trained) == 2
    assert "configs/tiny/train-moee.json, seed 3" in output
    assert column(output, "seeds") == ["0", "1"]
    assert "(MoEE with seed 3)" in output.splitlines()[-1]

    log = next((workplace / "saved/log/tiny-train-ce/parts/seed-3").iterdir())
    (log / "metrics.json").write_text("{")
    code, output = study(*TINY, "--seeds", "3")
    assert code == 2 and "metrics.json" in output and "Traceback" not in output


def start_study(workplace: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "misc.run_study", *arguments]
    return subprocess.Popen(
        command,
        cwd=workplace,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_study_that_is_stopped_goes_on(
    workplace: Path, trained: list, study: Study, number: signal.Signals
) -> None:
    config = "configs/tiny/train-ce.json"
    change(workplace / config, "trainer", epochs=60)
    chosen = ("--configs", config, "--seeds", "5")
    process = start_study(workplace, *chosen)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch 3:" in line:
            process.send_signal(number)  # of the study alone, which passes it on
    assert process.wait(timeout=60) == 128 + number, lines
    assert "the same command goes on" in lines[-1]
    [models] = (workplace / "saved/models/tiny-train-ce/configs/seed-5").iterdir()

    code, output = study(*chosen[:-1], "5,6", "--dry_run")
    assert f"seed 5: goes on with {models}\n" in output
    assert f"{config}, seed 6: to be trained\n" in output

    code, output = study(*chosen)
    assert code == 0 and len(trained) == 1, output
    assert column(output, "experiment") == ["tiny-train-ce"] and column(output, "seeds") == ["1"]
    assert [path.name for path in models.parent.iterdir()] == [models.name]
    log = workplace / "saved/log" / models.relative_to(workplace / "saved/models")
    epochs = json.loads((log / "metrics.json").read_text())["epochs"]
    assert [entry["epoch"] for entry in epochs] == list(range(1, 61))


@pytest.mark.parametrize("code", [130, 143, 129, -signal.SIGTERM, -signal.SIGHUP])
def test_a_training_that_was_stopped_ends_the_study(
    workplace: Path, study: Study, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Others would be stopped too: the machine is taken away."""
    commands = []
    monkeypatch.setattr(misc.results.studies, "run_command", lambda c: commands.append(c) or code)
    found, output = study(*TINY, "--seeds", "0")
    assert found == (code if code > 0 else 128 - code) and len(commands) == 1
    assert "the same command goes on" in output.splitlines()[-1]


class Task:
    """A job script that is run as SLURM runs it, with a program of the test's as the training."""

    PROGRAM = """\
import os, signal, sys
def stop(number, frame):
    os.write(1, b"saving\\n")
    open(sys.argv[1]).read()  # until the test lets it end
    sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGTERM, stop)
os.write(1, b"up\\n")
if sys.argv[3] == "wait":
    while True:
        signal.pause()
sys.exit(int(sys.argv[2]))
"""

    def __init__(self, folder: Path, code: int, what: str, state: str) -> None:
        self.calls, self.gate = folder / "calls", folder / "gate"
        os.mkfifo(self.gate)
        self.calls.touch()
        program = folder / "training.py"
        program.write_text(self.PROGRAM)
        scontrol = folder / "scontrol"
        scontrol.write_text(f'#!/bin/bash\necho "$@" >> "{self.calls}"\necho JobState={state}\n')
        scontrol.chmod(0o755)
        commands = [["-c", "raise SystemExit(9)"], [program, self.gate, str(code), what]]
        script = write_job_array(folder, "one", [list(map(str, c)) for c in commands], Limits())
        environment = {"PYTHON": sys.executable, "PATH": f"{folder}:{os.environ['PATH']}"}
        environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
        self.shell = subprocess.Popen(
            ["bash", script], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.shell.stdout.readline() == "up\n"

    def end(self) -> tuple[int, list[str]]:
        """Wait for its end; returns its exit code and what SLURM was asked for."""
        self.shell.communicate(timeout=60)
        return self.shell.returncode, self.calls.read_text().splitlines()


SHOW, REQUEUE = "show job 7_1", "requeue 7_1"


@pytest.mark.parametrize(
    ("code", "state", "calls"),
    [
        (143, "RUNNING", [SHOW, REQUEUE]),
        (143, "CANCELLED", [SHOW]),
        (0, "RUNNING", []),
        (2, "RUNNING", []),
    ],
)
def test_a_task_that_is_told_to_end_waits_and_is_queued_again(
    tmp_path: Path, code: int, state: str, calls: list[str]
) -> None:
    task = Task(tmp_path, code, "wait", state)
    for _ in range(2):  # the second notice changes nothing
        task.shell.terminate()
        assert task.shell.stdout.readline() == "saving\n"
    assert task.shell.poll() is None and not task.calls.read_text()
    task.gate.write_text("")
    assert task.end() == (code, calls)


@pytest.mark.parametrize("code", [0, 2, 1])
def test_a_task_that_ends_is_not_queued_again(tmp_path: Path, code: int) -> None:
    assert Task(tmp_path, code, "end", "RUNNING").end() == (code, [])


def test_a_signal_to_the_runner_is_passed_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, signal, sys\n"
        "told = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: told.append(1))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "while not told:\n"
        "    signal.pause()\n"
        "sys.exit(len(told) + 2)\n"
    )
    codes = []

    def main(_: list[str]) -> None:
        codes.append(misc.results.studies.run_command([sys.executable, "-c", program]))

    assert run_main(main, []) == 143 and not codes


def test_job_arrays_train_each_seed(workplace: Path, study: Study, trained: list) -> None:
    write_json(
        workplace / "studies" / "one.json",
        {"title": "One", "row": "Model", "datasets": {"tiny": {"CE": "train-ce"}}},
    )
    jobs = workplace / "the jobs & more"
    one = ("--study", "one", "--dataset", "tiny", "--seeds", "0,1", "--custom_args")
    one = (*one, "optimizer.args.lr@0.02+visualizer.args.src_video_dir@$(touch no)'\"")
    flags = ("--sbatch_option=--partition=gpu", "--sbatch_time=1:00:00", "--sbatch_memory=2G")
    code, output = study(*one, "--sbatch", jobs, *flags)
    script = jobs / "one-tiny.sbatch"
    assert code == 0
    assert shlex.split(output.partition("Submit them from this folder: ")[2].splitlines()[0]) == [
        "sbatch",
        "the jobs & more/one-tiny.sbatch",
    ]
    text = script.read_text()
    head = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    assert head == [
        "--job-name=one-tiny",
        "--array=0-1",
        '--output="the jobs & more/one-tiny-%a.out"',
        "--open-mode=append",
        "--requeue",
        "--signal=B:TERM@180",
        "--time=1:00:00",
        "--mem=2G",
        "--partition=gpu",
    ]
    assert str(workplace) not in text and sys.executable not in text
    assert text.index("set -euo") > text.rindex("#SBATCH")

    def run(task: str | None) -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
        environment |= {"SLURM_ARRAY_TASK_ID": task} if task else {}
        return subprocess.run(
            [shutil.which("bash"), script],
            cwd=workplace,  # from where it was submitted
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert run(None).returncode != 0 and run("2").returncode == 2
    result = run("1")
    assert result.returncode == 0, result.stderr
    assert not list(workplace.rglob("no"))
    [metrics] = (workplace / "saved").rglob("metrics.json")
    assert json.loads(metrics.read_text())["seed"] == 1
    assert metrics.parent.parent.name == "seed-1" and metrics.parents[2].name == "one"

    code, output = study(*one, "--sbatch", jobs)
    assert code == 0 and "1 of 2" in output
    assert "--array=0-0\n" in script.read_text() and "--group_seed 0" in script.read_text()
    assert study(*one)[0] == 0 and len(trained) == 1
    assert "is done" in study(*one, "--sbatch", jobs)[1]


SRUN = """\
#!/bin/bash
shift
for rank in 0 1 2 3; do SLURM_PROCID=$rank SLURM_LOCALID=$((rank % 2)) "$@" || exit 1; done
exit 143
"""
PROGRAM = """\
#!/bin/bash
echo "$SRUN_CPUS_PER_TASK" >> processors
echo "$RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT $*" >> ran
"""
SCONTROL = """\
#!/bin/bash
echo "$*" >> asked
if [ "$2" = hostnames ]; then echo here; echo there; else echo JobState=RUNNING; fi
"""


def test_a_job_may_have_several_gpus_and_nodes(tmp_path: Path) -> None:
    limits = Limits(gpus=2, nodes=2)
    script = write_job_array(tmp_path, "many", [["train.py", "--config", "a b"]], limits)
    head = re.findall(r"^#SBATCH (.*)$", script.read_text(), re.MULTILINE)
    assert {"--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2"} <= set(head)
    programs = {"srun": SRUN, "scontrol": SCONTROL, "python": PROGRAM}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"ARRAY_TASK_ID": "0", "ARRAY_JOB_ID": "7", "JOB_ID": "12345"}
    slurm |= {"NTASKS": "4", "JOB_NUM_NODES": "2", "JOB_NODELIST": "here,there"}
    slurm |= {"CPUS_PER_TASK": "6"}
    environment = os.environ | {f"SLURM_{name}": value for name, value in slurm.items()}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python"}
    done = subprocess.run([shutil.which("bash"), script], cwd=tmp_path, env=environment)
    assert done.returncode == 143, "the code of the processes is that of the task"
    assert (tmp_path / "ran").read_text().splitlines() == [
        f"{rank} 4 {rank % 2} 2 here 22345 train.py --config a b" for rank in range(4)
    ]
    assert "requeue 7_0" in (tmp_path / "asked").read_text()
    assert (tmp_path / "processors").read_text().split() == ["6"] * 4


NODES = """\
#!/bin/bash
shift
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=0 SLURM_NODEID=$rank "$@" & tasks+=($!); done
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit "${code:-0}"
"""


def test_two_nodes_train_what_one_process_trains(
    workplace: Path, study: Study, trained: list, tmp_path: Path
) -> None:
    path = workplace / "configs/tiny/train-ce.json"
    change(path, "optimizer", type="SGD")
    one = ("--configs", path, "--seeds", "3")
    code, output = study(*one, "--sbatch", "jobs", "--sbatch_gpus=1", "--sbatch_nodes=2")
    assert code == 0, output
    scontrol = "#!/bin/bash\necho 127.0.0.1\necho 127.0.0.1\n"
    for name, text in {"srun": NODES, "scontrol": scontrol}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"ARRAY_TASK_ID": "0", "ARRAY_JOB_ID": "7", "JOB_ID": str(free_port() - 20000)}
    slurm |= {"NTASKS": "2", "JOB_NUM_NODES": "2", "JOB_NODELIST": "127.0.0.[1-1]"}
    environment = os.environ | {f"SLURM_{name}": value for name, value in slurm.items()}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable}
    environment |= {"GLOO_SOCKET_IFNAME": "lo"}
    script = workplace / "jobs" / "configs.sbatch"
    done = subprocess.run(
        ["bash", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "rror" not in done.stderr, done.stderr
    [of_two] = (workplace / "saved").rglob("metrics.json")
    found = json.loads(of_two.read_text())
    shutil.rmtree(workplace / "saved")
    assert study(*one)[0] == 0 and len(trained) == 1
    [of_one] = (workplace / "saved").rglob("metrics.json")
    expected = json.loads(of_one.read_text())
    assert found["test"] == expected["test"] and found["seed"] == expected["seed"] == 3
    assert found["epochs"][0]["loss"] == pytest.approx(expected["epochs"][0]["loss"], abs=1e-6)


def free_port() -> int:
    """Find a port among those that jobs take."""
    for port in range(20000 + os.getpid() % 9000, 30000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "what to run"),
        (["--study", "parts"], "what to run"),
        (["--study", "prts", "--dataset", "tiny"], '"parts"'),
        (["--study", "parts", "--dataset", "tin"], '"tiny"'),
        ([*TINY, "--configs", "a.json"], "--configs"),
        (["--study", "parts", "--dataset", "other"], "configs/other/train-moee.json"),
        (["--configs", "configs/tiny/train-cee.json"], "train-ce.json"),
        (["--configs", *["configs/tiny/train-ce.json"] * 2], "twice"),
        ([*TINY, "--seeds", "0,x"], "--seeds"),
        ([*TINY, "--custom_args", "trainer.epoch@1"], '"trainer.epochs"'),
        ([*TINY, "--sbatch", "jobs", "--sbatch_option=rm"], "option of sbatch"),
        ([*TINY, "--sbatch", "jobs", "--sbatch_option=--a=b\nrm"], "option of sbatch"),
        ([*TINY, "--sbatch", "jobs", "--sbatch_time=soon"], '"12:00:00"'),
        ([*TINY, "--sbatch", "jobs", "--sbatch_time=1:00\nrm"], '"12:00:00"'),
        ([*TINY, "--sbatch", "jobs", "--sbatch_memory=much"], '"32G"'),
        ([*TINY, "--sbatch", "jobs", "--sbatch_notice=0"], "--sbatch_notice takes seconds"),
        ([*TINY, "--sbatch", "jobs", "--sbatch_nodes=2"], "several nodes need both"),
        ([*TINY, "--sbatch", "jobs", "--sbatch_gpus=2", "--device", "0"], "leave --device out"),
        ([*TINY, "--sbatch", 'a"b'], "choose another"),
        ([*TINY, "--sbatch", "configs/tiny/train-ce.json"], "Cannot create"),
    ],
)
def test_wrong_input_gets_one_sentence_and_trains_nothing(
    workplace: Path, trained: list, study: Study, arguments: list[str], sentence: str
) -> None:
    code, output = study(*arguments)
    assert code == 2 and sentence in output and "Traceback" not in output
    assert output.startswith("error: ") and output.count("\n") == 1
    assert not trained and not (workplace / "saved").exists() and not Path("jobs").exists()


@pytest.mark.parametrize("flag", ["--group_id=../up", "--columns=R3", "--sedes=1"])
def test_wrong_flags_are_refused(workplace: Path, trained: list, flag: str) -> None:
    with pytest.raises(SystemExit) as stop:
        study_program.main([*TINY, flag])
    assert stop.value.code == 2 and not trained


def shipped() -> list[tuple[str, str]]:
    studies = [
        json.loads(path.read_text()) for path in sorted(misc.results.studies.FOLDER.glob("*.json"))
    ]
    return [
        (name, dataset)
        for name, content in zip(study_names(), studies, strict=True)
        for dataset in content["datasets"]
    ]


@pytest.mark.parametrize(("name", "dataset"), shipped())
def test_the_configs_of_shipped_studies_are_different_experiments(
    name: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    loaded = load_study(name, dataset)
    configs = [Config.from_file(path) for path in loaded.configs.values()]
    values = [config.stored() for config in configs]
    assert len({json.dumps(v, sort_keys=True) for v in values}) == len(values) > 1
    assert loaded.title and loaded.row
