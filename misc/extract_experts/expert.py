"""What an expert is: what it looks at, and a function from that to vectors or words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Frames:
    """A look at the picture: at each time t = k / fps, the last frame whose time is not after t.

    Attributes:
        fps: frames a second.
        size: pixels of the shorter side; the other one follows from the video's shape.
        square: whether the middle square is cut out, so that all frames have one shape.
        count: frames of a chunk at most; the last chunk of a video may have fewer.
    """

    fps: float
    size: int
    square: bool = False
    count: int = 32


@dataclass(frozen=True)
class Sound:
    """A look at the sound: 16 kHz, mono, float32, -1 to 1.

    Attributes:
        seconds: of a chunk; the last chunk of a video may be shorter.
    """

    seconds: float

    RATE = 16000


Look = Frames | Sound


@dataclass(frozen=True)
class Chunk:
    """A piece of one video.

    Attributes:
        values: frames (n, height, width, 3), uint8; or sound (n,), float32. n is at least 1.
        times: (n,) seconds of the frames asked for; of sound (1,), when it starts. They count from
            the first frame, so that sound may start before 0.
    """

    values: np.ndarray
    times: np.ndarray


@dataclass(frozen=True)
class Words:
    """Something said, written or recognised.

    Attributes:
        text: one word or several.
        start, end: seconds.
    """

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Seen:
    """What an expert makes of a chunk; nothing at all where it sees nothing.

    Attributes:
        vectors: (m, D), float32; m is 0 where there is nothing (no face, silence): an expert that
            has no vector of a whole video is missing there, never zeros.
        words: in order of time.
    """

    vectors: np.ndarray | None = None
    words: tuple[Words, ...] = ()


Function = Callable[[Sequence[Chunk]], list[Seen]]
"""Chunks, perhaps of several videos -> what is seen in each, in the same order.

On the CPU one chunk is given at a time, so that a video's features do not depend on its company.
"""


@dataclass(frozen=True)
class Settings:
    """How an expert is to run.

    Attributes:
        model: the name after the colon ("timm:NAME"), empty where none stands.
        device: torch's name of it.
        half: whether networks compute in half precision.
    """

    model: str = ""
    device: str = "cpu"
    half: bool = False


@dataclass(frozen=True)
class Loaded:
    """An expert that is ready to run.

    Attributes:
        function: see there.
        look: what it looks at.
        size: D, length of a vector; 0 where it gives words alone, which become vectors by the data
            set's text encoder.
        record: what made the features: {"model", "version", "weights": sha256 or "none", ...},
            plain JSON. Features of another record are made anew.
        batch: chunks that are worth while in one call on a GPU.
    """

    function: Function
    look: Look
    size: int
    record: dict[str, Any] = field(default_factory=dict)
    batch: int = 1


@dataclass(frozen=True)
class Row:
    """One row of the table of experts.

    Attributes:
        name: as --experts names it.
        what: it describes, in a few words.
        is_variable: whether a video has a number of vectors (all that its chunks give), not one
            (their mean).
        licence: of the weights.
        weights: where they come from, in words.
        load: makes it ready; raises UserError where a package or a file is missing.
        needs_model: whether a name must stand after the colon.
        gives_words: whether it gives words, which are kept in texts/<expert>.json; vectors, if it
            gives any, are kept besides.
    """

    name: str
    what: str
    is_variable: bool
    licence: str
    weights: str
    load: Callable[[Settings], Loaded]
    needs_model: bool = False
    gives_words: bool = False


def each(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Function:
    """Make an expert's function of one on a single chunk: values and times -> vectors (m, D)."""

    def of_chunks(chunks: Sequence[Chunk]) -> list[Seen]:
        return [Seen(function(chunk.values, chunk.times)) for chunk in chunks]

    return of_chunks


def runs(seen: Sequence[Sequence[str]], times: np.ndarray, step: float) -> tuple[Words, ...]:
    """Join what is recognised at consecutive moments.

    Args:
        seen: texts of each moment.
        times: (moments,) seconds.
        step: seconds from one moment to the next.

    Returns:
        Each text with the time from its first moment to `step` after its last one in a row, by
        start; those of one moment in the order in which they were given.
    """
    found: list[Words] = []
    running: dict[str, int] = {}
    for texts, time in zip(seen, times, strict=True):
        still = {}
        for text in dict.fromkeys(texts):
            place = running.get(text, len(found))
            start = found[place].start if text in running else round(float(time), 3)
            found[place : place + 1] = [Words(text, start, round(float(time) + step, 3))]
            still[text] = place
        running = still
    return tuple(found)
