"""The benchmarks run, and their plain formulations do what ours does; no time is measured here."""

import atexit
import itertools
import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.benchmarks import feature_store, growth_measures, plain_model, synthetic
from misc.benchmarks.__main__ import main
from misc.benchmarks.measure import Job, Meter, count_flops, in_own_process, measure
from misc.benchmarks.metrics import sorted_ranks
from misc.benchmarks.table import Row, markdown
from misc.benchmarks.workloads import WORKLOADS
from model.ce_net import CENet
from model.metric import t2v_metrics, v2t_metrics
from model.ranks import blocks_of, compute_ranks
from model.similarity import similarity
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.build import build_loader
from utils.config import Config
from utils.errors import UserError


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_sorted_ranks_are_our_ranks(videos: int, captions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sims = rng.integers(0, 9, (videos * captions, videos)).astype(np.float32)
    masks = rng.integers(0, 2, (videos, captions)).astype(np.float32)
    masks[:, 0] = 1
    t2v, v2t = sorted_ranks(sims, masks)
    ranks = compute_ranks(blocks_of(torch.from_numpy(sims)), torch.from_numpy(masks))
    assert ranks.t2v.tolist() == t2v
    assert ranks.v2t.tolist() == v2t
    assert t2v_metrics(sims, masks)["MeanR"] == pytest.approx(np.mean(t2v))
    assert v2t_metrics(sims, masks)["MeanR"] == pytest.approx(np.mean(v2t))


def test_the_plain_model_is_our_model(tmp_path: Path) -> None:
    values = tiny_config(make_tiny_set(tmp_path / "set"), tmp_path)
    config = Config.from_file(write_json(tmp_path / "config.json", values))
    retrieval = build_loader(config, 0).retrieval
    experts, ind = plain_model.collate_videos(retrieval)
    text = plain_model.collate_texts(retrieval, len(retrieval))
    [ours] = retrieval.video_blocks(len(retrieval))
    [texts] = retrieval.text_blocks(len(retrieval))
    assert torch.equal(text, texts.text.flatten(0, 1).unsqueeze(1))
    for name, values in ours.experts.items():
        assert torch.equal(experts[name], values)
        assert torch.equal(ind[name], ours.ind[name])
    torch.manual_seed(0)
    # Every expert comes as one vector: its mean, where it varies in length.
    experts = {name: x if x.dim() == 2 else x.mean(dim=1) for name, x in experts.items()}
    net = CENet(
        expert_dims={name: (x.shape[1], 8) for name, x in experts.items()},
        text_dim=text.shape[-1],
        vlad_clusters={"text": 3},
        use_ce="pairwise",
    ).eval()
    with torch.inference_mode():
        video, captions = net.encode_video(experts, ind), net.encode_text(text)
        embeddings, availability = plain_model.encode_videos(net, experts, ind)
        for plain, embedded in zip(embeddings, video.embeddings, strict=True):
            torch.testing.assert_close(plain, embedded)
        sims = plain_model.similarities(captions, embeddings, availability)
        torch.testing.assert_close(sims, similarity(captions, video))


@pytest.mark.slow
def test_the_table_has_a_row_for_each_workload(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--scale", "0.001", "--only", "metrics", "later-start"])
    head, rule, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.startswith("| workload | reference, cpu-s | ours, cpu-s | ratio |")
    assert {line.count("|") for line in (head, rule, *rows)} == {8}
    assert [row.split(" | ")[0] for row in rows] == [
        "| t2v and v2t metrics, 59,800 x 2,990",
        "| loading it again",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_every_workload_can_be_prepared_and_done(workload) -> None:
    sides = [workload.ours, workload.reference]
    if workload.name.startswith("import"):
        sides = sides[:1]  # the other side loads everything, for seconds
    if workload.name == "test":
        sides = []  # as "validation", with more captions
    for prepare in filter(None, sides):
        job = prepare(0.001)
        job.run()
        for after in filter(None, (job.undo, job.close)):
            after()
        assert 0 < job.part <= 1


def test_workloads_are_listed_and_unknown_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [workload.name for workload in WORKLOADS]
    with pytest.raises(UserError, match='no workload "metric"'):
        main(["--only", "metric"])
    with pytest.raises(UserError, match="--scale"):
        main(["--scale", "0"])


def test_a_part_of_a_workload_is_extrapolated_and_marked() -> None:
    done = []
    job = Job(lambda: done.append(1), flops=5e8, repeats=3, part=0.5, needed=7e9, note="half of it")
    figures = measure(lambda scale: job, 0.001)
    assert len(done) == 4  # one that does not count
    assert figures.flops == 1e9
    table = markdown([Row("work", figures, figures)], threads=1, scale=1.0)
    assert "| ≈ 7 GB | ≈ 7 GB |" in table
    assert "of 1 GFLOP |" in table
    assert "half of it" in table


def test_a_side_that_stands_in_several_rows_is_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = itertools.count(1)
    monkeypatch.setattr("misc.benchmarks.measure.in_own_process", lambda *a, **k: next(numbers))
    meter = Meter()
    first, again = partial(_job, size=3), partial(_job, size=3)
    assert meter.figures(first) == meter.figures(again) == 1
    assert meter.figures(partial(_job, size=4)) == 2


def _job(scale: float, size: int) -> Job:
    return Job(lambda: torch.ones(size, size) @ torch.ones(size, size))


def test_operations_of_matrix_products_are_counted() -> None:
    assert count_flops(_job(1, size=3).run) == 2 * 3**3


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(UserError, match="code 3"):
        in_own_process(os._exit, 3)


def test_the_synthetic_data_set_loads_and_is_packed(tmp_path: Path) -> None:
    synthetic.make_files(tmp_path, train=6, test=3)
    loader = synthetic.open_loader(tmp_path, Config.from_file(synthetic.CONFIG))
    assert [expert.name for expert in loader.experts] == sorted(synthetic.EXPERTS)
    assert loader.retrieval.query_masks.shape == (3, synthetic.CAPTIONS)
    packed = {path.name.rsplit("-", 1)[0] for path in (tmp_path / ".cache").iterdir()}
    assert packed == {f"expert-{name}" for name in synthetic.EXPERTS} | {"text-text", "captions"}


def test_the_files_of_a_killed_benchmark_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "benchmark-of-somebody-else").mkdir()
    monkeypatch.setattr(synthetic, "make_files", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if not child:
        synthetic.temporary_files(1, 1)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(synthetic, "make_files", lambda *_: None)
    first = synthetic.temporary_files(1, 1)
    second = synthetic.temporary_files(1, 1)
    names = {first.name, second.name, "benchmark-of-somebody-else"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_first_start_is_a_first_one_each_time() -> None:
    job = feature_store.first_start(0.002)
    for _ in range(2):
        job.run()
        job.undo()


def test_growth_compares_all_pairs_or_says_that_it_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(growth_measures, "QUERIES_PER_BLOCK", 10)
    assert growth_measures.evaluation(45).is_whole
    monkeypatch.setattr(growth_measures, "MOST_PAIRS", 1000)
    figures = growth_measures.evaluation(45)
    assert not figures.is_whole
    assert figures.embedding_bytes == 45 * 4 * (
        growth_measures.EXPERTS * growth_measures.EMBEDDING_SIZE
    )


def test_growth_draws_its_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    from misc.benchmarks import growth

    monkeypatch.setattr(growth_measures, "STEPS", 1)
    monkeypatch.setattr(growth, "in_own_process", lambda function, n: function(n))
    growth.main(["--most_videos", "1000", "--most_experts", "2", "--folder", str(tmp_path)])
    plots = sorted(path.name for path in tmp_path.iterdir())
    assert plots == ["growth-evaluation.png", "growth-experts.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in plots)
    assert "| 1,000 |" in capsys.readouterr().out
    assert growth.video_counts(5000) == [1000, 2000, 4000, 5000]


def test_a_measurement_ends_with_the_program(tmp_path: Path) -> None:
    """Ctrl-C reaches the measuring process too, but is the parent's to answer."""
    mark = tmp_path / "mark"
    with pytest.raises(KeyboardInterrupt):
        in_own_process(_interrupt_both, str(mark))
    assert mark.read_text() == "ended"
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def _interrupt_both(mark: str) -> None:
    atexit.register(Path(mark).write_text, "ended")
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getppid(), signal.SIGINT)
    while True:
        signal.pause()
