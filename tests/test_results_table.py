"""Tables of results: which runs count, what they come to, how they are written."""

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import misc.results_table as table_program
import train as train_program
from misc.results.tables import (
    Cell,
    Table,
    as_latex,
    as_markdown,
    difference_in_std,
    escape_latex,
    escape_markdown,
)
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from utils.command_line import run_main

Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Run the table's program; returns its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_main(table_program.main, [str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def measured(recall: float, median: float = 2.0) -> dict:
    row = {"R1": recall, "R5": recall + 20, "R10": recall + 30, "MedR": median}
    return {"t2v_metrics": row, "v2t_metrics": {name: value + 1 for name, value in row.items()}}


def add_run(
    saved: Path,
    experiment: str,
    when: str,
    seed: int | None = 0,
    test: dict | None = None,
    config: dict | None = None,
    **others: object,
) -> Path:
    """Write what a finished training leaves of its numbers; returns the folder of its log."""
    log = saved / "log" / experiment / when
    log.mkdir(parents=True)
    metrics = {"name": experiment, "seed": seed, "parameters": 2_550_000, "epochs": []}
    metrics |= {"test_split": "full-test", "test": test} if test else {}
    metrics = {key: value for key, value in (metrics | others).items() if value is not None}
    write_json(log / "metrics.json", metrics)
    if config is not None:
        models = saved / "models" / experiment / when
        models.mkdir(parents=True)
        write_json(models / "config.json", config | {"experiment_name": experiment})
    return log


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table, heads first."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line.strip("|").replace("\\", "").split("|") for line in lines if "---" not in line]


def column(text: str, head: str) -> list[str]:
    heads, *rows = [[cell.strip() for cell in row] for row in cells(text)]
    return [row[heads.index(head)] for row in rows]


def test_trained_seeds_and_group_jobs_come_to_one_row(show: Show, tmp_path: Path) -> None:
    values = tiny_config(make_tiny_set(tmp_path / "set"), tmp_path / "saved")
    values["trainer"] |= {"epochs": 1, "tensorboard": False}
    (tmp_path / "tiny").mkdir()
    config = write_json(tmp_path / "tiny" / "train-ce.json", values)
    jobs = [["--group_id", "g", "--group_seed", seed] for seed in ("2", "1")]
    for flags in (["--seeds", "0,1"], *jobs):
        assert run_main(train_program.main, ["--config", str(config), *flags]) == 0
    log = tmp_path / "saved" / "log" / "tiny-train-ce"
    tests = {}
    for path in sorted(log.rglob("metrics.json"), key=lambda path: path.parent.name):
        metrics = json.loads(path.read_text())
        tests[metrics["seed"]] = metrics["test"]
    assert sorted(tests) == [0, 1, 2]

    code, folder_table, notes = show(log)
    assert code == 0 and not notes
    assert column(folder_table, "seeds") == ["3"]
    for direction in ("t2v", "v2t"):
        for metric, title in (("R1", "R@1"), ("R10", "R@10"), ("MedR", "MedR")):
            sample = [test[f"{direction}_metrics"][metric] for test in tests.values()]
            expected = f"{statistics.fmean(sample):.1f} ({statistics.stdev(sample):.1f})"
            assert column(folder_table, f"{direction} {title}") == [expected]
    assert show(config)[1] == folder_table
    assert column(show(config, "--seeds", "1,2")[1], "seeds") == ["2"]
    assert show(tmp_path / "saved" / "log")[1] == folder_table

    values["optimizer"]["args"]["lr"] = 0.02
    write_json(config, values)
    code, text, notes = show(config)
    assert code == 0 and column(text, "seeds") == ["0"] and column(text, "t2v R@1") == ["-"]
    assert notes.count("was made with other values than the config has") == 4


def test_the_newest_run_of_each_seed_counts(show: Show, tmp_path: Path) -> None:
    for number, recall in (("", 10), ("_2", 20), ("_10", 30)):
        add_run(tmp_path, "tiny-a", f"2026-01-01_00-00-00{number}", test=measured(recall))
    add_run(tmp_path, "tiny-a", "g/seed-1/2025-01-01_00-00-00", seed=1, test=measured(50))
    _, text, notes = show(tmp_path / "log" / "tiny-a")
    assert column(text, "t2v R@1") == ["40.0 (14.1)"] and not notes


