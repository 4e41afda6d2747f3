"""Milvus finds what the index itself finds, here by Milvus Lite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from misc.search.index.folder import Index
from misc.search.ranking import Question, best
from tests.search_index import random_videos, write_index
from tests.test_search_ranking import random_text
from utils.errors import UserError

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from misc.search.milvus import main
from misc.search.milvus_index import MilvusIndex

SIZES = (16, 8, 24)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("milvus") / "index"
    video = random_videos(5000, SIZES)
    offsets = torch.rand(5000, generator=torch.Generator().manual_seed(1)).numpy() / 5
    write_index(folder, video, offsets=offsets)
    return Index(folder)


@pytest.fixture(scope="module")
def milvus(index: Index) -> Iterator[MilvusIndex]:
    uri = str(index.folder.parent / "lite.db")
    main([str(index.folder), "--uri", uri])
    with MilvusIndex(index, uri) as found:
        yield found


@pytest.mark.parametrize("is_corrected", [True, False])
def test_the_same_videos_with_the_same_scores(
    index: Index, milvus: MilvusIndex, is_corrected: bool
) -> None:
    text = random_text(3, SIZES)
    question = Question(text, torch.tensor([0.5, 0.5, -0.4]), None, is_corrected)
    ours, theirs = best(index, question, 20), milvus.best(question, 20)
    assert theirs.rows.tolist() == ours.rows.tolist()
    torch.testing.assert_close(theirs.scores, ours.scores)
    torch.testing.assert_close(theirs.similarities, ours.similarities)


def test_only_chosen_rows(index: Index, milvus: MilvusIndex) -> None:
    rows = torch.rand(len(index), generator=torch.Generator().manual_seed(2)) < 0.01
    question = Question(random_text(1, SIZES), torch.ones(1), rows)
    assert milvus.best(question, 9).rows.tolist() == best(index, question, 9).rows.tolist()


def test_writing_again_writes_nothing(index: Index, milvus: MilvusIndex) -> None:
    assert milvus.write() == 0


def test_an_index_that_is_not_there_is_named(tmp_path: Path, milvus: MilvusIndex) -> None:
    write_index(tmp_path / "other", random_videos(3, SIZES))
    other = MilvusIndex(Index(tmp_path / "other"), milvus._uri)
    with pytest.raises(UserError, match=r"is not in .*misc\.search\.milvus"):
        other.best(Question(random_text(1, SIZES), torch.ones(1)), 2)


def test_no_server_is_one_sentence() -> None:
    with pytest.raises(UserError, match="There is no Milvus at"):
        MilvusIndex(None, "nowhere")  # type: ignore[arg-type]  # not looked at
