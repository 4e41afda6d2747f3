"""What a rankings page is told: plain numbers and texts, no tensors, no model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Speakers:
    """How much each expert says in one match: its weight, and the similarity that it gives.

    `similarities` holds None for experts that the video does not have; `weights` is None for a
    model without mixture weights. The match's similarity is the sum of weight times similarity.
    """

    similarities: Sequence[float | None]
    weights: Sequence[float] | None = None


@dataclass(frozen=True)
class Retrieved:
    """One video that the model retrieved, with the similarity that it gave."""

    video_id: str
    similarity: float
    speakers: Speakers | None = None


@dataclass(frozen=True)
class Misled:
    """The expert that misled a query most: without it the true video would have ranked better."""

    expert: int  # its place in `Page.experts`
    rank: float  # of the true video, if no video had that expert


@dataclass(frozen=True)
class Ranking:
    """One query, its true video and the best-ranked videos.

    `rank` is 1-based among all videos, ties count half a place each; `similarity` is that of the
    query and its true video; `retrieved` holds the top k, best first. `number` counts the queries
    of the whole set from 1; without it a card is numbered by its place on the page.
    """

    query_id: str
    captions: list[str]
    video_id: str
    rank: float
    similarity: float
    retrieved: list[Retrieved]
    speakers: Speakers | None = None  # of the match with the true video
    misled: Misled | None = None
    number: int | None = None


@dataclass(frozen=True)
class OwnCaption:
    """One of the captions of a video that is the query, with its place among all captions."""

    text: str
    rank: float
    similarity: float
    number: int | None = None  # of the caption as a query, see `Ranking`


@dataclass(frozen=True)
class RetrievedCaption:
    """One text that the model retrieved for a video, and the video that it was written for."""

    text: str
    video_id: str
    similarity: float
    speakers: Speakers | None = None
    number: int | None = None  # of the caption as a query, see `Ranking`


@dataclass(frozen=True)
class VideoRanking:
    """One video as the query, its own captions and the best-ranked captions of the set.

    `rank` and `similarity` are those of the best of `own`, ranked as `Ranking.rank` is, among all
    captions; `retrieved` holds the top k, best first.
    """

    video_id: str
    rank: float
    similarity: float
    own: list[OwnCaption]
    retrieved: list[RetrievedCaption]
    number: int | None = None


@dataclass(frozen=True)
class Curve:
    """A value at some epochs of the training."""

    name: str
    points: Sequence[tuple[int, float]]  # (epoch, value)


@dataclass(frozen=True)
class Everything:
    """All queries of the retrieval set; walked once, in their order.

    Attributes:
        video_ids: of the set.
        rankings: of all texts; their `number`s count from 1.
        video_rankings: of all videos, in the order of `video_ids`, or of none.
    """

    video_ids: Sequence[str]
    rankings: Iterable[Ranking]
    video_rankings: Iterable[VideoRanking] = ()


@dataclass(frozen=True)
class Page:
    """A rankings page: one evaluation, and what its model retrieves for sampled queries.

    Titles, ids and captions are data: they appear on the page as text, whatever they hold.

    Attributes:
        title: its heading.
        metrics: direction ("t2v", "v2t", either with "_corrected") -> name of the metric -> value,
            shown as a table.
        num_videos: size of the retrieval set.
        num_texts: number of texts that are ranked for a video.
        rankings: text to video, one card each, in this order.
        video_rankings: video to text, one card each, in this order.
        every: all queries, which the page loads when they are asked for; None: it has its cards
            alone.
        ranks: direction -> the ranks of all queries, shown as a histogram and a recall curve.
        experts: names of the experts that the rankings' `speakers` are about.
        captions_of: video id -> captions, shown below retrieved videos.
        file_name: of the page in its folder.
        name: what the page is called in the list of the folder's pages ("epoch 3").
        order: place in that list: epochs by number, the test of the best model last.
        note: what there is to say about the metrics.
        about: what the evaluation was of: name of a fact -> fact.
        curves: of the training, shown beside the ranks.
    """

    title: str
    metrics: Mapping[str, Mapping[str, float]]
    num_videos: int
    num_texts: int
    rankings: Sequence[Ranking] = ()
    video_rankings: Sequence[VideoRanking] = ()
    every: Everything | None = None
    ranks: Mapping[str, Sequence[float]] = field(default_factory=dict)
    experts: Sequence[str] = ()
    captions_of: Mapping[str, Sequence[str]] = field(default_factory=dict)
    file_name: str = "index.html"
    name: str = "test"
    order: int = 0
    note: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
