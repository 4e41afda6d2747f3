"""Where a model fails: which experts mislead, which videos come up for everything, and when.

Everything is counted over all queries of the retrieval set, text to video.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from logger.page.charts import place_of

MOST_HUBS = 10
MOST_COMPARISONS = 2_000_000  # of sets of words, for each of the rarest words of a set
NEAR = 0.8  # of all words of two captions, both have that many
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Query:
    """What the analysis knows of one query.

    Attributes:
        captions: its texts.
        video: place of its true video in the set.
        rank: of that.
        found: places of the top k videos, best first.
        missing: places of the experts that the true video lacks.
        misled: the expert that misled it (see `Misled`), and the rank without it.
    """

    captions: Sequence[str]
    video: int
    rank: float
    found: Sequence[int]
    missing: Sequence[int]
    misled: tuple[int, float] | None = None


@dataclass(frozen=True)
class Group:
    """Some queries, the filter that shows them, and how well they do."""

    label: str
    filter: Mapping[str, str]  # of the page's address
    count: int
    recall: float  # R@1, percent
    median: float  # of the ranks


@dataclass(frozen=True)
class Hub:
    """A video that comes up for many queries whose true video is another."""

    video: int
    wrong: int  # queries that have it among their top k, wrongly
    right: int


@dataclass(frozen=True)
class Failures:
    """The tables of the failure analysis; a table without rows is not shown."""

    failed: int
    first_without: Sequence[tuple[Group, int]]  # by expert: misled queries, of which first without
    hubs: Sequence[Hub]
    missing: Sequence[tuple[Group, Group]]  # by expert: true video lacks it, has it
    lengths: Sequence[Group]
    twins: Group | None


def find_failures(
    queries: Sequence[Query], experts: Sequence[str], twins: Mapping[int, Sequence[int]]
) -> Failures:
    """Count what goes wrong; `twins` are those that `near_duplicates` found."""
    misled = []
    for place, name in enumerate(experts):
        here = [q for q in queries if q.misled and q.misled[0] == place]
        first = sum(q.misled is not None and q.misled[1] == 1 for q in here)
        if here:
            misled.append((_group(name, {"misled": name}, here), first))
    missing = []
    for place, name in enumerate(experts):
        without = [q for q in queries if place in q.missing]
        present = [q for q in queries if place not in q.missing]
        if without:
            there = _group(name, {"missing": f"-{name}"}, present)
            missing.append((_group(name, {"missing": name}, without), there))
    have_twins = [queries[place] for place in twins]
    return Failures(
        failed=sum(place_of(q.rank) > 1 for q in queries),
        first_without=sorted(misled, key=lambda pair: -pair[0].count),
        hubs=find_hubs(queries),
        missing=missing,
        lengths=_by_length(queries),
        twins=_group("near-duplicates", {"twins": "1"}, have_twins) if have_twins else None,
    )


def _group(label: str, filters: Mapping[str, str], queries: Sequence[Query]) -> Group:
    ranks = np.array([q.rank for q in queries])
    recall = 100 * np.mean(ranks == 1) if len(ranks) else 0.0
    median = float(np.median(ranks)) if len(ranks) else 0.0
    return Group(label, filters, len(queries), float(recall), median)


def find_hubs(queries: Sequence[Query]) -> list[Hub]:
    """The videos that stand wrongly among the top k of most queries, at least of two."""
    wrong: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for query in queries:
        for video in query.found:
            (right if video == query.video else wrong)[video] += 1
    most = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:MOST_HUBS]
    return [Hub(video, count, right[video]) for video, count in most if count > 1]


def num_words(captions: Iterable[str]) -> int:
    """Words of a query: letters and digits in a row."""
    return sum(len(_WORD.findall(text)) for text in captions)


def _by_length(queries: Sequence[Query]) -> list[Group]:
    """Queries in about four parts of one size, by their number of words."""
    lengths = np.array([num_words(q.captions) for q in queries])
    if not len(lengths):
        return []
    ends = sorted({int(np.quantile(lengths, part)) for part in (0.25, 0.5, 0.75, 1)})
    groups, first = [], int(lengths.min())
    for last in ends:
        here = [q for q, n in zip(queries, lengths, strict=True) if first <= n <= last]
        if here:
            label = f"{first}" if first == last else f"{first} to {last}"
            groups.append(_group(label, {"words": f"{first}-{last}"}, here))
        first = last + 1
    return groups if len(groups) > 1 else []


# Near-duplicate captions ------------------------------------------------------------------------


def near_duplicates(queries: Sequence[Query]) -> dict[int, list[int]]:
    """Find queries that say nearly the same as queries of other videos.

    Two do whose sets of words overlap by `NEAR` (words of both, divided by words of either).

    Returns:
        Place of a query -> places of the others, lowest first; queries without any are left out.
    """
    groups: dict[frozenset[str], list[int]] = defaultdict(list)
    for place, query in enumerate(queries):
        words = frozenset(w for text in query.captions for w in _WORD.findall(text.casefold()))
        if words:
            groups[words].append(place)
    found: dict[int, list[int]] = defaultdict(list)
    for first, second in [*_near_pairs(list(groups)), *((words, words) for words in groups)]:
        for one in groups[first]:
            for other in groups[second]:
                if queries[one].video != queries[other].video:
                    found[one].append(other)
                    if first != second:
                        found[other].append(one)
    return {place: sorted(set(found[place])) for place in sorted(found)}


def _near_pairs(sets: Sequence[frozenset[str]]) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Pairs of different sets that overlap by `NEAR`.

    Two such sets share one of the rarest words of each (Bayardo et al. 2007): only sets that do
    are compared. Where there are so many sets that this would take long, words that very many share
    find none but the last sets with them.
    """
    most = max(50, MOST_COMPARISONS // (len(sets) + 1))
    counts = Counter(word for words in sets for word in words)

    def rarity(word: str) -> tuple[int, Hashable]:
        return counts[word], word

    pairs = []
    by_word: dict[str, list[frozenset[str]]] = defaultdict(list)
    for words in sets:
        prefix = sorted(words, key=rarity)[: len(words) - _needed(len(words)) + 1]
        candidates = dict.fromkeys(other for word in prefix for other in by_word[word][-most:])
        for other in candidates:
            both = len(words & other)
            if both >= NEAR * (len(words) + len(other) - both):
                pairs.append((other, words))
        for word in prefix:
            by_word[word].append(words)
    return pairs


def _needed(size: int) -> int:
    """The least number of words that a set of a size shares with another one that is near it."""
    return int(np.ceil(NEAR * size - 1e-9))
