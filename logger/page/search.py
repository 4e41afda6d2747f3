"""The search page: one box, the best videos and why they were found, as HTML from plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from logger.page.page import environment
from logger.page.videos import Video

STYLES = ("style.css", "top.css", "cards.css", "matches.css", "search.css")
SCRIPTS = ("search_videos.js", "search.js", "search_keys.js")
WEIGHT = "weight."  # what the name of an expert's slider begins with
SHOWN = 5  # videos at first, all of which play
STEPS = (SHOWN, 10, 20, 50)  # how many may be asked for
MOST_WEIGHT = 3  # of an expert, where 1 is as trained
LONGEST = 1000  # characters of a query
BAR = 1000  # units that a bar is long


@dataclass(frozen=True)
class Asked:
    """What somebody asks for; everything may come from a stranger's link.

    Attributes:
        query: the sentence.
        without: what should not be there.
        like: a video's id in place of the sentence.
        file: what a file that was sent is known by, in place of the sentence.
        weights: expert -> factor of its weight, where it is not 1.
        k: number of videos.
    """

    query: str = ""
    without: str = ""
    like: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    k: int = SHOWN
    file: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.query or self.like or self.file)

    def address(self, **changes: object) -> str:
        """The address at which this is found, with some of it changed."""
        asked = replace(self, **changes)  # type: ignore[arg-type]  # checked by the dataclass
        parts = {"q": asked.query, "not": asked.without, "like": asked.like, "file": asked.file}
        parts |= {f"{WEIGHT}{name}": f"{factor:g}" for name, factor in asked.weights.items()}
        if asked.k != SHOWN:
            parts["k"] = str(asked.k)
        return "?" + urlencode({name: value for name, value in parts.items() if value})


@dataclass(frozen=True)
class Share:
    """What one expert adds to a similarity: its weight times the similarity that it gives."""

    expert: str
    value: float
    weight: float
    similarity: float


@dataclass(frozen=True)
class Spoken:
    """Words that an expert has read or heard, and when (seconds)."""

    expert: str
    text: str
    start: float | None


@dataclass(frozen=True)
class Found:
    """One video that was found.

    Attributes:
        video_id: its id.
        similarity: the sum of its shares.
        score: what it is ranked by.
        shares: in the order of the experts; what the video lacks is left out.
        video: its file and its picture, as the page reaches them.
        path: of its file, to be read.
        start: the matching second; None for the beginning.
        end: where the match ends; None for the end.
        words: what was said or written there.
        captions: written for it.
    """

    video_id: str
    similarity: float
    score: float
    shares: Sequence[Share] = ()
    video: Video = field(default_factory=Video)
    path: str = ""
    start: float | None = None
    end: float | None = None
    words: Sequence[Spoken] = ()
    captions: Sequence[str] = ()

    @property
    def fragment(self) -> str:
        """Where the match begins, as an address ends with it (Media Fragments).

        It does not say where the match ends: browsers stop there, and the page goes round.
        """
        return "" if self.start is None else f"#t={self.start:g}"


@dataclass(frozen=True)
class SearchPage:
    """A search page and what it answers.

    Attributes:
        name: of the index.
        facts: what there is to say about it.
        experts: whose weights can be changed; empty where none can.
        asked: what is asked for.
        found: best first.
        refusal: why there is no answer.
        note: what there is to say about the answer.
        examples: captions to begin with.
        starts: ids of videos to begin with.
        takes_files: whether a file may be sent in place of a sentence.
    """

    name: str
    facts: str
    experts: Sequence[str]
    asked: Asked = Asked()
    found: Sequence[Found] = ()
    refusal: str = ""
    note: str = ""
    examples: Sequence[str] = ()
    starts: Sequence[str] = ()
    takes_files: bool = False

    @property
    def title(self) -> str:
        other = self.asked.like or ("a file" if self.asked.file else "")
        asked = self.asked.query or (f"more like {other}" if other else "")
        return f"{asked} – {self.name}" if asked else f"Search {self.name}"


def search_html(page: SearchPage) -> str:
    """Draw the page. Ids, captions, words and the query are data: they appear as text."""
    more = next((k for k in STEPS if k > page.asked.k), None)
    parts = _parts(page.found)
    return (
        environment()
        .get_template("search.html")
        .render(
            page=page,
            bars=list(map(bar, parts)),
            span=_span(parts),
            length=BAR,
            colour=_colours(page),
            lacking=[_lacking(page, found) for found in page.found],
            more=more if len(page.found) == page.asked.k else None,
            clock=_clock,
            weight=WEIGHT,
            shown=SHOWN,
            most=MOST_WEIGHT,
            longest=LONGEST,
            styles=STYLES,
            scripts=SCRIPTS,
        )
    )


# What the template shows ------------------------------------------------------------------------


CORRECTION = ""  # stands where an expert's name would, which is never empty


Parts = list[tuple[str, float]]  # names and values


@dataclass(frozen=True)
class Piece:
    """A part of a stacked bar: what one expert adds, or a correction. In units of similarity."""

    name: str
    value: float
    start: float

    @property
    def length(self) -> float:
        return abs(self.value)


def bar(parts: Parts) -> list[Piece]:
    """Stack values from zero: those above it to the right, those below it to the left."""
    pieces, right, left = [], 0.0, 0.0
    for name, value in parts:
        if value > 0:
            pieces.append(Piece(name, value, right))
            right += value
        elif value < 0:
            left += value
            pieces.append(Piece(name, value, left))
    return pieces


def _parts(found: Sequence[Found]) -> list[Parts]:
    """The shares of each hit, and what is taken off for other reasons.

    That is told relative to the hit of which least is taken: the same for all changes no order.
    """
    taken = [one.similarity - one.score for one in found]
    least = min(taken, default=0.0)
    return [
        [*((share.expert, share.value) for share in one.shares), (CORRECTION, least - off)]
        for one, off in zip(found, taken, strict=True)
    ]


def _span(parts: Sequence[Parts]) -> tuple[float, float]:
    """The lowest and highest ends of all bars, which share one scale."""
    values = [[value for _, value in one] for one in parts]
    low = min((sum(v for v in one if v < 0) for one in values), default=0.0)
    high = max((sum(v for v in one if v > 0) for one in values), default=0.0)
    return low, max(high, low + 1e-6)


def _lacking(page: SearchPage, found: Found) -> list[str]:
    there = {share.expert for share in found.shares}
    return [expert for expert in page.experts if expert not in there]


_COLOURS = 10


def _colours(page: SearchPage) -> dict[str, int]:
    names = [*page.experts, *(share.expert for found in page.found for share in found.shares)]
    return {name: place % _COLOURS for place, name in enumerate(dict.fromkeys(names))}


def _clock(seconds: float) -> str:
    """A time in a video: 0:07, 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
