"""Writes a clip as an MP4 file that browsers play: H.264 and AAC, the index in front."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from misc.demo_set.plan import FRAMES_PER_SECOND
from misc.demo_set.sound import RATE
from utils.errors import UserError
from utils.files import reason, replacing

_SAMPLES_PER_PACKET = 1024


def write_video(path: Path, frames: np.ndarray, samples: np.ndarray, scratch: Path) -> None:
    """Encode uint8 frames (T, height, width, 3) and float32 samples (S,) into `path`, atomically.

    `scratch` is a folder for the draft: FFmpeg moves the index to the front by reading its own
    output again, which needs a real file.

    Raises:
        UserError: the disk is full, or a folder cannot be written.
    """
    draft = scratch / f"draft-{os.getpid()}-{path.name}"
    try:
        _encode(draft, frames, samples)
        encoded = draft.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot write {draft}: {reason(error)}.") from error
    finally:
        draft.unlink(missing_ok=True)
    with replacing(path) as handle:
        handle.write(encoded)


def _encode(path: Path, frames: np.ndarray, samples: np.ndarray) -> None:
    _, height, width, _ = frames.shape
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        # One thread: the bytes must not depend on how many cores there are.
        settings = {"crf": "27", "preset": "superfast", "threads": "1"}
        picture = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=settings)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        # The fast coder halves the time of the sound, and these sounds are simple.
        coder = {"aac_coder": "fast"}
        sound = container.add_stream("aac", rate=RATE, layout="mono", options=coder)
        sound.bit_rate = 48000
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        for start in range(0, len(samples), _SAMPLES_PER_PACKET):
            piece = np.ascontiguousarray(samples[None, start : start + _SAMPLES_PER_PACKET])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
