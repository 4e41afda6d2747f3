"""Reads one media file from front to end and gives what each look asks for, piece by piece.

Frames are exact: at each time asked for, the last frame whose time is not after it stands there,
whatever the frame rate does; before the first frame there is none. Nothing is sought, and nothing
but the pieces at hand is kept. It runs in the process of `worker.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from misc.extract_experts.decoding.cutting import FrameLook, Piece, SoundLook, items_of
from misc.extract_experts.expert import Frames, Look, Sound

# What libav may take a file for: media alone, none of the formats that name further files (play
# lists, concat, images by number), that are sent for over a network, or that draw text as video.
_FORMATS = (
    *("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "asf", "mpegts", "mpeg"),
    *("mpegvideo", "h264", "hevc", "av1", "obu", "ivf", "m4v", "ogg", "rm", "dv", "mxf", "nut"),
    *("gif", "apng", "webp", "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe"),
    *("mp3", "wav", "flac", "aac", "aiff", "au", "caf", "ac3", "eac3", "amr", "w64", "ape", "wv"),
)
_OPTIONS = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "none"}
# Formats whose header says how long the file is.
_SAYS_ITS_LENGTH = ("mov", "matroska")
_MISSING_SHARE, _MISSING_SECONDS = 0.1, 1.0
_DAMAGED_SHARE = 0.1
_BUFFER = 1 << 18
# A damaged time would let a frame stand still for years, and be looked at as often.
_LONGEST, _LONGEST_FRAME = 24 * 3600, 600  # seconds
_FREE_LENGTH, _BYTES_PER_SECOND = 3600, 8  # no picture or sound is coded in less
_MOST_HELD = 5000  # frames of sound: a minute or two
_SLOWEST = 0.01  # frames a second
_GAP = 0.1  # seconds of sound that may lack without anything standing in


class Unreadable(Exception):
    """A file that cannot be used; the message goes on where a sentence has named it.

    Args:
        why: the message.
        is_lasting: whether the file is to blame, which is not tried again until it changes.
    """

    def __init__(self, why: str, is_lasting: bool = True) -> None:
        super().__init__(why)
        self.is_lasting = is_lasting


@dataclass(frozen=True)
class End:
    """What is known of a file once it has been read.

    Attributes:
        seconds: its length, of picture or sound, whichever is longer.
        items: start and end of each segment, in seconds; one without a name where it is whole.
    """

    seconds: float
    items: list[tuple[float, float]]


def read_media(
    handle: IO[bytes], looks: Sequence[Look], segments: str, threads: int
) -> Iterator[Piece | End]:
    """Give the pieces of a file, and what it was at the end.

    Args:
        handle: the open file.
        looks: what is wanted.
        segments: as `items_of` takes it.
        threads: of the decoder.

    Raises:
        Unreadable: it is no such file, is damaged, or ends before it should.
    """
    try:
        with av.open(
            _Nameless(handle), options=_OPTIONS, buffer_size=_BUFFER, metadata_errors="replace"
        ) as container:
            yield from _Reader(container, looks, segments, threads).read()
    except av.error.FFmpegError as error:
        raise Unreadable(f"it cannot be decoded ({error.strerror})") from error
    except MemoryError as error:
        raise Unreadable("decoding it takes more memory than is allowed") from error


class _Nameless:
    """An open file whose name libav does not learn: some would be taken for patterns of names."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.read, self.seek, self.tell = handle.read, handle.seek, handle.tell


