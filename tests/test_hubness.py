"""Hubness correction against brute force, and that it sees one query at a time and nothing else."""

import inspect
import math
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import model.hubness as hubness_module
from model.hubness import (
    KINDS,
    Correction,
    Hubness,
    HubnessMeter,
    Rule,
    choose,
    corrected,
    rank_corrected_captions,
    rank_corrected_videos,
    rules,
)
from model.ranks import blocks_of, compute_ranks
from tests.test_metric import naive_ranks

SOME = (
    Rule(),
    Rule("nearest", k=1, alpha=1.0),
    Rule("nearest", k=3, alpha=0.5),
    Rule("nearest", k=64, alpha=0.75),  # more than most banks have
    Rule("inverted_softmax", temperature=0.1),
    Rule("inverted_softmax", temperature=0.05, alpha=0.5),
    Rule("querybank", temperature=0.05),
)
seeds, some = st.integers(0, 2**31), st.sampled_from(SOME)


def measure_hubness(bank: Iterable[Tensor], wanted: Iterable[Rule]) -> Hubness:
    return HubnessMeter(wanted).of_bank_blocks(bank)


def random_sims(seed: int, rows: int, columns: int, levels: int = 0) -> Tensor:
    """Random similarities; of a few levels only, so that there are ties."""
    sims = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)).double()
    return (sims * levels).round() / levels if levels else sims


def naive_offset(bank: list[float], rule: Rule) -> float:
    """What is taken off one candidate's similarities, from its own to the bank."""
    if rule.kind == "nearest":
        nearest = sorted(bank, reverse=True)[: rule.k]
        return rule.alpha * sum(nearest) / len(nearest)
    if rule.kind:
        mean = sum(math.exp(s / rule.temperature) for s in bank) / len(bank)
        return rule.alpha * rule.temperature * math.log(mean)
    return 0.0


def naive_corrected(query: list[float], bank: list[list[float]], rule: Rule) -> list[float]:
    """One query's similarities to K candidates, by loops over a bank (B, K)."""
    count = len(query)
    less = [query[j] - naive_offset([row[j] for row in bank], rule) for j in range(count)]
    hubs = {row.index(max(row)) for row in bank}
    is_left = rule.kind == "querybank" and query.index(max(query)) not in hubs
    return query if is_left else less


@settings(deadline=None)
@given(
    seeds, st.integers(1, 9), st.integers(1, 7), some, st.integers(1, 5), st.sampled_from([0, 3])
)
def test_corrected_similarities_are_the_loops(
    seed: int, bank_size: int, count: int, rule: Rule, rows: int, levels: int
) -> None:
    bank = random_sims(seed, bank_size, count, levels)
    sims = random_sims(seed + 1, 4, count, levels)
    found = corrected(sims, rule, measure_hubness(bank.split(rows), [rule]))
    by_candidates = HubnessMeter([rule]).of_candidate_blocks(bank.T.split(rows))
    torch.testing.assert_close(corrected(sims, rule, by_candidates), found)
    naive = [naive_corrected(query, bank.tolist(), rule) for query in sims.tolist()]
    torch.testing.assert_close(found, torch.tensor(naive).double())


@settings(deadline=None)
@given(seeds, st.integers(2, 5), st.integers(1, 3), some, some, st.integers(1, 4), st.booleans())
def test_ranks_are_those_of_the_corrected_matrix(
    seed: int, n: int, captions: int, t2v: Rule, v2t: Rule, rows: int, has_ties: bool
) -> None:
    levels = 2 if has_ties else 0
    sims = random_sims(seed, n * captions, n, levels)
    masks = random_sims(seed + 1, n, captions).round()
    masks[:, 0] = 1
    exists = masks.flatten().bool()
    text_bank = random_sims(seed + 2, 6, n, levels)  # training captions, videos
    video_bank = random_sims(seed + 3, 5, int(exists.sum()), levels)  # training videos, captions
    correction = Correction(
        t2v, v2t, measure_hubness([text_bank], [t2v]), measure_hubness([video_bank], [v2t])
    )
    found = correction.ranks(blocks_of(sims, rows), masks)

    # The numbers of the test above, as rounding unties; here it is about who searches what.
    by_text = [naive_switched(query, t2v, correction.videos) for query in sims.tolist()]
    by_video = torch.zeros(n * captions, n).double()
    for column, query in enumerate(sims[exists].T.tolist()):
        there = naive_switched(query, v2t, correction.captions)
        by_video[exists, column] = torch.tensor(there, dtype=torch.float64)
    naive = naive_ranks(torch.tensor(by_text, dtype=torch.float64).numpy(), masks.numpy())[0]
    assert found.t2v.tolist() == naive
    assert found.v2t.tolist() == naive_ranks(by_video.numpy(), masks.numpy())[1]


def naive_switched(query: list[float], rule: Rule, hubness: Hubness) -> list[float]:
    offsets = hubness.offsets(rule).tolist()
    if rule.kind == "querybank" and not hubness.is_hub[query.index(max(query))]:
        return query
    return [s - offset for s, offset in zip(query, offsets, strict=True)]


@settings(deadline=None)
@given(seeds, st.integers(2, 6), st.integers(1, 3))
def test_no_rule_gives_the_plain_ranks(seed: int, n: int, captions: int) -> None:
    sims, masks = random_sims(seed, n * captions, n, 3), torch.ones(n, captions)
    hubs = measure_hubness([torch.ones(2, n)], [Rule()])
    of_captions = measure_hubness([torch.ones(2, n * captions)], [Rule()])
    found = Correction(Rule(), Rule(), hubs, of_captions).ranks(blocks_of(sims), masks)
    plain = compute_ranks(blocks_of(sims), masks)
    assert torch.equal(found.t2v, plain.t2v) and torch.equal(found.v2t, plain.v2t)


