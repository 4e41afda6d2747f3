"""Cuts what is decoded into items (the whole file, or segments of it) and chunks of a look."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from misc.extract_experts.expert import Frames, Sound

CUTS = "cuts"

_LONGEST_SHAPE = 4  # a longer side is squeezed to so many times the shorter one
_CUT_SIZE = 160, 96  # pixels in which cuts are looked for
_SHORTEST_SHOT = Fraction(3, 5)  # seconds
_SCRAP = Fraction(1, 10)  # of a segment; a shorter rest at the end of a file is left out


@dataclass(frozen=True)
class Piece:
    """A chunk of one look.

    Attributes:
        look: its number.
        item: which segment it belongs to.
        values: frames (n, height, width, 3), uint8, or sound (n,), float32.
        times: (n,) seconds of frames, (1,) of sound, from the start of the item.
    """

    look: int
    item: int
    values: np.ndarray
    times: np.ndarray


class Items(ABC):
    """The segments of a file; times are seconds from its first frame."""

    follows_picture = False
    """Whether the segments that sound belongs to are known only once the picture is there."""

    def see(self, frame: Any, time: Fraction) -> None:  # noqa: B027 (few want to)
        """Look at a frame of the picture; frames come in order."""

    @abstractmethod
    def end_of(self, item: int) -> Fraction | None:
        """Return the time at which an item ends, None where that is not known (yet)."""

    @abstractmethod
    def spans(self, seconds: Fraction) -> list[tuple[float, float]]:
        """Return start and end of all items of a file that is so long."""


class Whole(Items):
    """The file as it is."""

    def end_of(self, item: int) -> Fraction | None:
        return None

    def spans(self, seconds: Fraction) -> list[tuple[float, float]]:
        return [(0.0, float(seconds))]


class Even(Items):
    """Segments of one length."""

    def __init__(self, length: Fraction) -> None:
        self.length = length

    def end_of(self, item: int) -> Fraction | None:
        return (item + 1) * self.length

    def spans(self, seconds: Fraction) -> list[tuple[float, float]]:
        count = max(1, -(-seconds // self.length))
        if count > 1 and seconds - (count - 1) * self.length < _SCRAP * self.length:
            count -= 1
        starts = [item * self.length for item in range(count)]
        return [(float(t), float(min(t + self.length, seconds))) for t in starts]


class Shots(Items):
    """Segments between cuts, as scenedetect finds them in the colours of the picture."""

    follows_picture = True

    def __init__(self) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import ContentDetector

        self.starts = [Fraction(0)]
        self._detector = ContentDetector(min_scene_len=0)
        self._number = FrameTimecode  # the detector asks for one, and hands it back
        self._seen = 0

    def see(self, frame: Any, time: Fraction) -> None:
        picture = frame.reformat(*_CUT_SIZE, "bgr24", interpolation="AREA").to_ndarray()
        is_cut = self._detector.process_frame(self._number(self._seen, 25.0), picture)
        self._seen += 1
        if is_cut and time - self.starts[-1] >= _SHORTEST_SHOT:
            self.starts.append(time)

    def end_of(self, item: int) -> Fraction | None:
        return self.starts[item + 1] if item + 1 < len(self.starts) else None

    def spans(self, seconds: Fraction) -> list[tuple[float, float]]:
        ends = [*self.starts[1:], max(seconds, self.starts[-1])]
        return [(float(a), float(b)) for a, b in zip(self.starts, ends, strict=True)]


def items_of(segments: str) -> Items:
    """Return the kind of items: "" for the file as it is, "cuts", or seconds ("10")."""
    if not segments:
        return Whole()
    return Shots() if segments == CUTS else Even(Fraction(segments))


class FrameLook:
    """Collects the frames that one look asks for.

    Args:
        number: of the look.
        look: it.
        items: of the file.
        pixel: width of a pixel, of its height.
    """

    def __init__(self, number: int, look: Frames, items: Items, pixel: Fraction) -> None:
        self.number, self.look, self.items, self.pixel = number, look, items, pixel
        self._step = 1 / Fraction(str(look.fps))
        self._item = 0
        self._asked = Fraction(0)  # the time whose frame comes next
        self._start = Fraction(0)  # of the item
        self._frame: Any = None
        self._image: np.ndarray | None = None  # of the frame, once somebody has asked
        self._size: tuple[int, int] | None = None
        self._images: list[np.ndarray] = []
        self._times: list[float] = []

    def advance(self, frame: Any, time: Fraction) -> Iterator[Piece]:
        """Give what is complete now that the next frame begins."""
        yield from self._until(time)
        self._frame, self._image = frame, None

    def finish(self, end: Fraction) -> Iterator[Piece]:
        """Give the rest; the last frame ends then."""
        yield from self._until(end)
        yield from self._flush()

    def _until(self, time: Fraction) -> Iterator[Piece]:
        while (end := self.items.end_of(self._item)) is not None and end <= time:
            yield from self._fill(end)
            yield from self._flush()
            self._item += 1
            self._start = self._asked = end
        yield from self._fill(time)

    def _fill(self, end: Fraction) -> Iterator[Piece]:
        while self._frame is not None and self._asked < end:
            if self._image is None:
                self._image = self._image_of(self._frame)
            self._images.append(self._image)
            self._times.append(float(self._asked - self._start))
            self._asked += self._step
            if len(self._images) == self.look.count:
                yield from self._flush()

    def _flush(self) -> Iterator[Piece]:
        if self._images:
            values, times = np.stack(self._images), np.array(self._times)
            self._images, self._times = [], []
            yield Piece(self.number, self._item, values, times)

    def _image_of(self, frame: Any) -> np.ndarray:
        """Return a frame as it is to be seen: upright, in the size of the look."""
        turns = round(frame.rotation / 90) % 4
        if self._size is None:
            self._size = self._size_for(frame, turns)
        width, height = self._size[::-1] if turns % 2 else self._size
        scaled = frame.reformat(width, height, "rgb24", interpolation="BICUBIC").to_ndarray()
        upright = np.rot90(scaled, turns)
        if self.look.square:
            side = self.look.size
            top, left = ((length - side) // 2 for length in upright.shape[:2])
            upright = upright[top : top + side, left : left + side]
        return np.ascontiguousarray(upright)

    def _size_for(self, frame: Any, turns: int) -> tuple[int, int]:
        """Return width and height of the first frame, upright, which the others take as well."""
        width, height = frame.width * self.pixel, Fraction(frame.height)
        if turns % 2:
            width, height = height, width
        scale = self.look.size / min(width, height)
        longest = _LONGEST_SHAPE * self.look.size
        return min(round(width * scale), longest), min(round(height * scale), longest)


class SoundLook:
    """Collects the samples that one look asks for."""

    def __init__(self, number: int, look: Sound, items: Items) -> None:
        self.number, self.items = number, items
        self._length = round(look.seconds * Sound.RATE)
        self._item = 0
        self._place = 0  # of the first sample that is held, counted from the first frame
        self._held: list[np.ndarray] = []
        self._count = 0

    def start(self, place: int) -> None:
        """Begin at a sample, which may lie before the first frame."""
        self._place = place

    def push(self, samples: np.ndarray) -> None:
        """Take the samples that follow."""
        self._held.append(samples)
        self._count += len(samples)

    def give(self, until: Fraction | None = None) -> Iterator[Piece]:
        """Give what is complete, of samples before a time where that is named."""
        known = self._place + self._count
        if until is not None:
            known = min(known, round(until * Sound.RATE))
        while (stop := self._stop()) <= known:
            yield from self._take(stop)

    def finish(self) -> Iterator[Piece]:
        """Give the rest."""
        yield from self.give()
        yield from self._take(self._place + self._count)

    def _stop(self) -> int:
        """Return where the chunk ends that begins with the first sample held."""
        while (end := self.items.end_of(self._item)) is not None:
            place = round(end * Sound.RATE)
            if self._place < place:
                return min(self._place + self._length, place)
            self._item += 1
        return self._place + self._length

    def _take(self, stop: int) -> Iterator[Piece]:
        count = stop - self._place
        if count <= 0:
            return
        joined = np.concatenate(self._held)
        start = np.array([self._place / Sound.RATE - self._start()])
        self._held, self._count = [joined[count:]], self._count - count
        self._place = stop
        yield Piece(self.number, self._item, joined[:count], start)

    def _start(self) -> float:
        """Return the start of the item, in seconds."""
        return float(self.items.end_of(self._item - 1) or 0) if self._item else 0.0
