"""Ranks and metrics: the published values, naive twins, and properties."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.metric import (
    mean_average_precision,
    rank_metrics,
    retrieval_as_classification,
    t2v_metrics,
    v2t_metrics,
)
from model.ranks import blocks_of, compute_ranks

GOLDEN_CASES = ["01", "02", "03", "05", "06", "08", "09", "11", "13", "20"]
REFUSED_CASES = ["16", "17", "18"]


def golden_case(golden: Path, number: str) -> dict[str, np.ndarray]:
    [path] = (golden / "metrics").glob(f"{number}_*.npz")
    return dict(np.load(path))


def expected(case: dict[str, np.ndarray], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): float(v) for k, v in case.items() if k.startswith(prefix)}


@pytest.mark.parametrize("number", GOLDEN_CASES)
def test_golden_metrics(golden: Path, number: str) -> None:
    case = golden_case(golden, number)
    sims, masks, labels = case["sims"], case.get("query_masks"), case["label_masks"]
    found = {"rac.": retrieval_as_classification(sims, labels)}
    found["map."] = mean_average_precision(sims, labels)
    if len(sims) % sims.shape[1] == 0:
        found |= {"t2v_nomask.": t2v_metrics(sims), "v2t_nomask.": v2t_metrics(sims)}
        if masks is not None:
            found |= {"t2v.": t2v_metrics(sims, masks), "v2t.": v2t_metrics(sims, masks)}
    for prefix, values in found.items():
        assert values == pytest.approx(expected(case, prefix), abs=1e-5), prefix


@pytest.mark.parametrize("number", REFUSED_CASES)
def test_nan_and_videos_without_captions_are_refused(golden: Path, number: str) -> None:
    case = golden_case(golden, number)
    for metric in (t2v_metrics, v2t_metrics):
        with pytest.raises(ValueError, match=r"no caption|NaN"):
            metric(case["sims"], case["query_masks"])


def test_uneven_queries_are_refused() -> None:
    with pytest.raises(ValueError, match=r"7 queries.*3"):
        t2v_metrics(np.zeros((7, 3)))


def naive_ranks(sims: np.ndarray, masks: np.ndarray) -> tuple[list[float], list[float]]:
    """Double loops over everything, with the places of tied candidates written out."""
    num_videos, num_captions = masks.shape

    def place(own: float, candidates: list[float]) -> float:
        ordered = sorted(candidates, reverse=True)
        return float(np.mean([i + 1 for i, value in enumerate(ordered) if value == own]))

    queries = [(v, v * num_captions + c) for v, c in zip(*np.nonzero(masks), strict=True)]
    t2v = [place(sims[q, v], list(sims[q])) for v, q in queries]
    v2t = []
    for video in range(num_videos):
        column = [sims[q, video] for _, q in queries]
        v2t.append(min(place(sims[q, video], column) for v, q in queries if v == video))
    return t2v, v2t


@st.composite
def retrieval_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    num_videos = draw(st.integers(1, 7))
    num_captions = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 3, 1000]))  # few levels: many ties
    sims = rng.integers(0, levels, (num_videos * num_captions, num_videos)) / levels
    masks = rng.integers(0, 2, (num_videos, num_captions))
    masks[np.arange(num_videos), rng.integers(0, num_captions, num_videos)] = 1
    return sims.astype(np.float32), masks


@given(retrieval_sets(), st.integers(1, 9))
def test_ranks_match_the_naive_twin_whatever_the_block_size(
    data: tuple[np.ndarray, np.ndarray], rows: int
) -> None:
    sims, masks = data
    t2v, v2t = naive_ranks(sims, masks)
    ranks = compute_ranks(blocks_of(torch.from_numpy(sims), rows), torch.from_numpy(masks))
    assert ranks.t2v.tolist() == t2v
    assert ranks.v2t.tolist() == v2t


def test_the_median_rank_of_an_even_number_lies_between_the_middle_two() -> None:
    # The captions' own videos are 1st, 1st, 2nd and 4th.
    sims = np.array([[4, 1, 2, 3], [1, 4, 2, 3], [4, 1, 3, 2], [4, 3, 2, 1]], dtype=np.float32)
    assert t2v_metrics(sims)["MedR"] == 1.5
    assert rank_metrics(torch.tensor([7.0, 1, 4, 2]))["MedR"] == 3
    assert rank_metrics(torch.tensor([7.0, 1, 2]))["MedR"] == 2


@given(retrieval_sets())
def test_metrics_summarise_the_naive_ranks(data: tuple[np.ndarray, np.ndarray]) -> None:
    for metric, ranks in zip((t2v_metrics, v2t_metrics), naive_ranks(*data), strict=True):
        found, ordered = metric(*data), sorted(ranks)
        middle = ordered[(len(ranks) - 1) // 2], ordered[len(ranks) // 2]
        assert found["MedR"] == sum(middle) / 2
        assert found["MeanR"] == pytest.approx(sum(ranks) / len(ranks))
        for k in (5, 10, 50):
            assert found[f"R{k}"] == pytest.approx(100 * sum(r < k + 1 for r in ranks) / len(ranks))


@given(retrieval_sets(), st.integers(0, 2**32 - 1))
def test_metrics_do_not_depend_on_the_order_of_videos(
    data: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    sims, masks = data
    num_videos, num_captions = masks.shape
    order = np.random.default_rng(seed).permutation(num_videos)
    cube = sims.reshape(num_videos, num_captions, num_videos)
    shuffled = cube[order][:, :, order].reshape(sims.shape)
    for metric in (t2v_metrics, v2t_metrics):
        assert metric(shuffled, masks[order]) == pytest.approx(metric(sims, masks))
