"""Graphs of neighbours find most of what comparing all videos finds, with the same scores."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from misc.search.index.folder import Index
from misc.search.index.manifest import Manifest
from misc.search.index.parts import VideoPart
from misc.search.ranking import Question, best
from model.similarity import VideoEmbeddings
from tests.search_index import random_videos, write_index
from tests.test_search_ranking import random_text
from utils.errors import UserError

pytest.importorskip("faiss")

from misc.search import approximate
from misc.search.approximate import Approximate, recall, write_graphs

SIZES = (16, 8)


@pytest.fixture(scope="module", autouse=True)
def graphs_of_small_patterns() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate, "LEAST_VIDEOS", 2000)
        yield


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("approximate") / "index"
    centres, noise = random_videos(50, SIZES, 0.0), random_videos(5000, SIZES, 0.2, seed=1)
    near = centres[torch.arange(5000) % 50]
    parts = zip(near.embeddings, noise.embeddings, noise.availability.unbind(1), strict=True)
    blended = tuple((a + 0.7 * b) * there[:, None] for a, b, there in parts)
    offsets = torch.rand(5000, generator=torch.Generator().manual_seed(1)).numpy() / 5
    write_index(folder, VideoEmbeddings(blended, noise.availability), offsets=offsets)
    made = Index(folder)
    assert write_graphs(folder / made.manifest.parts[0], made.parts[0]) == 1
    return made


@pytest.mark.parametrize("is_corrected", [True, False])
def test_most_of_the_best_with_their_exact_scores(index: Index, is_corrected: bool) -> None:
    graphs, text = Approximate(index), random_text(20, SIZES)
    shared = 0
    for query in range(20):
        question = Question(text[query : query + 1], torch.ones(1), None, is_corrected)
        exact, found = best(index, question, 10), graphs.best(question, 10)
        shared += len({*exact.rows.tolist()} & {*found.rows.tolist()})
        scores = dict(zip(exact.rows.tolist(), exact.scores.tolist(), strict=True))
        for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
            assert score == pytest.approx(scores.get(row, score), abs=1e-6)
        assert found.compared == 128
    assert shared >= 190


def test_recall_is_measured(index: Index) -> None:
    told = recall(index, random_text(20, SIZES))
    assert 0.95 <= told["recall"] <= 1 and told["queries"] == 20 and told["k"] == 10


def test_a_few_chosen_videos_are_compared_exactly(index: Index) -> None:
    rows = torch.rand(len(index), generator=torch.Generator().manual_seed(3)) < 0.01
    question = Question(random_text(1, SIZES), torch.ones(1), rows)
    found = Approximate(index).best(question, 5)
    assert found.rows.tolist() == best(index, question, 5).rows.tolist()


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    write_index(tmp_path, random_videos(2500, (4,), 0.0))
    index = Index(tmp_path)
    [name] = Manifest.read(tmp_path).parts
    (tmp_path / name / "group0.faiss").write_bytes(b"IxHN" + bytes(100))
    with pytest.raises(UserError, match=r"group0\.faiss is damaged"):
        Approximate(index)
    write_index(tmp_path / "other", random_videos(2600, (4,), 0.0))
    [other] = Manifest.read(tmp_path / "other").parts
    part = VideoPart(tmp_path / "other" / other, 0, index.manifest.shape)
    write_graphs(tmp_path / name, part)
    with pytest.raises(UserError, match="of other videos"):
        Approximate(index)
