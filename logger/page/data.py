"""What a rankings page is told: plain numbers and texts, no tensors, no model."""

from collections.abc import Sequence
from dataclasses import dataclass


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
class Ranking:
    """One query, its true video and the best-ranked videos.

    `rank` is 1-based among all videos, ties count half a place each; `similarity` is that of the
    query and its true video; `retrieved` holds the top k, best first.
    """

    query_id: str
    captions: list[str]
    video_id: str
    rank: float
    similarity: float
    retrieved: list[Retrieved]
    speakers: Speakers | None = None  # of the match with the true video


@dataclass(frozen=True)
class OwnCaption:
    """One of the captions of a video that is the query, with its place among all captions."""

    text: str
    rank: float
    similarity: float


@dataclass(frozen=True)
class RetrievedCaption:
    """One text that the model retrieved for a video; `is_true` where it is the video's own."""

    text: str
    video_id: str
    similarity: float
    is_true: bool
    speakers: Speakers | None = None


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
