"""Hubness correction: candidates that are close to everything are moved away from every query.

In a joint embedding some videos ("hubs") are among the nearest of very many captions, and some
captions among those of very many videos. How close a candidate is to queries in general is
measured on a bank of queries of the training set; what is measured becomes one number for each
candidate, which is taken off its similarities to any query. No function here takes the queries that
are searched by, but one at a time: what one query finds never depends on the others.

Axes: Q queries (captions), N videos, B bank items, K candidates (videos, or captions where videos
search).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from model.ranks import BlockSource, Ranks, best_own, holds_nan, rank_captions, rank_videos

NEAREST, INVERTED_SOFTMAX, QUERYBANK = "nearest", "inverted_softmax", "querybank"
KINDS = (NEAREST, INVERTED_SOFTMAX, QUERYBANK)


@dataclass(frozen=True)
class Rule:
    """How similarities are corrected; the default is not at all.

    - "nearest": `alpha` times the mean similarity to the `k` bank items that are most similar to
      the candidate (nearest-neighbour normalisation, Chowdhury et al. 2024).
    - "inverted_softmax": `alpha` times the logarithm of a softmax's sum over the bank at
      `temperature`; with 1 the candidate's probability of the query (Smith et al. 2017).
    - "querybank": the same, but only for queries whose most similar candidate is a hub: the most
      similar one of a bank item (QB-Norm with dynamic inverted softmax, Bogolin et al. 2022).
    """

    kind: str = ""
    k: int = 0
    alpha: float = 1.0
    temperature: float = 0.0

    def __str__(self) -> str:
        given = [(f.name, getattr(self, f.name)) for f in fields(self)[1:] if self.kind]
        return " ".join(
            [self.kind or "none", *(f"{name} {value:g}" for name, value in given if value)]
        )


NEIGHBOURS, ALPHAS = (1, 4, 16, 64, 256), (0.25, 0.5, 0.75, 1.0)
TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2)


def rules(kinds: Sequence[str] = KINDS) -> tuple[Rule, ...]:
    """Return the rules to choose from: none at all first, then those of the kinds.

    Raises:
        ValueError: a kind is not known.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f'"{unknown[0]}" is none of {", ".join(KINDS)}')
    found = [Rule()]
    for kind in kinds:
        if kind == NEAREST:
            found += [Rule(kind, k=k, alpha=alpha) for k in NEIGHBOURS for alpha in ALPHAS]
        else:
            shares = ALPHAS[1::2] if kind == INVERTED_SOFTMAX else (1.0,)
            found += [Rule(kind, 0, alpha, t) for t in TEMPERATURES for alpha in shares]
    return tuple(found)


@dataclass(frozen=True)
class Hubness:
    """What a bank says of K candidates.

    Attributes:
        nearest: k -> (K,) mean similarity to the k most similar bank items; to all of a smaller
            bank.
        softmax: temperature t -> (K,) t log mean exp(similarity / t) over the bank.
        is_hub: (K,) bool, whether a bank item finds it first (of equals the first one counts).
    """

    nearest: dict[int, Tensor]
    softmax: dict[float, Tensor]
    is_hub: Tensor

    def offsets(self, rule: Rule) -> Tensor:
        """Return (K,) what a rule takes off the similarities of each candidate."""
        if rule.kind == NEAREST:
            return rule.alpha * self.nearest[rule.k]
        if rule.kind in (INVERTED_SOFTMAX, QUERYBANK):
            return rule.alpha * self.softmax[rule.temperature]
        return torch.zeros(len(self.is_hub), device=self.is_hub.device)


