"""What a search finds: hits as plain values, and segments of one video joined to one hit."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# Segments of a video that lie at most so many seconds apart are neighbours.
JOINED_SECONDS = 1.0


@dataclass(frozen=True)
class Word:
    """What was said in a video, or is to be read in it.

    Attributes:
        expert: who read it, such as "speech" or "ocr".
        text: one word or several.
        start, end: seconds from the video's beginning; None where they are not known.
    """

    expert: str
    text: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Hit:
    """A video that a query finds.

    Attributes:
        video_id: the video, or the segment of one.
        similarity: of query and video, as `model.similarity` gives it.
        score: what hits are ranked by: the similarity less what is known of the video's hubness,
            and less the share of what the query does not want.
        confident: whether the score reaches what matches of validation captions reach; None where
            nothing was calibrated.
        weights: expert -> mixture weight; those of the experts that the video has sum to 1.
        similarities: expert -> similarity by that expert alone.
        path: the video's file, which need not exist on this machine.
        parent: the video that a segment belongs to, else the video itself.
        start, end: of a segment, in seconds.
        words: what the video says and shows, with times.
        captions: of the data set, where it has any.
    """

    video_id: str
    similarity: float
    score: float
    confident: bool | None
    weights: dict[str, float]
    similarities: dict[str, float]
    path: Path | None = None
    parent: str = ""
    start: float | None = None
    end: float | None = None
    words: tuple[Word, ...] = ()
    captions: tuple[str, ...] = ()

    @property
    def experts(self) -> dict[str, float]:
        """Why: each expert's share of the similarity, its weight times its similarity."""
        return {name: weight * self.similarities[name] for name, weight in self.weights.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold of it."""
        path = None if self.path is None else str(self.path)
        return asdict(self) | {"path": path, "experts": self.experts}


@dataclass(frozen=True)
class Info:
    """What an index says of itself.

    Attributes:
        name: of its folder.
        num_videos: how many can be found.
        experts: the model's, in its order.
        data_set: whose videos they are, in words.
        model: the experiment, or what searches without training.
        examples: captions for those who do not know what to ask.
        video_folder: what the paths of videos are relative to.
        threshold: score from which a hit is confident; None where nothing was calibrated.
        correction: how hubs are corrected.
        takes_text: whether the index knows how to encode a sentence.
        has_weights: whether the experts can be weighted: not where they share one embedding.
        takes_files: whether the index knows how to extract the experts of a file.
    """

    name: str
    num_videos: int
    experts: tuple[str, ...]
    data_set: str
    model: str
    examples: tuple[str, ...]
    video_folder: Path | None
    threshold: float | None
    correction: str
    takes_text: bool
    has_weights: bool
    takes_files: bool = False


def join_segments(hits: Iterable[Hit]) -> list[Hit]:
    """Join segments of one video that are neighbours in time, in the order of the best of each.

    A joined hit is its best segment with the times from the first to the last one.
    """
    joined: list[Hit] = []
    for hit in hits:
        place = next((at for at, other in enumerate(joined) if _touch(hit, other)), None)
        if place is None:
            joined.append(hit)
            continue
        joined[place] = _spanning(joined[place], hit)
        # The new segment may close the gap to others.
        for at in range(len(joined) - 1, -1, -1):
            if at != place and _touch(joined[at], joined[place]):
                first, second = sorted((at, place))
                joined[first] = _spanning(joined[first], joined.pop(second))
                place = first
    return joined


def _touch(one: Hit, other: Hit) -> bool:
    if one.parent != other.parent or None in (one.start, one.end, other.start, other.end):
        return False
    assert one.start is not None and one.end is not None  # what the line above says
    assert other.start is not None and other.end is not None
    gap = max(one.start, other.start) - min(one.end, other.end)
    return gap <= JOINED_SECONDS


def _spanning(best: Hit, other: Hit) -> Hit:
    times = [t for hit in (best, other) for t in (hit.start, hit.end) if t is not None]
    return replace(best, start=min(times), end=max(times))