def test_corrected_metrics_are_lines_of_their_own(show: Show, tmp_path: Path) -> None:
    def corrected(recall: float, by: float) -> dict:
        others = measured(recall + by)
        return measured(recall) | {f"{name}_corrected": of for name, of in others.items()}

    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-00", seed=0, test=corrected(10, 5))
    add_run(tmp_path, "tiny-a", "2026-01-02_00-00-00", seed=1, test=corrected(20, 5))
    add_run(tmp_path, "tiny-b", "2026-01-01_00-00-00", test=corrected(12, 1))
    add_run(tmp_path, "tiny-c", "2026-01-01_00-00-00", test=measured(11))
    _, text, _ = show(tmp_path / "log")
    labels = [f"tiny-{x}" for x in ("a", "a, hubs corrected", "b", "b, hubs corrected", "c")]
    assert column(text, "experiment") == labels
    found = ["**15.0 (7.1)**", "**20.0 (7.1)**", "12.0", "13.0", "11.0"]
    assert column(text, "t2v R@1") == found
    assert column(text, "v2t R@1")[:2] == ["**16.0 (7.1)**", "**21.0 (7.1)**"]
    _, tasks, _ = show(tmp_path / "log", "--rows", "tasks")
    assert column(tasks, "R@1")[:5] == found
    # A seed that was tested before there was a correction leaves the line without a mean.
    add_run(tmp_path, "tiny-a", "2026-01-03_00-00-00", seed=2, test=measured(30))
    _, text, _ = show(tmp_path / "log")
    assert column(text, "experiment")[:2] == ["tiny-a", "tiny-b"]
    assert "corrected" not in show(tmp_path / "log" / "tiny-c")[1]


def test_splits_are_never_mixed(show: Show, tmp_path: Path) -> None:
    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-00", seed=0, test=measured(10))
    other = {"test_split": "jsfusion"}
    add_run(tmp_path, "tiny-a", "2026-01-02_00-00-00", seed=1, test=measured(30), **other)
    _, text, _ = show(tmp_path / "log" / "tiny-a")
    assert column(text, "experiment") == ["tiny-a (full-test)", "tiny-a (jsfusion)"]
    assert column(text, "t2v R@1") == ["10.0", "**30.0**"]


def test_a_split_can_be_asked_for(show: Show, tmp_path: Path) -> None:
    def tests(recall: float) -> list[dict]:
        of = {"test_split": "full-val", "test": measured(recall)}
        worse = {"test_split": "full-val", "test": measured(1)}
        return [
            of | {"checkpoint": "trained_model.pth"},
            worse | {"checkpoint": "checkpoint-epoch3.pth"},
        ]

    final = measured(10)
    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-00", test=final, tests=tests(40))
    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-01", seed=1, test=final, tests=tests(50))
    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-02", seed=2, test=final)
    _, text, notes = show(tmp_path / "log", "--split", "full-val")
    assert column(text, "t2v R@1") == ["45.0 (7.1)"]
    assert notes.count('has no test on "full-val"') == 1
    code, text, notes = show(tmp_path / "log", "--split", "full-vel")
    assert code == 0 and column(text, "seeds") == ["0"] and "no run" in notes


def test_what_does_not_count_is_said(show: Show, tmp_path: Path) -> None:
    new, old = {"optimizer": {"args": {"lr": 1}}}, {"optimizer": {"args": {"lr": 2}}}
    good = {"experiment": "tiny-a", "test": measured(10)}
    add_run(tmp_path, when="2026-01-01_00-00-00", seed=0, config=old, **good)
    add_run(tmp_path, when="2026-01-01_00-00-01", seed=1, config=new, **good)
    add_run(tmp_path, when="2026-01-01_00-00-02", seed=2, config=new, **good)
    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-03", seed=None, name=None, config=new)
    quick = measured(90)
    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-04", seed=2, test=quick, quick_try=True)
    alone = {"name": None, "epochs": None, "parameters": None}
    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-05", seed=None, test=measured(90), **alone)
    _, text, notes = show(tmp_path / "log" / "tiny-a")
    assert column(text, "seeds") == ["2"] and column(text, "t2v R@1") == ["10.0 (0.0)"]
    reasons = ("00 was made with other values", "03 has not come to its test yet")
    for reason in (*reasons, "04 is a quick try", "05 is a test alone"):
        assert f"00-00-{reason}" in notes
    assert len(notes.splitlines()) == 4


