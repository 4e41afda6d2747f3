"""Videos of which every frame says its number, in bars that survive coding and scaling."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 10
WIDTH, HEIGHT = 200, 120
RATE = 44100


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame with its number in black and white bars, the lowest bit at the left."""
    bits = [(number >> place) & 1 for place in range(BITS)]
    bars = np.array(bits)[np.arange(width) * BITS // width]
    frame = np.repeat(np.where(bars, 235, 20)[None, :, None], height, 0).repeat(3, -1)
    return frame.astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """Read the number of a frame again."""
    height, width = frame.shape[:2]
    middles = (np.arange(BITS) + 0.5) * width / BITS
    bits = frame[height // 2, middles.astype(int)].mean(-1) > 128
    return int((bits * 2 ** np.arange(BITS)).sum())


def tone(seconds: float, pitch: float = 440.0, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype("f4")


def write_media(
    path: Path,
    frames: Iterable[np.ndarray] = (),
    times: Sequence[Fraction] | int = 30,
    sound: np.ndarray | None = None,
    *,
    sound_start: Fraction = Fraction(0),
    rotation: int = 0,
    codec: str = "libx264",
    sound_codec: str = "aac",
    options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """Write a file; `times` are those of the frames, or how many there are a second."""
    frames = list(frames)
    with av.open(str(path), "w", format=container_format) as container:
        picture: Any = None
        if frames:
            rate = times if isinstance(times, int) else 30
            picture = container.add_stream(
                codec, rate=rate, options={"threads": "1", **(options or {})}
            )
            picture.height, picture.width = frames[0].shape[:2]
            picture.pix_fmt = "yuv420p"
            base = Fraction(1, 90000)
            picture.time_base = picture.codec_context.time_base = base
            if rotation:
                picture.set_display_rotation(rotation)
        track: Any = None
        if sound is not None:
            track = container.add_stream(sound_codec, rate=RATE, layout="mono")
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            time = Fraction(number, times) if isinstance(times, int) else times[number]
            frame.pts, frame.time_base = round(time / base), base
            container.mux(picture.encode(frame))
        if picture is not None:
            container.mux(picture.encode(None))
        for start in range(0, 0 if sound is None else len(sound), 1024):
            piece = np.ascontiguousarray(sound[None, start : start + 1024])
            kind = "s16" if sound_codec in ("pcm_s16le", "flac") else "fltp"
            if kind == "s16":
                piece = (piece * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(piece, format=kind, layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = start + round(sound_start * RATE)
            container.mux(track.encode(frame))
        if track is not None:
            container.mux(track.encode(None))
    return path


def write_sound_with_gap(path: Path, sound: np.ndarray, gap: float) -> Path:
    """Write the same sound twice, with so many seconds of nothing in between."""
    with av.open(str(path), "w") as container:
        track: Any = container.add_stream("flac", rate=RATE, layout="mono")
        for begin in (0, len(sound) + round(gap * RATE)):
            for start in range(0, len(sound), 1024):
                piece = (sound[None, start : start + 1024] * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = begin + start
                container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path
