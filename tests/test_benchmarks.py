"""The benchmarks run, and what they compare is the same work; no time is measured here."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from misc.benchmarks import gpu, gpu_check, growth, synthetic, workloads
from misc.benchmarks.__main__ import main
from misc.benchmarks.measure import ROOT, Figures, Job, WorkError, measure, measured
from misc.benchmarks.peak import Products
from misc.benchmarks.workloads import WORKLOADS
from tests.tiny_set import write_json
from trainer.build import build_loader
from trainer.evaluation.evaluate import similarity_blocks
from utils.errors import UserError


def small_settings(name: str, folder: Path) -> dict[str, Any]:
    """Settings of a workload; its config has few experts."""
    settings = WORKLOADS[name].settings
    return (
        settings | {"path": few_experts(settings["path"], folder)}
        if "path" in settings
        else settings
    )


def few_experts(path: str | Path, folder: Path) -> str:
    """A config that inherits from another; MoEE of all MSRVTT's experts would take gigabytes."""
    config = {
        "inherit_from": str(path),
        "experts": {"modalities": ["face", "ocr", "audio", "speech"]},
        "loss": {"args": {"margin": 1}},  # more than a few steps reach
    }
    return str(write_json(folder / "few.json", config))


@pytest.fixture
def small_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set's config has 183M parameters."""
    monkeypatch.setattr(synthetic, "config_of", partial(synthetic.config_of, size=32))


@pytest.mark.parametrize("name", ["step-ce", "step-moee"])
def test_the_plain_step_learns_the_same(name: str, tmp_path: Path) -> None:
    settings = small_settings(name, tmp_path)
    ours, plain = (workloads.step(0.1, **settings, **more) for more in ({}, {"plain": True}))
    losses = [(ours.run()[0].item(), plain.run().item()) for _ in range(3)]
    for one, other in losses:
        assert one == pytest.approx(other, rel=1e-4)
    assert len({one for one, _ in losses}) == 3