def test_an_experiment_without_any_test_is_a_row_of_dashes(show: Show, tmp_path: Path) -> None:
    add_run(tmp_path, "tiny-a", "2026-01-01_00-00-00", seed=None, name=None)
    add_run(tmp_path, "tiny-b", "2026-01-01_00-00-00", test=measured(10))
    code, text, notes = show(tmp_path / "log")
    assert code == 0 and "test yet" in notes
    assert column(text, "experiment") == ["tiny-a", "tiny-b"]
    assert column(text, "v2t R@5") == ["-", "31.0"]


def test_a_tested_checkpoint_alone_is_a_row(show: Show, tmp_path: Path) -> None:
    alone = {"seed": None, "name": None, "epochs": None, "parameters": None}
    log = add_run(tmp_path, "tiny-a", "2026-01-01_00-00-00", test=measured(10), **alone)
    _, text, notes = show(log)
    assert cells(text)[1][:3] == [" tiny-a ", " - ", " 1 "] and not notes


def test_the_best_of_each_column_is_bold(show: Show, tmp_path: Path) -> None:
    for name, recall, median in (("a", 10.04, 3), ("b", 10.02, 2), ("c", 9, 2.5)):
        add_run(tmp_path, f"tiny-{name}", "2026-01-01_00-00-00", test=measured(recall, median))
    _, text, _ = show(tmp_path / "log")
    assert column(text, "t2v R@1") == ["**10.0**", "**10.0**", "9.0"]
    assert column(text, "t2v MedR") == ["3.0", "**2.0**", "2.5"]
    _, text, _ = show(tmp_path / "log", "--format", "latex", "--rows", "tasks")
    assert text.count(r"\textbf{10.0}") == 2 and text.count(r"\textbf{2.0}") == 1
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [line.split(" & ")[1] for line in lines] == ["task", *["t2v"] * 3, *["v2t"] * 3]
    assert text.startswith(r"\begin{tabular}{llrrrrrr}")


def test_published_rows_stand_below_ours(show: Show, tmp_path: Path) -> None:
    for seed, recall in enumerate((10.0, 10.2, 10.4)):
        test = measured(recall, median=16)
        add_run(tmp_path, "msrvtt-train-full-ce", f"2026-01-01_00-00-0{seed}", seed, test)
    flags = ["--columns", "R@1,MedR,MeanR"]
    _, text, _ = show(tmp_path / "log", *flags)
    # Two publications have a result of that name, with other features.
    names = ["published: Collaborative Experts", "published: TeachText"]
    difference = "difference / std"
    expected = ["msrvtt-train-full-ce", names[0], difference, names[1], difference]
    assert column(text, "experiment") == expected
    assert column(text, "parameters") == ["2.55M", "183.45M", "", "-", ""]
    # 0.2 over the root of (0.2^2 + 0.1^2) / 2; where nothing deviates there is no unit
    assert column(text, "t2v R@1") == ["10.2 (0.2)", "10.0 (0.1)", "+1.3", "11.0 (0.0)", "-5.7"]
    assert column(text, "t2v MedR") == ["16.0 (0.0)", "16.0 (0.0)", "+0.0", "15.0 (0.0)", "-"]
    assert column(text, "t2v MeanR")[::2] == ["-", "-", "-"]
    assert column(text, "v2t R@1")[1:] == ["15.6 (0.3)", "-17.3", "-", "-"]
    assert "$-$17.3" in show(tmp_path / "log", *flags, "--format", "latex")[1]
    assert "published" not in show(tmp_path / "log", *flags, "--no_published")[1]


