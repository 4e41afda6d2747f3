"""Searching an index finds what comparing every video with `model.similarity` finds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from misc.search.index.folder import Index
from misc.search.ranking import Found, Question, best, weighted
from model.similarity import TextEmbeddings, VideoEmbeddings, similarity
from tests.search_index import random_videos, write_index


def random_text(count: int, sizes: tuple[int, ...], weights: bool = True) -> TextEmbeddings:
    rng = torch.Generator().manual_seed(7)
    parts = [torch.nn.functional.normalize(torch.randn(count, n, generator=rng)) for n in sizes]
    drawn = torch.rand(count, len(sizes), generator=rng)
    return TextEmbeddings(tuple(parts), drawn / drawn.sum(dim=1, keepdim=True) if weights else None)


def naive_scores(
    text: TextEmbeddings, video: VideoEmbeddings, factors: list[float], offsets: np.ndarray
) -> list[float]:
    """Every pair, expert by expert, in Python's own numbers."""
    scores = []
    for v in range(len(video)):
        total = -float(offsets[v])
        for q, factor in enumerate(factors):
            above = below = 0.0
            for m in range(video.availability.shape[1]):
                w = float(text.weights[q, m]) * float(video.availability[v, m])
                dot = sum(
                    float(a) * float(b)
                    for a, b in zip(
                        text.embeddings[m][q].tolist(), video.embeddings[m][v].tolist(), strict=True
                    )
                )
                above, below = above + w * dot, below + w
            total += factor * (above / below if below else 0.0)
        scores.append(total)
    return scores


def order_of(index: Index, ids: list[str]) -> list[int]:
    """The row of each given video."""
    return [index.row_of[key] for key in ids]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    missing=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    large=st.sampled_from([1.0, 1e-4, 3e5]),
    k=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_the_best_are_those_of_a_double_loop(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    sizes: tuple[int, ...],
    missing: float,
    large: float,
    k: int,
    seed: int,
) -> None:
    video = random_videos(count, sizes, missing, seed)
    video = VideoEmbeddings(tuple(e * large for e in video.embeddings), video.availability)
    offsets = np.random.default_rng(seed).random(count).astype(np.float32) * large / 3
    folder = tmp_path_factory.mktemp("index")
    ids = write_index(folder, video, offsets=offsets)
    index = Index(folder)
    text, factors = random_text(3, sizes), [0.5, 0.5, -0.4]

    found = best(index, Question(text, torch.tensor(factors)), k)

    expected = np.array(naive_scores(text, video, factors, offsets))
    assert len(found.rows) == min(k, count)
    place = {row: n for n, row in enumerate(order_of(index, ids))}
    got = expected[[place[row] for row in found.rows.tolist()]]
    np.testing.assert_allclose(found.scores.numpy(), got, atol=2e-6 * large, rtol=1e-5)
    # Nothing that was left out is better, beyond what float32 can tell.
    np.testing.assert_allclose(got, -np.sort(-expected)[: len(got)], atol=2e-6 * large)


@pytest.mark.parametrize("is_weighted", [True, False])
def test_similarities_equal_those_of_the_model(tmp_path: Path, is_weighted: bool) -> None:
    video = random_videos(300, (8, 16, 4))
    ids = write_index(tmp_path, video, weighted=is_weighted)
    index = Index(tmp_path)
    text = random_text(1, (8, 16, 4), is_weighted)
    found = best(index, Question(text, torch.ones(1)), 300)
    expected = torch.empty(300)
    expected[order_of(index, ids)] = similarity(text, video)[0]
    torch.testing.assert_close(found.scores, expected[found.rows], atol=1e-6, rtol=1e-6)
    assert sorted(found.rows.tolist()) == list(range(300))
    assert (found.scores.diff() <= 0).all()


def test_of_equal_videos_the_first_in_the_index_comes_first(tmp_path: Path) -> None:
    one = random_videos(1, (8, 8), missing=0.0)
    video = one[torch.zeros(5000, dtype=torch.long)]
    write_index(tmp_path, video)
    found = best(Index(tmp_path), Question(random_text(1, (8, 8)), torch.ones(1)), 4)
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert found.compared == 5000


def test_few_videos_are_compared_twice(tmp_path: Path) -> None:
    video = random_videos(4000, (64, 64))
    write_index(tmp_path, video)
    found = best(Index(tmp_path), Question(random_text(1, (64, 64)), torch.ones(1)), 5)
    assert 5 <= found.compared < 100


def test_videos_without_any_expert_have_similarity_0(tmp_path: Path) -> None:
    video = random_videos(3, (4, 4), missing=1.0)
    write_index(tmp_path, video)
    found = best(Index(tmp_path), Question(random_text(1, (4, 4)), torch.ones(1)), 5)
    assert found.scores.tolist() == [0.0, 0.0, 0.0]


def test_weights_of_experts_are_those_of_the_similarity(tmp_path: Path) -> None:
    video = random_videos(200, (8, 6))
    ids = write_index(tmp_path, video)
    index = Index(tmp_path)
    text = weighted(random_text(1, (8, 6)), torch.tensor([0.0, 3.0]))
    found = best(index, Question(text, torch.ones(1)), 200)
    expected = torch.empty(200)
    expected[order_of(index, ids)] = torch.where(
        video.availability[:, 1] > 0, text.embeddings[1] @ video.embeddings[1].T, 0.0
    )[0]
    torch.testing.assert_close(found.scores, expected[found.rows], atol=1e-6, rtol=1e-5)


def test_only_chosen_rows_are_found(tmp_path: Path) -> None:
    write_index(tmp_path, random_videos(50, (8, 6)))
    rows = torch.zeros(50, dtype=torch.bool)
    rows[[3, 31]] = True
    found = best(Index(tmp_path), Question(random_text(1, (8, 6)), torch.ones(1), rows), 5)
    assert sorted(found.rows.tolist()) == [3, 31]
    nothing = torch.zeros(50, dtype=torch.bool)
    none: Found = best(Index(tmp_path), Question(random_text(1, (8, 6)), torch.ones(1), nothing), 5)
    assert none.rows.tolist() == []
