"""Draws the rankings page of an evaluation."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from data_loader.retrieval_set import RetrievalSet
from logger.page.data import (
    OwnCaption,
    Ranking,
    Retrieved,
    RetrievedCaption,
    Speakers,
    VideoRanking,
)
from logger.page.page import sample_queries, write_rankings_page
from model.similarity import RetrievalModel
from trainer.closeup import Closeup
from trainer.evaluation import Evaluation

AFTER_ALL_EPOCHS = 1 << 30


class Visualizer:
    """Turns evaluations into pages: sampled queries with what they retrieve, both ways.

    With several captions per video each caption is a query of its own.

    Args:
        num_samples: queries on a page, in each direction.
        src_video_dir: folder with the videos, `<video id>.mp4`; None or not there: no videos.
        vis_vid_freq: epochs between two pages while training.
        top_k: retrieved videos or captions shown for a query.
        seed: of the sample.
    """

    def __init__(
        self,
        num_samples: int = 100,
        src_video_dir: str | None = None,
        vis_vid_freq: int = 1000,
        top_k: int = 5,
        seed: int = 0,
    ) -> None:
        self.num_samples = num_samples
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
    ) -> Path:
        """Write the page into `folder` and return its path.

        The model must still have the weights that were evaluated. The pages of an epoch and of
        another test (`test`) than the one that a training ends with lie beside that, and bear their
        names.
        """
        closeup = Closeup(net, retrieval, evaluation)
        rows = RankingRows(closeup, retrieval.video_ids, self.top_k)
        name, file_name, order = "test", "index.html", AFTER_ALL_EPOCHS
        if epoch is not None:
            name, file_name, order = f"epoch {epoch}", f"epoch-{epoch}.html", epoch
        elif test is not None:
            name, file_name = f"test, {test}", f"test-{test}.html"
        return write_rankings_page(
            folder,
            title=title,
            metrics={key.removesuffix("_metrics"): m for key, m in evaluation.metrics.items()},
            rankings=rows.rankings(self._sample(closeup.existing.nonzero().flatten())),
            video_rankings=rows.video_rankings(self._sample(torch.arange(len(retrieval)))),
            num_videos=len(retrieval),
            num_texts=int(closeup.existing.sum()),
            ranks={"t2v": evaluation.ranks.t2v.tolist(), "v2t": evaluation.ranks.v2t.tolist()},
            experts=list(net.expert_dims),
            video_folder=self.video_folder,
            captions_of=dict(zip(retrieval.video_ids, retrieval.captions, strict=True)),
            file_name=file_name,
            name=name,
            order=order,
        )

    def rankings(
        self, net: RetrievalModel, evaluation: Evaluation, retrieval: RetrievalSet, count: int
    ) -> list[Ranking]:
        """Rankings of `count` sampled texts alone, without their experts."""
        closeup = Closeup(net, retrieval, evaluation)
        queries = self._sample(closeup.existing.nonzero().flatten(), count)
        rows = RankingRows(closeup, retrieval.video_ids, self.top_k, experts=False)
        return rows.rankings(queries)

    def _sample(self, of: Tensor, count: int | None = None) -> Tensor:
        chosen = sample_queries(len(of), self.num_samples if count is None else count, self.seed)
        return of[torch.from_numpy(chosen)]


class RankingRows:
    """Puts into words for a page what a closeup finds for its queries."""

    def __init__(
        self, closeup: Closeup, video_ids: Sequence[str], top_k: int, experts: bool = True
    ) -> None:
        self._closeup, self._ids, self._top_k, self._experts = closeup, video_ids, top_k, experts

    def rankings(self, queries: Tensor) -> list[Ranking]:
        """One ranking of videos for each query."""
        if not len(queries):
            return []
        found = self._closeup.best_videos(queries, self._top_k)
        own = queries // self._closeup.num_captions
        speakers = self._speakers(queries, torch.cat([own.unsqueeze(1), found.videos], dim=1))
        rankings = []
        for row, query in enumerate(queries.tolist()):
            true, *others = next(speakers)
            best = zip(
                found.videos[row].tolist(), found.similarities[row].tolist(), others, strict=True
            )
            rankings.append(
                Ranking(
                    query_id=str(query),
                    captions=self._closeup.texts(query),
                    video_id=self._ids[int(own[row])],
                    rank=found.ranks[row].item(),
                    similarity=found.own[row].item(),
                    retrieved=[Retrieved(self._ids[n], value, who) for n, value, who in best],
                    speakers=true,
                )
            )
        return rankings

    def video_rankings(self, videos: Tensor) -> list[VideoRanking]:
        """One ranking of texts for each video."""
        if not len(videos):
            return []
        width = self._closeup.num_captions
        found = self._closeup.best_queries(videos, self._top_k)
        k = found.queries.shape[1]
        speakers = self._speakers(found.queries.flatten(), videos.repeat_interleave(k).unsqueeze(1))
        rankings = []
        for row, video in enumerate(videos.tolist()):
            own = [
                OwnCaption(self._text(video * width + c), rank, similarity)
                for c, (rank, similarity) in enumerate(
                    zip(found.ranks[row].tolist(), found.own[row].tolist(), strict=True)
                )
                if self._closeup.existing[video * width + c]
            ]
            own.sort(key=lambda caption: caption.rank)
            retrieved = [
                RetrievedCaption(
                    self._text(query),
                    self._ids[query // width],
                    similarity,
                    query // width == video,
                    next(speakers)[0],
                )
                for query, similarity in zip(
                    found.queries[row].tolist(), found.similarities[row].tolist(), strict=True
                )
            ]
            best = own[0]
            rankings.append(
                VideoRanking(self._ids[video], best.rank, best.similarity, own, retrieved)
            )
        return rankings

    def _text(self, query: int) -> str:
        # Where captions are averaged, all of them are one text.
        return "\n".join(self._closeup.texts(query))

    def _speakers(self, queries: Tensor, videos: Tensor) -> Iterator[list[Speakers | None]]:
        """For each query in turn the experts of its matches with some videos (q, v)."""
        shape = videos.shape
        parts = None
        if self._experts:
            parts = self._closeup.experts(queries.repeat_interleave(shape[1]), videos.flatten())
        if parts is None:
            return iter([[None] * shape[1]] * shape[0])
        weights, similarities = (part.view(*shape, -1) for part in parts)
        return (
            [self._speaker(w, s) for w, s in zip(w_row, s_row, strict=True)]
            for w_row, s_row in zip(weights.tolist(), similarities.tolist(), strict=True)
        )

    def _speaker(self, weights: list[float], similarities: list[float]) -> Speakers:
        heard = [None if value != value else value for value in similarities]  # NaN: missing
        return Speakers(heard, weights if self._closeup.has_weights else None)


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
