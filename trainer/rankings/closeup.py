"""The rankings page of an evaluation: what a model retrieves for texts and videos, and why.

Cards of sampled queries stand on the page, those of all others beside it. Captions are embedded and
compared in blocks: a page over a large retrieval set takes no more memory than its evaluation did.

Axes: Q queries, N videos, C queries per video (query q belongs to video q // C), M experts.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_loader.retrieval_set import RetrievalSet
from logger.page.data import (
    Curve,
    Everything,
    Misled,
    OwnCaption,
    Page,
    Ranking,
    Retrieved,
    RetrievedCaption,
    Speakers,
    VideoRanking,
)
from logger.page.page import sample_queries, write_rankings_page
from model.ranks import best_in_rows, ranks_in_rows
from model.similarity import RetrievalModel, TextEmbeddings, expert_similarities, similarity
from trainer.evaluation.evaluate import (
    BLOCK_VALUES,
    QUERIES_PER_BLOCK,
    CaptionEmbeddings,
    Evaluation,
)
from trainer.rankings.misleading import similarities_without

AFTER_ALL_EPOCHS = 1 << 30


class Visualizer:
    """Turns evaluations into pages: sampled queries with what they retrieve, both ways.

    With several captions per video each caption is a query of its own.

    Args:
        num_samples: queries that a page shows at first, in each direction; with 0 none at all.
        src_video_dir: folder with the videos, `<video id>.mp4`; None or not there: no videos.
        vis_vid_freq: epochs between two pages while training.
        top_k: retrieved videos or captions shown for a query.
        seed: of the sample.
        all_queries: lay all others beside the page, which loads them when they are asked for.
    """

    def __init__(
        self,
        num_samples: int = 100,
        src_video_dir: str | None = None,
        vis_vid_freq: int = 1000,
        top_k: int = 5,
        seed: int = 0,
        all_queries: bool = True,
    ) -> None:
        self.num_samples = num_samples
        self.all_queries = all_queries
        self.video_folder = Path(src_video_dir) if src_video_dir else None
        self.vis_vid_freq = vis_vid_freq
        self.top_k = top_k
        self.seed = seed

    def is_due(self, epoch: int) -> bool:
        return epoch % self.vis_vid_freq == 0

    def draw(
        self,
        net: RetrievalModel,
        evaluation: Evaluation,
        retrieval: RetrievalSet,
        folder: Path,
        title: str,
        epoch: int | None = None,
        test: str | None = None,
        metrics: Mapping[str, Mapping[str, float]] | None = None,
        note: str = "",
        about: Mapping[str, str] | None = None,
        curves: Sequence[Curve] = (),
    ) -> Path:
        """Write the page into `folder` and return its path.

        The model must still have the weights that were evaluated. The pages of an epoch and of
        another test (`test`) than the one that a training ends with lie beside that, and bear their
        names. `metrics`, where given, are shown in place of the evaluation's own, with a `note`;
        `about` and `curves` tell of the run (see `Page`).
        """
        closeup = Closeup(net, retrieval, evaluation, self.top_k)
        name, file_name, order = "test", "index.html", AFTER_ALL_EPOCHS
        if epoch is not None:
            name, file_name, order = f"epoch {epoch}", f"epoch-{epoch}.html", epoch
        elif test is not None:
            name, file_name = f"test, {test}", f"test-{test}.html"
        every = None
        if self.num_samples > 0 and self.all_queries:
            # Columns of a matrix that is not kept would take it to be made anew many times over.
            is_kept = evaluation.sims is not None
            by_video = closeup.every_video_ranking() if is_kept else ()
            every = Everything(retrieval.video_ids, closeup.every_ranking(), by_video)
        page = Page(
            title=title,
            metrics={
                key.replace("_metrics", "", 1): values
                for key, values in (metrics or evaluation.metrics).items()
            },
            note=note,
            num_videos=len(retrieval),
            num_texts=int(closeup.existing.sum()),
            rankings=closeup.rankings(self._sample(closeup.existing.nonzero().flatten())),
            video_rankings=closeup.video_rankings(self._sample(torch.arange(len(retrieval)))),
            every=every,
            ranks={"t2v": evaluation.ranks.t2v.tolist(), "v2t": evaluation.ranks.v2t.tolist()},
            experts=list(net.expert_dims),
            captions_of=dict(zip(retrieval.video_ids, retrieval.captions, strict=True)),
            file_name=file_name,
            name=name,
            order=order,
            about=about or {},
            curves=curves,
        )
        return write_rankings_page(folder, page, self.video_folder)

    def rankings(
        self, net: RetrievalModel, evaluation: Evaluation, retrieval: RetrievalSet, count: int
    ) -> list[Ranking]:
        """Rankings of `count` sampled texts alone, without their experts."""
        closeup = Closeup(net, retrieval, evaluation, self.top_k, with_experts=False)
        return closeup.rankings(self._sample(closeup.existing.nonzero().flatten(), count))

    def _sample(self, of: Tensor, count: int | None = None) -> Tensor:
        chosen = sample_queries(len(of), self.num_samples if count is None else count, self.seed)
        return of[torch.from_numpy(chosen)]


class Closeup:
    """Looks at an evaluation while its model still has the weights that were evaluated.

    Args:
        net, retrieval, evaluation: the model, what it was evaluated on, and the outcome.
        top_k: retrieved videos or captions of a ranking.
        with_experts: whether rankings tell the experts of each match.

    Attributes:
        num_captions: C; 1 where a query is the mean over a video's captions.
        existing: (Q,) bool, which queries exist.
    """

    def __init__(
        self,
        net: RetrievalModel,
        retrieval: RetrievalSet,
        evaluation: Evaluation,
        top_k: int,
        with_experts: bool = True,
    ) -> None:
        self._net, self._retrieval, self._evaluation = net, retrieval, evaluation
        self._ids, self._top_k, self._with_experts = retrieval.video_ids, top_k, with_experts
        self._device = evaluation.video.availability.device
        self._embeddings = CaptionEmbeddings(net, retrieval, self._device)
        masks = torch.from_numpy(np.asarray(retrieval.query_masks)).bool()
        self.existing = masks.any(dim=1) if evaluation.averaged else masks.flatten()
        self.num_captions = len(self.existing) // len(masks)
        self._texts = retrieval.captions
        self._place_of_text = masks.cumsum(dim=1).flatten() - 1
        self._rank_of = torch.full((len(self.existing),), torch.nan, dtype=torch.float64)
        self._rank_of[self.existing] = evaluation.ranks.t2v
        self._number_of = self.existing.cumsum(dim=0)

    def every_ranking(self) -> Iterator[Ranking]:
        """Rank the videos for each query, in the order of videos, then captions."""
        for queries_q in self.existing.nonzero().flatten().split(QUERIES_PER_BLOCK):
            yield from self.rankings(queries_q)

    def every_video_ranking(self) -> Iterator[VideoRanking]:
        """Rank the queries for each video."""
        for videos_v in torch.arange(len(self._ids)).split(QUERIES_PER_BLOCK):
            yield from self.video_rankings(videos_v)

    def rankings(self, queries_Q: Tensor) -> list[Ranking]:
        """Rank the videos for each of some queries."""
        rankings: list[Ranking] = []
        if not len(queries_Q):
            return rankings
        for queries_q in queries_Q.split(QUERIES_PER_BLOCK):
            sims = self._rows(queries_q)  # (q, N)
            true = (queries_q // self.num_captions).unsqueeze(1)
            best = best_in_rows(sims, min(self._top_k, sims.shape[1]))
            videos = torch.cat([true, best], dim=1)  # (q, 1 + k)
            similarities = sims.gather(1, videos).tolist()
            speakers = self._speakers(queries_q.unsqueeze(1), videos)
            misled = self._misled(queries_q)
            for row, query in enumerate(queries_q.tolist()):
                matches = [
                    Retrieved(self._ids[video], *of)
                    for video, *of in zip(
                        videos[row].tolist(), similarities[row], speakers[row], strict=True
                    )
                ]
                rankings.append(
                    Ranking(
                        query_id=str(query),
                        captions=self._captions(query),
                        video_id=matches[0].video_id,
                        rank=self._rank_of[query].item(),
                        similarity=matches[0].similarity,
                        retrieved=matches[1:],
                        speakers=matches[0].speakers,
                        misled=misled[row],
                        number=int(self._number_of[query]),
                    )
                )
        return rankings

    def video_rankings(self, videos_N: Tensor) -> list[VideoRanking]:
        """Rank the queries (captions) for each of some videos."""
        rankings: list[VideoRanking] = []
        if not len(videos_N):
            return rankings
        k = min(self._top_k, int(self.existing.sum()))
        for videos_v in videos_N.split(max(1, BLOCK_VALUES // len(self.existing))):
            sims = self._columns(videos_v)  # (v, Q)
            own = videos_v.unsqueeze(1) * self.num_captions + torch.arange(self.num_captions)
            own_sims = sims.gather(1, own)  # (v, C)
            ranks = [ranks_in_rows(sims, column.unsqueeze(1)) for column in own_sims.unbind(1)]
            found = best_in_rows(sims, k)  # (v, k)
            similarities = sims.gather(1, found).tolist()
            speakers = self._speakers(found, videos_v.unsqueeze(1))
            for row, video in enumerate(videos_v.tolist()):
                own_captions = [
                    OwnCaption(
                        self._text(query),
                        ranks[c][row].item(),
                        own_sims[row, c].item(),
                        int(self._number_of[query]),
                    )
                    for c, query in enumerate(own[row].tolist())
                    if self.existing[query]
                ]
                own_captions.sort(key=lambda caption: caption.rank)
                retrieved = [
                    RetrievedCaption(
                        self._text(query),
                        self._ids[query // self.num_captions],
                        similarity_of,
                        speakers_of,
                        int(self._number_of[query]),
                    )
                    for query, similarity_of, speakers_of in zip(
                        found[row].tolist(), similarities[row], speakers[row], strict=True
                    )
                ]
                best = own_captions[0]
                rankings.append(
                    VideoRanking(
                        self._ids[video],
                        best.rank,
                        best.similarity,
                        own_captions,
                        retrieved,
                        video + 1,
                    )
                )
        return rankings

    def _captions(self, query: int) -> list[str]:
        """The captions that a query consists of: one, or all of a video where they are averaged."""
        texts = self._texts[query // self.num_captions]
        if self._evaluation.averaged:
            return list(texts)
        place = self._place_of_text[query]
        return texts[place : place + 1]  # none where a data set has features without the text

    def _text(self, query: int) -> str:
        # Where captions are averaged, all of them are one text.
        return "\n".join(self._captions(query))

    # ---- the experts of a match ----

    def _speakers(self, queries: Tensor, videos: Tensor) -> list[list[Speakers | None]]:
        """The experts of matches, row by row; queries and videos broadcast to (rows, matches)."""
        queries, videos = torch.broadcast_tensors(queries, videos)
        every = None
        if self._with_experts:
            every = self.experts(queries.flatten(), videos.flatten())
        rows, matches = queries.shape
        if every is None:
            return [[None] * matches] * rows
        return [[*every[row * matches : (row + 1) * matches]] for row in range(rows)]

    def experts(self, queries_p: Tensor, videos_p: Tensor) -> list[Speakers] | None:
        """Take p matches apart: what each expert says in them.

        Where a query is a mean over captions, so are the weights; similarities are means weighted
        by them. None for a model whose experts share one embedding.
        """
        if not self._has_experts:
            return None
        size = self._queries_per_block
        blocks = zip(queries_p.split(size), videos_p.split(size), strict=True)
        return [speakers for block in blocks for speakers in self._experts_of(*block)]

    def _misled(self, queries_Q: Tensor) -> list[Misled | None]:
        """Find which expert misled each query whose true video is not the first, if one did."""
        misled: list[Misled | None] = [None] * len(queries_Q)
        failed = (self._rank_of[queries_Q] > 1).nonzero().flatten()
        if not self._with_experts or not self._has_experts:
            return misled
        experts, num_videos = len(self._net.expert_dims), len(self._ids)
        # Of each expert there are a product and a share, and sums of both.
        captions = max(1, BLOCK_VALUES // (4 * experts * num_videos))
        size = max(1, min(QUERIES_PER_BLOCK, captions) // self._captions_per_query)
        for rows in failed.split(size):
            best, experts_r = self._ranks_without(queries_Q[rows]).min(dim=0)
            for row, rank, expert in zip(
                rows.tolist(), best.tolist(), experts_r.tolist(), strict=True
            ):
                if rank < self._rank_of[queries_Q[row]]:
                    misled[row] = Misled(expert, rank)
        return misled

    @torch.inference_mode()
    def _ranks_without(self, queries_Q: Tensor) -> Tensor:
        """Rank the true video of each query without each of the experts, (M, Q)."""
        text, owners = self._embed(queries_Q)
        true = (queries_Q // self.num_captions).unsqueeze(1).to(self._device)
        ranks = []
        for sims in similarities_without(text, self._evaluation.video):
            if self._evaluation.averaged:
                sims = _mean_by(owners.to(self._device), sims, len(queries_Q))
            ranks.append(ranks_in_rows(sims, sims.gather(1, true)).cpu())
        return torch.stack(ranks)

    @property
    def _has_experts(self) -> bool:
        """Whether each expert has an embedding of its own."""
        video = self._evaluation.video
        return len(video.embeddings) == video.availability.shape[1]

    # ---- similarities, a few at a time ----

    @property
    def _captions_per_query(self) -> int:
        return self._retrieval.query_masks.shape[1] if self._evaluation.averaged else 1

    @property
    def _queries_per_block(self) -> int:
        return max(1, QUERIES_PER_BLOCK // self._captions_per_query)

    @torch.inference_mode()
    def _experts_of(self, queries: Tensor, videos: Tensor) -> list[Speakers]:
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
        heard = [
            [None if value != value else value for value in row]  # NaN
            for row in single.masked_fill(~is_there, torch.nan).tolist()
        ]
        if text.weights is None:
            return [Speakers(similarities) for similarities in heard]
        return [Speakers(*said) for said in zip(heard, weights.tolist(), strict=True)]

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

    @torch.inference_mode()
    def _columns(self, videos: Tensor) -> Tensor:
        """Columns of the matrix as rows, (v, Q); -inf where no query exists."""
        columns = torch.empty(len(videos), len(self.existing))
        start = 0
        for block in self._evaluation.blocks():
            columns[:, start : start + len(block)] = block[:, videos.to(block.device)].T
            start += len(block)
        return columns.masked_fill_(~self.existing, -torch.inf)

    def _embed(self, queries: Tensor) -> tuple[TextEmbeddings, Tensor]:
        """Embed the captions of queries; returns also (captions,) which query each belongs to."""
        captions, owners = queries, torch.arange(len(queries))
        if self._evaluation.averaged:
            width = self._captions_per_query
            masks = torch.from_numpy(np.asarray(self._retrieval.query_masks))[queries].bool()
            owners, at = masks.nonzero(as_tuple=True)
            captions = queries[owners] * width + at
        return self._embeddings.of(captions), owners


def _mean_by(owners: Tensor, values: Tensor, count: int) -> Tensor:
    """Mean of the rows (r, ...) that have the same owner, (count, ...)."""
    sums = values.new_zeros((count, *values.shape[1:])).index_add_(0, owners, values)
    return sums / owners.bincount(minlength=count).unsqueeze(1)


def rankings_text(rankings: Sequence[Ranking]) -> str:
    """Rankings as Markdown in which every line is code: captions and ids stand as they are."""
    lines = []
    for ranking in rankings:
        lines.append(f"{' / '.join(ranking.captions)}")
        lines.append(f"  {ranking.video_id}: rank {ranking.rank:g}, {ranking.similarity:.3f}")
        for place, found in enumerate(ranking.retrieved, start=1):
            mark = "  <- true video" if found.video_id == ranking.video_id else ""
            lines.append(f"  {place:>3}. {found.similarity:.3f}  {found.video_id}{mark}")
        lines.append("")
    return "\n".join("    " + " ".join(line.split("\n")) for line in lines)
