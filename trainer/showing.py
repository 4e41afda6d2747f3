"""What a training's evaluations leave for the eye: ranks, some rankings, now and then a page."""

from data_loader.retrieval_set import RetrievalSet
from logger.trackers import Trackers
from model.similarity import RetrievalModel
from trainer.build import build_visualizer
from trainer.evaluation.evaluate import Evaluation
from trainer.parts import Parts
from trainer.rankings.about import curves_of, facts_of
from trainer.rankings.closeup import rankings_text
from trainer.rankings.thumbnails import Thumbnails
from trainer.runs.folder import RunFolder
from utils.config import Config

_RANKINGS, _DRAWN = 5, 4  # as text, and as a picture


class Showing:
    """Shows evaluations to the trackers, and draws the pages that are due in a training.

    Args:
        config: of the training; without a visualizer there are ranks alone.
        folder: of the run.
        parts: the model and what it is validated on.
        writer: the trackers.
    """

    def __init__(self, config: Config, folder: RunFolder, parts: Parts, writer: Trackers) -> None:
        self._config, self._folder, self._parts, self._writer = config, folder, parts, writer
        self._visualizer = build_visualizer(config)
        videos = self._visualizer.video_folder if self._visualizer else None
        self._thumbnails = Thumbnails(videos)

    def validation(self, epoch: int, evaluation: Evaluation) -> None:
        """Show the ranks and some rankings of an epoch, and draw its page where one is due."""
        net, retrieval = self._parts.evaluated, self._parts.retrieval
        for direction in ("t2v", "v2t"):
            ranks = getattr(evaluation.ranks, direction).tolist()
            self._writer.histogram(f"val/{direction}/ranks", ranks, epoch)
        has_page = self._visualizer is not None and self._visualizer.is_due(epoch)
        self._show_rankings("val", epoch, evaluation, net, retrieval, has_page)
        if self._visualizer and has_page:
            title = f"{self._config.name}: rankings after epoch {epoch}"
            about = facts_of(self._config, self._folder, net, retrieval, epoch=epoch)
            shown = (net, evaluation, retrieval, self._folder.web, title, epoch)
            self._visualizer.draw(*shown, about=about, curves=curves_of(self._folder))

    def test(
        self, epoch: int, evaluation: Evaluation, net: RetrievalModel, retrieval: RetrievalSet
    ) -> None:
        """Show some rankings of the test of an epoch's model."""
        self._show_rankings("test", epoch, evaluation, net, retrieval, has_page=True)

    def _show_rankings(
        self,
        stage: str,
        epoch: int,
        evaluation: Evaluation,
        net: RetrievalModel,
        retrieval: RetrievalSet,
        has_page: bool,
    ) -> None:
        if not self._visualizer or not self._writer.is_enabled:
            return
        sampled = self._visualizer.rankings(net, evaluation, retrieval, _RANKINGS)
        self._writer.text(f"{stage}/rankings", rankings_text(sampled), epoch)
        # As seldom as pages: thumbnails are read in a fork of this process, and afterwards whatever
        # the training writes into has to be copied once.
        if has_page and (picture := self._thumbnails.draw(sampled[:_DRAWN])):
            self._writer.picture(f"{stage}/rankings", picture, epoch)
