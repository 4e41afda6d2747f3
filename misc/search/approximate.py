"""For very large indexes: most of the best videos, without looking at all of them.

Each large pattern of experts gets a graph of nearest neighbours over its embeddings, a byte for
each number (faiss: HNSW over SQ8; Malkov and Yashunin 2018). What is taken off for hubness is one
more number of each video, so that the score is an inner product. What a graph finds is compared
again, in float32; patterns of few videos are compared as a whole. How many of the best are found is
measured when the index is built.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from misc.search.index.folder import Index
from misc.search.index.parts import Group, VideoPart
from misc.search.ranking import Found, Question, best, products, question_vector, ranked
from model.similarity import TextEmbeddings
from utils.errors import UserError

# Below, comparing all takes no longer than walking through a graph.
LEAST_VIDEOS = 50_000
_KIND = "HNSW32,SQ8"
_TRAINED_ON, _ADDED_AT_ONCE = 20_000, 4096
# How many are compared again for one that is asked for, and at least.
_FOR_A_HIT, _LEAST_LOOKED_AT = 8, 128


def write_graphs(folder: Path, part: VideoPart) -> int:
    """Write the graphs of a part's large groups into its folder; returns how many.

    Raises:
        UserError: faiss is not installed.
    """
    faiss = _faiss()
    count = 0
    for place, group in enumerate(part.groups):
        if len(group) < LEAST_VIDEOS or not group.columns:
            continue
        offsets = part.offsets[place_of(part, group) :][: len(group)]
        graph = faiss.index_factory(group.whole.shape[1] + 1, _KIND, faiss.METRIC_INNER_PRODUCT)
        step = -(-len(group) // _TRAINED_ON)
        graph.train(_with_offsets(group.whole[::step].numpy(), offsets[::step]))
        for start in range(0, len(group), _ADDED_AT_ONCE):
            rows = slice(start, start + _ADDED_AT_ONCE)
            graph.add(_with_offsets(group.whole[rows].numpy(), offsets[rows]))
        faiss.write_index(graph, str(_file(folder, place)))
        count += 1
    return count


def place_of(part: VideoPart, group: Group) -> int:
    """Return where a group begins within its part."""
    return group.first - part.groups[0].first


def _with_offsets(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return np.concatenate([values, offsets[:, None]], axis=1, dtype=np.float32)


def _file(folder: Path, place: int) -> Path:
    return folder / f"group{place}.faiss"


class Approximate:
    """The graphs of an index, loaded.

    Args:
        index: whose they are.

    Raises:
        UserError: faiss is not installed, or a graph is damaged.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._graphs: dict[int, Any] = {}
        for name, part in zip(index.manifest.parts, index.parts, strict=True):
            for place, group in enumerate(part.groups):
                path = _file(index.folder / name, place)
                if path.is_file():
                    self._graphs[group.first] = _loaded(path, group)

    def best(self, question: Question, k: int) -> Found:
        """Find most of the k best rows, with their exact scores.

        Where only some videos are searched all of these are compared.
        """
        if question.rows is not None:
            return best(self._index, question, k)
        looked_at = max(_FOR_A_HIT * k, _LEAST_LOOKED_AT)
        found = list(self._near(question, looked_at))
        rows = torch.cat([torch.zeros(0, dtype=torch.long), *(rows for rows, _ in found)])
        scores = torch.cat([torch.zeros(0), *(scores for _, scores in found)])
        scores = scores.masked_fill(~self._index.is_found[rows], -torch.inf)
        count = min(looked_at, int(scores.isfinite().sum()))
        if count < min(k, self._count):
            return best(self._index, question, k)
        return ranked(self._index, question, rows[scores.topk(count).indices], k)

    @cached_property
    def _count(self) -> int:
        return int(self._index.is_found.sum())

    def _near(
        self, question: Question, looked_at: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Give rows of each group that are near, and about their scores."""
        for group in self._index.groups:
            vector = question_vector(question, group, self._index.manifest.shape)
            graph = self._graphs.get(group.first)
            if graph is None:
                scores = products(vector, group)
                if question.is_corrected:
                    scores -= self._index.offsets[group.first : group.first + len(group)]
                top = scores.topk(min(looked_at, len(group)))
                yield group.first + top.indices, top.values
                continue
            query = np.zeros((1, len(vector) + 1), dtype=np.float32)
            query[0, :-1] = vector.numpy()
            query[0, -1] = -1.0 if question.is_corrected else 0.0
            graph.hnsw.efSearch = 2 * looked_at
            [scores], [places] = graph.search(query, min(looked_at, len(group)))
            there = places >= 0
            yield group.first + torch.from_numpy(places[there]), torch.from_numpy(scores[there])


def _loaded(path: Path, group: Group) -> Any:
    faiss = _faiss()
    try:
        graph = faiss.read_index(str(path))
    except RuntimeError as error:
        raise UserError(
            f"The graph {path} is damaged: build the index anew with `python3 -m misc.build_index "
            "--approximate`, or search it with --exact."
        ) from error
    if graph.ntotal != len(group) or graph.d != group.whole.shape[1] + 1:
        raise UserError(f"The graph {path} is of other videos: build the index anew.")
    return graph


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "Approximate search needs faiss: run "
            "`pip install -r requirements/search-requirements.txt`, or search with --exact."
        ) from error
    return faiss


_MEASURED_QUERIES, _MEASURED_HITS = 200, 10


@torch.inference_mode()
def recall(index: Index, text: TextEmbeddings) -> dict[str, float]:
    """Measure which share of the best videos of captions the graphs find; plain data."""
    graphs, step = Approximate(index), max(1, len(text) // _MEASURED_QUERIES)
    found = total = queries = 0
    for query in range(0, len(text), step):
        question = Question(text[slice(query, query + 1)], torch.ones(1))
        exact = {*best(index, question, _MEASURED_HITS).rows.tolist()}
        found += len(exact & {*graphs.best(question, _MEASURED_HITS).rows.tolist()})
        total, queries = total + len(exact), queries + 1
    return {"recall": found / max(1, total), "k": _MEASURED_HITS, "queries": queries}
