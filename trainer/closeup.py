"""A closer look at single queries and videos of an evaluation, and at the experts in a match.

Only what is asked for is embedded and compared, and the similarity matrix passes by in blocks: a
page over a large retrieval set takes no more memory than its evaluation did.

Axes: Q queries, N videos, C queries per video (query q belongs to video q // C), M experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from data_loader.retrieval_set import RetrievalSet
from model.similarity import RetrievalModel, TextEmbeddings, expert_similarities, similarity
from trainer.evaluation import QUERIES_PER_BLOCK, Evaluation, evaluating


@dataclass(frozen=True)
class FoundVideos:
    """The best videos for q queries."""

    similarities: Tensor  # (q, k), best first
    videos: Tensor  # (q, k)
    own: Tensor  # (q,) similarity of the query and its own video
    ranks: Tensor  # (q,) place of that video


@dataclass(frozen=True)
class FoundQueries:
    """The best queries (captions) for v videos, and the place of each of their own."""

    similarities: Tensor  # (v, k), best first
    queries: Tensor  # (v, k)
    own: Tensor  # (v, C) similarity of the video's own queries, -inf for those that do not exist
    ranks: Tensor  # (v, C) their places among all queries


class Closeup:
    """Looks at an evaluation while its model still has the weights that were evaluated.

    Attributes:
        num_captions: C; 1 where a query is the mean over a video's captions.
        existing: (Q,) bool, which queries exist.
    """

    def __init__(
        self, net: RetrievalModel, retrieval: RetrievalSet, evaluation: Evaluation
    ) -> None:
        self._net, self._retrieval, self._evaluation = net, retrieval, evaluation
        self._device = evaluation.video.availability.device
        masks = torch.from_numpy(np.asarray(retrieval.query_masks)).bool()
        self.existing = masks.any(dim=1) if evaluation.averaged else masks.flatten()
        self.num_captions = len(self.existing) // len(masks)
        self._texts = retrieval.captions
        self._place_of_text = masks.cumsum(dim=1).flatten() - 1
        self._rank_of = torch.full((len(self.existing),), torch.nan, dtype=torch.float64)
        self._rank_of[self.existing] = evaluation.ranks.t2v

    def texts(self, query: int) -> list[str]:
        """The captions that a query consists of: one, or all of a video where they are averaged."""
        texts = self._texts[query // self.num_captions]
        if self._evaluation.averaged:
            return list(texts)
        place = self._place_of_text[query]
        return texts[place : place + 1]  # none where a data set has features without the text

    def best_videos(self, queries_q: Tensor, k: int) -> FoundVideos:
        """Find the k most similar videos of each query."""
        num_videos = len(self._retrieval)
        values, places, own = [], [], []
        for chosen in queries_q.split(QUERIES_PER_BLOCK):
            sims = self._rows(chosen)  # (q, N)
            best = sims.topk(min(k, num_videos), dim=1)
            values.append(best.values)
            places.append(best.indices)
            own.append(sims.gather(1, (chosen // self.num_captions).unsqueeze(1)).squeeze(1))
        ranks = self._rank_of[queries_q]
        return FoundVideos(torch.cat(values), torch.cat(places), torch.cat(own), ranks)

    def best_queries(self, videos_v: Tensor, k: int) -> FoundQueries:
        """Find the k most similar queries of each video, in two passes over the matrix."""
        own_rows = videos_v.unsqueeze(1) * self.num_captions + torch.arange(self.num_captions)
        own = torch.full(own_rows.shape, -torch.inf)  # (v, C)
        for start, columns in self._columns(videos_v):  # (b, v)
            is_here = (own_rows >= start) & (own_rows < start + len(columns))
            at_v, at_c = is_here.nonzero(as_tuple=True)
            own[at_v, at_c] = columns[own_rows[at_v, at_c] - start, at_v]

        k = min(k, int(self.existing.sum()))
        values = torch.empty(len(videos_v), 0)
        queries = torch.empty(len(videos_v), 0, dtype=torch.int64)
        above = torch.zeros(own.shape, dtype=torch.float64)
        equal = torch.zeros_like(above)
        for start, columns in self._columns(videos_v):
            for c in range(self.num_captions):
                above[:, c] += (columns > own[:, c]).sum(dim=0)
                equal[:, c] += (columns == own[:, c]).sum(dim=0)
            rows = torch.arange(start, start + len(columns)).expand(len(videos_v), -1)
            both = torch.cat([values, columns.T], dim=1)
            values, chosen = both.topk(min(k, both.shape[1]), dim=1)
            queries = torch.cat([queries, rows], dim=1).gather(1, chosen)
        ranks = 1 + above + (equal - 1) / 2
        return FoundQueries(values, queries, own, ranks)

    def experts(self, queries_p: Tensor, videos_p: Tensor) -> tuple[Tensor, Tensor] | None:
        """Take p matches apart: weights (p, M) and similarities (p, M) of the experts.

        NaN stands for a similarity of an expert that the video does not have. Where a query is a
        mean over captions, so are the weights; similarities are means weighted by them. None for
        a model whose experts share one embedding.
        """
        video = self._evaluation.video
        if len(video.embeddings) != video.availability.shape[1]:
            return None
        parts = [
            self._experts_of(queries, videos)
            for queries, videos in zip(
                queries_p.split(self._queries_per_block),
                videos_p.split(self._queries_per_block),
                strict=True,
            )
        ]
        weights, similarities = (torch.cat(part) for part in zip(*parts, strict=True))
        return weights, similarities

    @cached_property
    @torch.inference_mode()
    def has_weights(self) -> bool:
        """Whether the model shares its attention out among the experts."""
        text, _ = self._embed(torch.tensor([0]))
        return text.weights is not None

    # ---- similarities, a few at a time ----

    @property
    def _captions_per_query(self) -> int:
        return self._retrieval.query_masks.shape[1] if self._evaluation.averaged else 1

    @property
    def _queries_per_block(self) -> int:
        return max(1, QUERIES_PER_BLOCK // self._captions_per_query)

    @torch.inference_mode()
    def _experts_of(self, queries: Tensor, videos: Tensor) -> tuple[Tensor, Tensor]:
        different, at = queries.unique(return_inverse=True)
        text, owners = self._embed(different)
        # One line for each caption of each pair.
        pair, caption = (owners == at.unsqueeze(1)).nonzero(as_tuple=True)
        video = self._evaluation.video[videos[pair].to(self._device)]
        weights, similarities = expert_similarities(text[caption.to(self._device)], video)
        weights, similarities = weights.cpu(), similarities.cpu()
        total = _mean_by(pair, weights * similarities, len(queries))
        weights = _mean_by(pair, weights, len(queries))
        # Without a mean to take, what an expert says stands as it is, whatever its weight.
        single = similarities if len(pair) == len(queries) else total / weights
        is_there = self._evaluation.video.availability[videos.to(self._device)].cpu() > 0
        return weights, torch.where(is_there, single, torch.nan)

    @torch.inference_mode()
    def _rows(self, queries: Tensor) -> Tensor:
        """Rows of the matrix, (q, N)."""
        if self._evaluation.sims is not None:
            return self._evaluation.sims[queries]
        rows = []
        for chosen in queries.split(self._queries_per_block):
            text, owners = self._embed(chosen)
            rows.append(
                _mean_by(owners, similarity(text, self._evaluation.video).cpu(), len(chosen))
            )
        return torch.cat(rows)

    def _columns(self, videos: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Columns of the matrix, (b, v) at a time from the top; -inf where no query exists."""
        start = 0
        with torch.inference_mode():
            for block in self._evaluation.blocks():
                columns = block[:, videos.to(block.device)].cpu()
                exists = self.existing[start : start + len(columns)]
                yield start, columns.masked_fill(~exists.unsqueeze(1), -torch.inf)
                start += len(columns)

    def _embed(self, queries: Tensor) -> tuple[TextEmbeddings, Tensor]:
        """Embed the captions of queries; returns also (captions,) which query each belongs to."""
        captions, owners = queries, torch.arange(len(queries))
        if self._evaluation.averaged:
            width = self._captions_per_query
            masks = torch.from_numpy(np.asarray(self._retrieval.query_masks))[queries].bool()
            owners, at = masks.nonzero(as_tuple=True)
            captions = queries[owners] * width + at
        text, tokens = self._retrieval.queries(captions.numpy())
        with evaluating(self._net):
            embedded = self._net.encode_text(text.to(self._device), tokens.to(self._device))
        return embedded, owners


def _mean_by(owners: Tensor, values: Tensor, count: int) -> Tensor:
    """Mean of the rows (r, ...) that have the same owner, (count, ...)."""
    sums = values.new_zeros((count, *values.shape[1:])).index_add_(0, owners, values)
    return sums / owners.bincount(minlength=count).unsqueeze(1)
