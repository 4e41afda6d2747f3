"""What the template of a rankings page shows: numbers as text, bars as percentages, cards."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from logger.page.charts import place_of
from logger.page.data import Ranking, RetrievedCaption, Speakers, VideoRanking
from logger.page.videos import Video, VideoFiles


@dataclass(frozen=True)
class VideoTile:
    """One video of a card: the true one (`place` 0) or the retrieved one at a place from 1."""

    video_id: str
    video: Video
    similarity: str
    bar: float  # percent of the highest similarity on the page
    place: int
    is_true: bool
    experts: str  # see `experts_text`
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class TextTile:
    """One retrieved caption of a card, at a place from 1."""

    found: RetrievedCaption
    similarity: str
    bar: float
    place: int
    experts: str


@dataclass(frozen=True)
class OwnTile:
    """One caption of the video that is the query of a card."""

    text: str
    rank: str
    level: str
    similarity: str


@dataclass(frozen=True)
class Card:
    """A text and the videos found for it."""

    ranking: Ranking
    rank: str
    place: int
    level: str  # "first" (rank 1), "near" (up to 10), "far"
    true: VideoTile
    tiles: list[VideoTile]


@dataclass(frozen=True)
class VideoCard:
    """A video and the texts found for it."""

    ranking: VideoRanking
    rank: str
    place: int
    level: str
    video: Video
    own: list[OwnTile]
    tiles: list[TextTile]


class Cards:
    """Makes the cards of one page, whose bars share one scale."""

    def __init__(
        self,
        rankings: Sequence[Ranking],
        video_rankings: Sequence[VideoRanking],
        files: VideoFiles,
        captions_of: Mapping[str, Sequence[str]],
    ) -> None:
        self._files, self._captions_of = files, captions_of
        every: list[Ranking | VideoRanking] = [*rankings, *video_rankings]
        shown = [r.similarity for r in every]
        shown += [found.similarity for r in every for found in r.retrieved]
        self._highest = max((value for value in shown if math.isfinite(value)), default=0.0)
        self.texts = [self._card(ranking) for ranking in rankings]
        self.videos = [self._video_card(ranking) for ranking in video_rankings]

    def _card(self, ranking: Ranking) -> Card:
        def tile(of: str, similarity: float, speakers: Speakers | None, place: int) -> VideoTile:
            return VideoTile(
                of,
                self._files.find(of),
                number(similarity, ".3f"),
                self._bar(similarity),
                place,
                of == ranking.video_id,
                experts_text(speakers),
                self._captions_of.get(of, ()) if place else (),
            )

        return Card(
            ranking,
            *rank_words(ranking.rank),
            tile(ranking.video_id, ranking.similarity, ranking.speakers, 0),
            [
                tile(found.video_id, found.similarity, found.speakers, place)
                for place, found in enumerate(ranking.retrieved, start=1)
            ],
        )

    def _video_card(self, ranking: VideoRanking) -> VideoCard:
        own = []
        for caption in ranking.own:
            rank, _, level = rank_words(caption.rank)
            own.append(OwnTile(caption.text, rank, level, number(caption.similarity, ".3f")))
        return VideoCard(
            ranking,
            *rank_words(ranking.rank),
            self._files.find(ranking.video_id),
            own,
            [
                TextTile(
                    found,
                    number(found.similarity, ".3f"),
                    self._bar(found.similarity),
                    place,
                    experts_text(found.speakers),
                )
                for place, found in enumerate(ranking.retrieved, start=1)
            ],
        )

    def _bar(self, similarity: float) -> float:
        is_positive = similarity > 0 and self._highest > 0
        return round(100 * similarity / self._highest, 1) if is_positive else 0.0


def rank_words(rank: float) -> tuple[str, int, str]:
    """A rank as text, the place that it counts as, and its level."""
    place = place_of(rank)
    level = "first" if place == 1 else "near" if place <= 10 else "far"
    return number(rank, ".0f" if float(rank).is_integer() else ".1f"), place, level


def experts_text(speakers: Speakers | None) -> str:
    """The experts of a match in one attribute, for the page's script: "0.25:0.81 0:-".

    Each is weight:similarity; a model without weights leaves them out (":0.81"), "-" is missing.
    """
    if speakers is None:
        return ""
    weights: Iterable[float | None] = speakers.weights or [None] * len(speakers.similarities)
    return " ".join(
        f"{_short(weight)}:{_short(similarity) or '-'}"
        for weight, similarity in zip(weights, speakers.similarities, strict=True)
    )


def _short(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.3g}"


def number(value: float, style: str) -> str:
    """A number as people read it: a true minus sign, a dash where there is none."""
    return format(value, style).replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "–"
