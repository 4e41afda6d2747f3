"""Blocks of similarities: the same whatever their sizes, and never larger than allowed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import model.ranks as ranks_module
import model.similarity as similarity_module
import trainer.evaluation.evaluate as evaluation_module
from model.ranks import blocks_of, compute_ranks, ranks_in_rows
from model.similarity import TextEmbeddings, VideoEmbeddings, similarity, similarity_to
from trainer.evaluation.evaluate import similarity_blocks


def sides(
    queries: int, videos: int, seed: int, weighted: bool
) -> tuple[TextEmbeddings, VideoEmbeddings]:
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(rows, size, generator=generator) for size in (3, 5))

    weights = torch.rand(queries, 2, generator=generator).softmax(dim=1) if weighted else None
    availability = (torch.rand(videos, 2, generator=generator) < 0.7).float()
    return TextEmbeddings(draw(queries), weights), VideoEmbeddings(draw(videos), availability)


@given(
    queries=st.integers(1, 9),
    videos=st.integers(1, 9),
    tile=st.integers(1, 10),
    prepared=st.sampled_from([0, 2**30]),
    seed=st.integers(0, 2**32 - 1),
    weighted=st.booleans(),
)
@settings(deadline=None)
def test_videos_compared_in_tiles_give_the_same(
    queries: int, videos: int, tile: int, prepared: int, seed: int, weighted: bool
) -> None:
    text, video = sides(queries, videos, seed, weighted)
    expected = similarity(text, video)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(similarity_module, "VIDEOS_PER_TILE", tile)
        patch.setattr(similarity_module, "PREPARED_BYTES", prepared)
        compare = similarity_to(video)
        for _ in range(2):
            torch.testing.assert_close(compare(text), expected, atol=1e-6, rtol=1e-5)


@given(
    videos=st.integers(1, 7),
    captions=st.integers(1, 3),
    most=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    average=st.booleans(),
)
@settings(deadline=None)
def test_blocks_are_small_and_give_the_rows_of_the_whole(
    videos: int, captions: int, most: int, seed: int, average: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    exists = torch.rand(videos, captions, generator=generator) < 0.6
    exists[:, 0] = True
    text, video = sides(int(exists.sum()), videos, seed, weighted=True)
    rows = torch.zeros(videos * captions, videos)
    rows[exists.flatten()] = similarity(text, video)
    if average:
        rows = rows.view(videos, captions, videos).sum(dim=1) / exists.sum(dim=1, keepdim=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_module, "BLOCK_VALUES", most)
        blocks = list(
            similarity_blocks(
                [(exists.flatten(), text)], similarity_to(video), videos, captions, average
            )
        )
    torch.testing.assert_close(torch.cat(blocks), rows, atol=1e-6, rtol=1e-5)
    # The captions of one video are never taken apart.
    assert all(block.numel() <= max(most, videos * captions) for block in blocks)


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99)
)
@settings(deadline=None)
def test_ranks_do_not_depend_on_tiles(
    rows: int, columns: int, height: int, width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.randint(0, 4, (rows, columns), generator=generator).float()
    candidates[candidates == 3] = torch.inf
    candidates[candidates == 2] = -torch.inf
    own = candidates[:, :1]
    expected = [
        1 + (row > mine).sum().item() + ((row == mine).sum().item() - 1) / 2
        for row, mine in zip(candidates, own, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks_module, "CACHE_TILE", (height, width))
        assert ranks_in_rows(candidates, own).tolist() == expected


def test_both_infinities_are_no_nan() -> None:
    sims = torch.tensor([[torch.inf, -torch.inf], [-torch.inf, 0.0]])
    ranks = compute_ranks(blocks_of(sims), torch.ones(2, 1))
    assert ranks.t2v.tolist() == [1, 1]
    sims[1, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        compute_ranks(blocks_of(sims), torch.ones(2, 1))


def test_gradients_flow_through_prepared_videos() -> None:
    text, video = sides(3, 4, 0, weighted=True)
    video.embeddings[0].requires_grad_()
    similarity_to(video)(text).sum().backward()
    assert video.embeddings[0].grad.abs().sum() > 0