@pytest.mark.parametrize("rule", SOME[1:], ids=str)
def test_a_hub_loses_what_it_took_from_others(rule: Rule) -> None:
    generator = torch.Generator().manual_seed(0)
    sims = 0.1 * torch.rand(20, 20, generator=generator) + 0.3 * torch.eye(20)
    bank = 0.1 * torch.rand(50, 20, generator=generator)
    sims[:, 0] += 0.5
    bank[:, 0] += 0.5
    masks = torch.ones(20, 1)
    assert compute_ranks(blocks_of(sims), masks).t2v[1:].min() == 2
    ranks = rank_corrected_videos(blocks_of(sims), masks, rule, measure_hubness([bank], [rule]))
    assert ranks.mean() < 1.5


@pytest.mark.parametrize("rule", SOME, ids=str)
def test_what_one_query_finds_does_not_depend_on_the_others(rule: Rule) -> None:
    sims, masks = random_sims(0, 12, 6, 4), torch.ones(6, 2)
    videos = measure_hubness([random_sims(1, 9, 6, 4)], [rule])
    captions = measure_hubness([random_sims(2, 9, 12, 4)], [rule])
    t2v = rank_corrected_videos(blocks_of(sims), masks, rule, videos)
    v2t = rank_corrected_captions(blocks_of(sims), masks, rule, captions)
    other = random_sims(3, 12, 6, 4)
    for query in range(12):
        changed = other.clone()
        changed[query] = sims[query]
        found = rank_corrected_videos(blocks_of(changed), masks, rule, videos)
        assert found[query] == t2v[query]
    for video in range(6):
        changed = other.clone()
        changed[:, video] = sims[:, video]
        found = rank_corrected_captions(blocks_of(changed), masks, rule, captions)
        assert found[video] == v2t[video]


def test_the_bank_is_all_that_hubness_is_measured_from() -> None:
    """Neither what measures nor what chooses has a parameter through which queries could come."""
    assert list(inspect.signature(measure_hubness).parameters) == ["bank", "wanted"]
    for walk, blocks in (("of_bank_blocks", "bank"), ("of_candidate_blocks", "candidates")):
        taken = inspect.signature(getattr(HubnessMeter, walk)).parameters
        assert list(taken) == ["self", blocks]
    assert list(inspect.signature(Hubness.offsets).parameters) == ["self", "rule"]
    assert list(inspect.signature(choose).parameters) == ["candidates", "score"]
    with_sims = {
        name
        for name, function in inspect.getmembers(hubness_module, inspect.isfunction)
        if function.__module__ == hubness_module.__name__
        and {"sims", "source"} & set(inspect.signature(function).parameters)
    }
    # These rank or correct, with the hubness that was measured before; the test above holds them.
    assert with_sims == {
        "corrected",
        "rank_corrected_videos",
        "rank_corrected_captions",
        "_most_similar_captions",
    }


@settings(deadline=None)
@given(seeds, st.integers(1, 30), st.integers(1, 30))
def test_hubness_does_not_depend_on_the_blocks(seed: int, bank_size: int, rows: int) -> None:
    bank, wanted = random_sims(seed, bank_size, 5), rules()
    whole, parts = measure_hubness([bank], wanted), measure_hubness(bank.split(rows), wanted)
    assert torch.equal(whole.is_hub, parts.is_hub)
    for rule in wanted:
        torch.testing.assert_close(whole.offsets(rule), parts.offsets(rule))


def test_a_bank_is_walked_once_and_never_held() -> None:
    largest = 0

    def bank() -> Iterable[Tensor]:
        for seed in range(40):
            yield random_sims(seed, 8, 3)

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            if isinstance(made, Tensor):
                largest = max(largest, made.numel())
            return made

    with Watched():
        measure_hubness(bank(), [Rule("nearest", k=4, alpha=1.0), SOME[-1]])
    assert largest <= (8 + 4) * 3


def test_a_small_temperature_does_not_overflow() -> None:
    rule = Rule("inverted_softmax", temperature=0.001)
    offsets = measure_hubness([random_sims(0, 9, 4).float()], [rule]).offsets(rule)
    assert offsets.isfinite().all()


def test_no_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="no candidates"):
        HubnessMeter(rules()).of_candidate_blocks([])


@pytest.mark.parametrize("bank", [[], [torch.ones(0, 3)]])
def test_an_empty_bank_is_refused(bank: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="empty"):
        measure_hubness(bank, rules())


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        measure_hubness([torch.tensor([[0.0, torch.nan]])], rules())


def test_rules_begin_with_none_and_have_all_kinds() -> None:
    assert rules()[0] == Rule() and {rule.kind for rule in rules()} == {"", *KINDS}
    assert {rule.kind for rule in rules(["nearest"])} == {"", "nearest"}
    with pytest.raises(ValueError, match="nearst"):
        rules(["nearst"])


def test_of_equal_rules_the_first_is_chosen() -> None:
    assert choose(SOME, lambda rule: 1.0) == Rule()
    assert choose(SOME, lambda rule: rule.temperature) == SOME[4]
    assert str(SOME[2]) == "nearest k 3 alpha 0.5" and str(Rule()) == "none"