class HubnessMeter:
    """Measures hubness from blocks of similarities of a bank of B items to K candidates.

    Blocks are added either of some bank items to all candidates, or of all bank items to some
    candidates. Beside them it holds the max(k) largest similarities of each candidate at a time.

    Args:
        wanted: the rules that are to be used.
    """

    def __init__(self, wanted: Iterable[Rule]) -> None:
        wanted = list(wanted)
        self.counts = sorted({rule.k for rule in wanted if rule.kind == NEAREST})
        self.temperatures = sorted({rule.temperature for rule in wanted if rule.temperature})

    @torch.no_grad()
    def of_bank_blocks(self, bank: Iterable[Tensor]) -> Hubness:
        """Walk a bank, a block (b, K) of some of its items at a time.

        Raises:
            ValueError: the bank is empty, or a similarity is NaN.
        """
        largest: Tensor | None = None
        sums: dict[float, Tensor] = {}
        size, is_hub = 0, torch.zeros(0, dtype=torch.bool)
        for block in bank:
            if holds_nan(block):
                raise ValueError("A similarity to the bank is NaN.")
            if largest is None:
                largest, is_hub = block[:0], block.new_zeros(block.shape[1], dtype=torch.bool)
            size += len(block)
            is_hub[block.max(dim=1).indices] = True
            if self.counts:
                joined = torch.cat([largest, block])
                largest = joined.topk(min(self.counts[-1], len(joined)), dim=0).values
            for t in self.temperatures:
                here = torch.logsumexp(block / t, dim=0)
                sums[t] = torch.logaddexp(sums[t], here) if t in sums else here
        if largest is None or not size:
            raise ValueError("The bank is empty.")
        totals = largest.cumsum(dim=0)
        nearest = {k: totals[min(k, size) - 1] / min(k, size) for k in self.counts}
        softmax = {t: t * (sums[t] - math.log(size)) for t in self.temperatures}
        return Hubness(nearest, softmax, is_hub)

    @torch.no_grad()
    def of_candidate_blocks(self, candidates: Iterable[Tensor]) -> Hubness:
        """Walk the candidates: blocks (k, B) of some of them to the whole bank.

        Raises:
            ValueError: there are no candidates, the bank is empty, or a similarity is NaN.
        """
        found: list[Hubness] = []
        start = 0
        for block in candidates:
            found.append(self.of_bank_blocks([block.T]))
            values_B, places_B = block.max(dim=0)
            if not start:
                best_B, nearest_B = values_B, places_B
            else:
                nearest_B = torch.where(values_B > best_B, places_B + start, nearest_B)
                best_B = torch.maximum(values_B, best_B)
            start += len(block)
        if not start:
            raise ValueError("There are no candidates.")
        is_hub = torch.zeros(start, dtype=torch.bool, device=nearest_B.device)
        is_hub[nearest_B] = True
        return Hubness(
            {k: torch.cat([part.nearest[k] for part in found]) for k in self.counts},
            {t: torch.cat([part.softmax[t] for part in found]) for t in self.temperatures},
            is_hub,
        )


def corrected(sims: Tensor, rule: Rule, hubness: Hubness) -> Tensor:
    """Correct the similarities (q, K) of some queries to all K candidates."""
    less = sims - hubness.offsets(rule)
    if rule.kind != QUERYBANK:
        return less
    return torch.where(hubness.is_hub[sims.max(dim=1).indices].unsqueeze(1), less, sims)


@dataclass(frozen=True)
class Correction:
    """Both directions' rules with what their banks say: all that corrected ranks need.

    Attributes:
        t2v, v2t: the rules.
        videos: hubness of the N videos, from training captions.
        captions: hubness of the captions that exist (valid queries), from training videos.
    """

    t2v: Rule
    v2t: Rule
    videos: Hubness
    captions: Hubness

    def ranks(self, source: BlockSource, query_masks: Tensor) -> Ranks:
        """Rank both directions; arguments and errors as in `model.ranks.compute_ranks`."""
        return Ranks(
            rank_corrected_videos(source, query_masks, self.t2v, self.videos),
            rank_corrected_captions(source, query_masks, self.v2t, self.captions),
        )


def rank_corrected_videos(
    source: BlockSource, query_masks: Tensor, rule: Rule, videos: Hubness
) -> Tensor:
    """Rank the videos for each caption, (valid queries,); see `model.ranks.rank_videos`."""
    return rank_videos(lambda: (corrected(x, rule, videos) for x in source()), query_masks)[0]


def rank_corrected_captions(
    source: BlockSource, query_masks: Tensor, rule: Rule, captions: Hubness
) -> Tensor:
    """Return the best rank of each video's captions, (N,); see `model.ranks.rank_captions`."""
    exists_Q = query_masks.bool().flatten().to(captions.is_hub.device)
    offsets_Q1 = _among_all(captions.offsets(rule), exists_Q).unsqueeze(1)
    switched_N: Tensor | None = None
    if rule.kind == QUERYBANK:
        is_hub_Q = _among_all(captions.is_hub, exists_Q)
        switched_N = is_hub_Q[_most_similar_captions(source, query_masks)]

    def blocks() -> Iterator[Tensor]:
        start = 0
        for block in source():
            less = block - offsets_Q1[start : start + len(block)]
            start += len(block)
            yield less if switched_N is None else torch.where(switched_N, less, block)

    return rank_captions(blocks, query_masks, best_own(blocks, query_masks))


def _among_all(values: Tensor, exists_Q: Tensor) -> Tensor:
    """Put what captions that exist have (valid queries,) among zeros for the others, (Q,)."""
    return torch.zeros_like(exists_Q, dtype=values.dtype).masked_scatter(exists_Q, values)


@torch.no_grad()
def _most_similar_captions(source: BlockSource, query_masks: Tensor) -> Tensor:
    """Return (N,) the caption that is most similar to each video, of equals the first."""
    best: Tensor | None = None
    start, exists_Q = 0, query_masks.bool().flatten()
    for block in source():
        exists_q1 = exists_Q[start : start + len(block)].unsqueeze(1).to(block.device)
        values, places = block.masked_fill(~exists_q1, -torch.inf).max(dim=0)
        if best is None:
            best, found = values, places
        else:
            found = torch.where(values > best, places + start, found)
            best = torch.maximum(values, best)
        start += len(block)
    if best is None:
        raise ValueError("There are no queries.")
    return found


def choose(candidates: Sequence[Rule], score: Callable[[Rule], float]) -> Rule:
    """Return the rule with the highest score on a validation split, of equals the first."""
    return max(candidates, key=score)