def test_published_rows_belong_to_the_final_test_alone(show: Show, tmp_path: Path) -> None:
    tests = [{"test_split": "full-val", "test": measured(1), "checkpoint": "trained_model.pth"}]
    name = "msrvtt-train-full-ce"
    add_run(tmp_path, name, "2026-01-01_00-00-00", test=measured(10), tests=tests)
    assert "published" in show(tmp_path / "log")[1]
    assert "published" not in show(tmp_path / "log", "--split", "full-val")[1]


numbers = st.lists(st.floats(0, 100), min_size=2, max_size=6)


@given(numbers, numbers)
def test_differences_are_in_pooled_deviations(own: list[float], other: list[float]) -> None:
    def summary(sample: list[float]) -> dict[str, float]:
        return {"mean": statistics.fmean(sample), "std": statistics.stdev(sample)}

    found = difference_in_std(summary(own), len(own), summary(other), len(other))
    squares = [(x - statistics.fmean(sample)) ** 2 for sample in (own, other) for x in sample]
    pooled = (sum(squares) / (len(own) + len(other) - 2)) ** 0.5
    if pooled > 1e-6:
        expected = (statistics.fmean(own) - statistics.fmean(other)) / pooled
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_one_run_is_measured_by_the_deviation_of_the_others() -> None:
    assert difference_in_std({"mean": 11, "std": None}, 1, {"mean": 10, "std": 0.5}, 3) == 2
    assert difference_in_std({"mean": 11, "std": 0.0}, 3, {"mean": 10, "std": 0.0}, 3) is None
    assert difference_in_std({"mean": 10, "std": None}, 1, {"mean": 10, "std": 0.0}, 3) == 0


@given(st.text())
def test_any_name_keeps_its_place_in_a_table(name: str) -> None:
    table = Table(["a", "b"], [[Cell(name), Cell("1.0", is_best=True)]])
    heads, _, row = as_markdown(table).split("\n")
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert "<" not in re.sub(r"\\<", "", row)
    lines = as_latex(table).split("\n")
    assert len(lines) == 7 and lines[4].endswith(r" & \textbf{1.0} \\")
    assert len(re.findall(r"(?<!\\)&", lines[4])) == 1
    bare = re.sub(r"\\[&%$#_{}]", "", lines[4])
    assert not set(bare) & set("%#_~^") and bare.count("{") == bare.count("}")
    assert heads == "| a | b |"


def test_names_are_written_as_they_are_read() -> None:
    assert escape_latex("50%_a&b {x} ~^\\") == (
        r"50\%\_a\&b \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert escape_markdown("a|b*c_d\ne<f>") == r"a\|b\*c\_d e\<f\>"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "what to show"),
        (["no/such/folder"], "no/such/folder"),
        (["configs/demo/train-full-cee.json"], "train-full-ce.json"),
        (["--study", "components"], "--study and --dataset"),
        (["--study", "componets", "--dataset", "demo"], '"components"'),
        (["--study", "components", "--dataset", "dmo"], '"demo"'),
    ],
)
def test_wrong_command_lines_get_one_sentence(
    show: Show, arguments: list[str], sentence: str
) -> None:
    code, output, error = show(*arguments)
    assert code == 2 and sentence in error and not output
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(("flag", "value"), [("--columns", "R2"), ("--format", "html")])
def test_wrong_flags_are_refused(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        table_program.main(["somewhere", flag, value])
    assert stop.value.code == 2 and value in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"seed": 0, "test": [1], "test_split": "a"}',
        '{"seed": 0, "test": {"t2v_metrics": {"R1": "best"}}}',
        '{"seed": 0, "test": {"t2v_metrics": {"R1": NaN}}}',
        '{"seed": 0, "test": {"t2v_metrics": 3}}',
        '{"seed": 0, "test": {}, "test_split": "b", "tests": [1]}',
    ],
)
def test_damaged_metrics_are_refused(show: Show, tmp_path: Path, content: str) -> None:
    log = add_run(tmp_path, "tiny-a", "2026-01-01_00-00-00")
    (log / "metrics.json").write_text(content)
    split = ["--split", "a"] if "test_split" in content else []
    code, _, error = show(tmp_path / "log", *split)
    assert code == 2 and "metrics.json" in error and "Traceback" not in error
