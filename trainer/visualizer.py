"""Draws the rankings page of an evaluation."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from data_loader.retrieval_set import RetrievalSet
from trainer.evaluation import Evaluation
from utils.rankings_page import Ranking, Retrieved, sample_queries, write_rankings_page

_log = logging.getLogger(__name__)


class Visualizer:
    """Turns evaluations into pages: sampled queries with the videos that they retrieve.

    Args:
        num_samples: queries on a page.
        src_video_dir: folder with the videos, `<video id>.mp4`; None or not there: no videos.
        vis_vid_freq: epochs between two pages while training.
        top_k: retrieved videos shown for a query.
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
        self, evaluation: Evaluation, retrieval: RetrievalSet, folder: Path, title: str
    ) -> Path | None:
        """Write the page into `folder` and return its path.

        None is returned for evaluations that get no page: several captions per video, or a
        similarity matrix too large to keep.
        """
        if evaluation.sims is None or len(evaluation.sims) != len(retrieval.video_ids):
            _log.info("No rankings page: it is drawn for one caption per video.")
            return None
        videos = self.video_folder
        if videos is not None and not videos.is_dir():
            _log.warning("The rankings page has no videos: there is no folder %s.", videos)
            videos = None
        captions = [list(c) for c in retrieval.captions]
        return write_rankings_page(
            folder,
            title=title,
            metrics={name.removesuffix("_metrics"): m for name, m in evaluation.metrics.items()},
            rankings=self._rankings(evaluation, retrieval.video_ids, captions),
            video_folder=videos,
            num_videos=len(retrieval.video_ids),
            captions_of=dict(zip(retrieval.video_ids, captions, strict=True)),
        )

    def _rankings(
        self, evaluation: Evaluation, video_ids: Sequence[str], captions: Sequence[list[str]]
    ) -> list[Ranking]:
        sampled = torch.from_numpy(sample_queries(len(video_ids), self.num_samples, self.seed))
        sims = evaluation.sims[sampled]
        values, places = sims.topk(min(self.top_k, len(video_ids)), dim=1)
        rankings = []
        for row, query in enumerate(sampled.tolist()):
            retrieved = zip(places[row].tolist(), values[row].tolist(), strict=True)
            rankings.append(
                Ranking(
                    query_id=str(query),
                    captions=captions[query],
                    video_id=video_ids[query],
                    rank=evaluation.ranks.t2v[query].item(),
                    similarity=sims[row, query].item(),
                    retrieved=[Retrieved(video_ids[n], value) for n, value in retrieved],
                )
            )
        return rankings