@pytest.mark.usefixtures("small_embeddings")
def test_the_plain_evaluation_gives_the_same_similarities() -> None:
    sizes = {"videos": 4, "captions": 2, "repeats": 1}
    ours, plain = (workloads.evaluation(1, **sizes, plain=is_plain) for is_plain in (False, True))
    torch.testing.assert_close(ours.run().sims, plain.run(), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("small_embeddings")
@pytest.mark.parametrize("name", [n for n in WORKLOADS if not n.startswith(("import", "test"))])
def test_every_workload_is_done_and_measured(name: str, tmp_path: Path) -> None:
    job = WORKLOADS[name].prepare(0.002, **small_settings(name, tmp_path))
    *between, figures = measured(job)
    assert between == [None] * (job.warmups + job.repeats)
    assert len(figures.runs) == job.repeats and min(figures.runs) >= 0
    assert (figures.products is None) == (job.products is None)
    assert figures.products is None or figures.products > 0


@pytest.mark.slow
def test_the_table_has_a_row_for_each_workload(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--scale", "0.001", "--only", "metrics", "later-start"])
    head, rule, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.startswith("| workload | plain | ours | ratio | published |")
    assert {line.count("|") for line in (head, rule, *rows)} == {9}
    titles = [WORKLOADS[name].title for name in ("metrics", "later-start")]
    assert [row.split(" | ")[0] for row in rows] == [f"| {title}" for title in titles]


@pytest.mark.slow
def test_another_checkout_does_the_same_work_or_is_said_to_lack_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    for name in ("configs", "data_loader", "logger", "misc", "trainer", "utils", "train.py"):
        (before / name).symlink_to(ROOT / name)
    (before / "model").mkdir()
    (before / "model" / "metric.py").write_text(
        "def t2v_metrics(sims, masks):\n    open('used', 'w').close()\nv2t_metrics = t2v_metrics\n"
    )
    main(["--scale", "0.005", "--only", "metrics", "later-start", "--beside", str(before)])
    out = capsys.readouterr().out
    metrics, start = (line.split(" | ") for line in out.splitlines()[2:4])
    assert (before / "used").exists() and "-" not in metrics[1:4]
    assert start[1] == "-" and start[2] != "-" and start[3] == "-"
    assert f"{WORKLOADS['later-start'].title}, there: it ended with the code 1: " in out


def test_workloads_are_listed_and_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(["--list"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*WORKLOADS]
    for arguments, message in (
        (["--only", "metric"], 'no workload "metric"'),
        (["--scale", "0"], "--scale"),
        (["--threads", "0"], "--threads"),
        (["--beside", str(tmp_path)], "--beside takes the folder of another checkout"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)


def test_a_part_of_a_workload_is_extrapolated() -> None:
    done = []
    job = Job(lambda: done.append(sum(range(10**5))), repeats=3, facts={"parameters": 7})
    whole = list(measured(job))[-1]
    assert len(done) == 4  # one that does not count
    assert isinstance(whole, Figures) and len(whole.runs) == 3 and whole.facts == job.facts
    part = list(measured(Job(job.run, repeats=3, part=1e-3)))[-1]
    assert isinstance(part, Figures) and part.seconds > 10 * whole.seconds


def test_matrix_products_are_noted_with_their_shapes_and_measured() -> None:
    x, layer = torch.randn(2, 3, 4, requires_grad=True), torch.nn.Linear(4, 5)
    with Products() as products:
        layer(x).sum().backward()
        with torch.inference_mode():
            F.linear(x, layer.weight)
            torch.bmm(x.detach(), x.detach().mT)
            if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
                torch.ops.mkldnn._linear_pointwise(x[0], layer.weight, None, "none", [], "")
    rows = {shape[:3]: count for shape, count in products.shapes.items()}
    assert rows[6, 4, 5] == 2  # forward, and in inference mode
    assert rows[6, 5, 4] == rows[5, 6, 4] == 1  # the gradients of x and of the weights
    assert rows[3, 4, 3] == 2
    assert rows.get((3, 4, 5), 1) == 1
    assert 0 < products.seconds() < 1


def test_a_process_that_dies_is_told() -> None:
    [found] = measure("workloads.step", {"scale": 1, "path": "no-such-config.json"})
    assert isinstance(found, WorkError) and "no-such-config.json" in str(found)


def test_the_synthetic_data_set_loads_and_is_packed(tmp_path: Path) -> None:
    synthetic.make_files(tmp_path, train=6, test=3)
    loader = build_loader(synthetic.config_of(tmp_path), 0)
    assert {expert.name for expert in loader.experts} == set(synthetic.EXPERTS)
    assert loader.retrieval.query_masks.shape == (3, synthetic.CAPTIONS)
    packed = {path.name.rsplit("-", 1)[0] for path in (tmp_path / ".cache").iterdir()}
    assert packed == {f"expert-{name}" for name in synthetic.EXPERTS} | {"text-text", "captions"}


def test_a_killed_benchmark_leaves_no_files(tmp_path: Path) -> None:
    code = "from misc.benchmarks.synthetic import temporary_files as make\nmake(2, 1)\ninput(1)"
    with _program(code, TMPDIR=str(tmp_path)) as program:
        assert program.stdout.read(1) == b"1"
        [folder] = tmp_path.iterdir()
        assert (folder / "dataset.json").exists()
        program.kill()
        program.communicate(timeout=60)  # to the end of all that share its error output
    assert not any(tmp_path.iterdir())


def test_work_ends_with_the_program_that_asked_for_it() -> None:
    code = (
        "import subprocess, sys\n"
        "from misc.benchmarks.measure import end_with_parent\n"
        "work = 'import signal; print(1, flush=True); signal.pause()'\n"
        "subprocess.run([sys.executable, '-c', work], preexec_fn=end_with_parent)"
    )
    with _program(code) as program:
        assert program.stdout.read(1) == b"1"
        program.kill()
        program.communicate(timeout=60)  # to the end of the work too, which shares its output


def _program(code: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_first_start_is_a_first_one_each_time() -> None:
    job = workloads.loading(0.002, is_first=True)
    for _ in range(2):
        job.run()
        job.undo()


def test_growth_compares_all_pairs_or_says_that_it_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = []

    def counted(*arguments):
        for block in similarity_blocks(*arguments):
            rows.append(len(block))
            yield block

    monkeypatch.setattr("trainer.evaluation.evaluate.QUERIES_PER_BLOCK", 10)
    monkeypatch.setattr("trainer.evaluation.evaluate.similarity_blocks", counted)
    for most_pairs, compared in ((2025, 45), (1000, 30)):
        monkeypatch.setattr(growth, "MOST_PAIRS", most_pairs)
        job = growth.evaluation(45)
        job.run()
        assert job.part == pytest.approx(compared / 45)
        assert sum(rows) == 2 * compared  # both ways
        rows.clear()


def test_growth_draws_its_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def in_this_process(function: str, settings: dict[str, int]) -> list[Figures | None]:
        return list(measured(getattr(growth, function.partition(".")[2])(**settings)))[-1:]

    monkeypatch.setattr(growth, "measure", in_this_process)
    for size in ("EMBEDDING_SIZE", "SHARED_SIZE"):
        monkeypatch.setattr(growth, size, 8)
    growth.main(["--most_videos", "1000", "--most_experts", "2", "--folder", str(tmp_path)])
    plots = sorted(path.name for path in tmp_path.iterdir())
    assert plots == ["growth-evaluation.png", "growth-experts.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in plots)
    assert "| 1,000 |" in capsys.readouterr().out
    assert growth.video_counts(5000) == [1000, 2000, 4000, 5000]


def test_a_training_is_measured_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--epochs", "2", "--scale", "0.003", "--modes", "float32"])
    lines = capsys.readouterr().out.splitlines()
    [row] = [line for line in lines if line.startswith("| float32")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["float32", "2"] and float(cells[3]) > 0


def test_a_device_is_checked_against_the_host(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (("STEPS", 1), ("BATCH", 3), ("SIZE", 8), ("GATINGS", {})):
        monkeypatch.setattr(gpu_check, name, value)
    monkeypatch.setattr(gpu_check, "CONFIG", few_experts(gpu_check.CONFIG, tmp_path))
    arguments = ["--device", "cpu", "--precision", "float32", "--no_compile"]
    gpu_check.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and all(line.startswith("ok ") for line in lines[:-1])
    monkeypatch.setattr(gpu_check, "NEAR", {"float32": -1.0})
    with pytest.raises(UserError, match="7 of 9 checks failed: MoEE, RAdam"):
        gpu_check.main(arguments)