class _Reader:
    """One file that is being read."""

    def __init__(self, container: Any, looks: Sequence[Look], segments: str, threads: int) -> None:
        self.container, self.size = container, container.size
        self.items = items_of(segments)
        self.video = _first(s for s in container.streams.video if not _is_cover(s))
        self.audio = _first(container.streams.audio)
        pixel = Fraction((self.video and self.video.sample_aspect_ratio) or 1)
        self.frame_looks = [
            FrameLook(number, look, self.items, pixel)
            for number, look in enumerate(looks)
            if isinstance(look, Frames)
        ]
        self.sound_looks = [
            SoundLook(number, look, self.items)
            for number, look in enumerate(looks)
            if isinstance(look, Sound)
        ]
        for stream in filter(None, (self.video, self.audio)):
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
        self.origin: Fraction | None = None
        self.before_origin: list[Any] = []  # frames of sound until the first of the picture
        self.picture_end = self.sound_end = Fraction(0)
        self.last_time: Fraction | None = None  # of the picture
        self.good = self.damaged = 0
        self.resampler: Any = None
        self.kind: tuple[Any, ...] | None = None  # of sound that it takes
        self.place: int | None = None  # of the sample that comes next, from the first frame
        self.heard_until = 0  # what went into the resampler

    def read(self) -> Iterator[Piece | End]:
        streams = [stream for stream in (self.video, self.audio) if stream is not None]
        if not streams:
            raise Unreadable("it holds neither picture nor sound")
        breaks_off = False
        packets = self.container.demux(streams)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                breaks_off, packet = True, None
            except IndexError:  # PyAV's, at the end of a file with streams that began later
                packet = None
            if packet is None:
                break
            for frame in self._frames(packet):
                if packet.stream is self.video:
                    yield from self._picture(frame)
                else:
                    yield from self._sound(frame)
        yield from self._finish()
        self._insist_on_all(streams, breaks_off)
        seconds = max(self.picture_end, self.sound_end)
        yield End(float(seconds), self.items.spans(seconds))

    def _frames(self, packet: Any) -> list[Any]:
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self.damaged += 1
            return []
        self.good += 1
        return frames

    # --- Picture ----------------------------------------------------------------------------------

    def _picture(self, frame: Any) -> Iterator[Piece]:
        time = self._time_of(frame)
        if self.origin is None:
            self.origin = time
        time -= self.origin
        if self.last_time is not None and time <= self.last_time:
            return  # a clock that goes back
        self._refuse_endless(time, self.last_time or Fraction(0))
        length = (frame.duration or 0) * frame.time_base
        if not 0 < length <= _LONGEST_FRAME:
            length = self._usual_length()
        self.picture_end = time + length
        self.last_time = time
        self.items.see(frame, time)
        for look in self.frame_looks:
            yield from look.advance(frame, time)
        held, self.before_origin = self.before_origin, []
        for sound in held:
            yield from self._sound(sound)
        if self.items.follows_picture:
            for sound_look in self.sound_looks:
                yield from sound_look.give(time)

    def _time_of(self, frame: Any) -> Fraction:
        if frame.pts is not None and frame.time_base:
            return frame.pts * frame.time_base
        if self.last_time is None or self.origin is None:
            return Fraction(0)
        return self.origin + self.last_time + self._usual_length()

    def _refuse_endless(self, time: Fraction, before: Fraction) -> None:
        if abs(time) > min(_LONGEST, _FREE_LENGTH + self.size / _BYTES_PER_SECOND):
            raise Unreadable("its times spread over far more than files of its size can hold")
        if time - before > _LONGEST_FRAME:
            raise Unreadable(f"its times jump by {float(time - before):.0f} seconds")

    def _usual_length(self) -> Fraction:
        rate = self.video.average_rate or self.video.guessed_rate
        return 1 / Fraction(rate) if rate and rate > _SLOWEST else Fraction(1, 25)

    # --- Sound ------------------------------------------------------------------------------------

    def _sound(self, frame: Any) -> Iterator[Piece]:
        if self.origin is None:
            if self.video is not None and len(self.before_origin) < _MOST_HELD:
                self.before_origin.append(frame)
                return
            yield from self._begin_without_picture(frame)
        place = self.heard_until
        if frame.pts is not None:
            place = round((frame.pts * frame.time_base - self.origin) * Sound.RATE)
        if self.place is None:
            self.place = self.heard_until = place or 0
            for look in self.sound_looks:
                look.start(self.place)
        heard = Fraction(self.heard_until, Sound.RATE)
        self._refuse_endless(Fraction(place, Sound.RATE), heard)
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self.kind or place - self.heard_until > _GAP * Sound.RATE:
            yield from self._resample(None)
            yield from self._silence(place)
            self.resampler = av.AudioResampler(format="flt", layout="mono", rate=Sound.RATE)
            self.kind = kind
        self.heard_until = place + round(Fraction(frame.samples * Sound.RATE, frame.sample_rate))
        yield from self._resample(frame)

    def _begin_without_picture(self, frame: Any) -> Iterator[Piece]:
        """Let times count from the sound: the picture does not come."""
        held, self.before_origin = self.before_origin, []
        first = held[0] if held else frame
        self.origin = first.pts * first.time_base if first.pts is not None else Fraction(0)
        for sound in held:
            yield from self._sound(sound)

    def _resample(self, frame: Any) -> Iterator[Piece]:
        """Give the sound of a frame; without one, what the resampler still holds."""
        for piece in self.resampler.resample(frame) if self.resampler else ():
            yield from self._hear(piece.to_ndarray().ravel())

    def _silence(self, place: int) -> Iterator[Piece]:
        """Let nothing be heard where the sound has a gap."""
        assert self.place is not None
        while self.place < place:
            yield from self._hear(np.zeros(min(place - self.place, Sound.RATE), np.float32))

    def _hear(self, samples: np.ndarray) -> Iterator[Piece]:
        assert self.place is not None
        self.place += len(samples)
        for look in self.sound_looks:
            look.push(samples)
            if not self.items.follows_picture:
                yield from look.give()

    # --- The end ----------------------------------------------------------------------------------

    def _finish(self) -> Iterator[Piece]:
        if self.origin is None and self.before_origin:
            yield from self._begin_without_picture(None)
        yield from self._resample(None)
        self.sound_end = Fraction(self.place or 0, Sound.RATE)
        for frame_look in self.frame_looks:
            yield from frame_look.finish(self.picture_end)
        for sound_look in self.sound_looks:
            yield from sound_look.finish()

    def _insist_on_all(self, streams: Sequence[Any], breaks_off: bool) -> None:
        """Insist that most of what the file announces was there.

        Raises:
            Unreadable: it was not.
        """
        end = max(self.picture_end, self.sound_end)
        if self.origin is None or not end:
            raise Unreadable("no picture and no sound in it can be decoded")
        if self.damaged > _DAMAGED_SHARE * self.good:
            total = self.damaged + self.good
            raise Unreadable(f"{self.damaged} of its {total} packets are damaged")
        promised = self._promised(streams)
        if promised is not None:
            lacks = promised - end
            if lacks > _MISSING_SECONDS and lacks > _MISSING_SHARE * promised:
                raise Unreadable(f"it ends after {float(end):.1f} of {float(promised):.1f} seconds")
        elif breaks_off:
            raise Unreadable(f"it breaks off after {float(end):.1f} seconds")

    def _promised(self, streams: Sequence[Any]) -> Fraction | None:
        """Return how many seconds the file says that it has, None where it does not say."""
        if not self.container.format.name.startswith(_SAYS_ITS_LENGTH):
            return None
        lengths = [s.duration * s.time_base for s in streams if s.duration and s.time_base]
        if lengths:
            return max(lengths)
        whole = self.container.duration
        return Fraction(whole, av.time_base) if whole else None


def _first(streams: Iterable[Any]) -> Any:
    """Return the first stream that there is a decoder for."""
    return next((stream for stream in streams if stream.codec_context is not None), None)


def _is_cover(stream: Any) -> bool:
    """Whether a picture is that of an album, not one of a film."""
    return bool(stream.disposition & Disposition.attached_pic)
