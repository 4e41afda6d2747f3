"""Experts that need no weights: they are computed of pixels and samples."""

from collections.abc import Callable

import numpy as np

from misc.extract_experts.expert import Frames, Loaded, Look, Row, Settings, Sound, each
from misc.extract_experts.experts import appearance, log_mel, motion

# To be raised whenever the same pixels and samples would give other features.
VERSION = 1

_PICTURE = Frames(fps=10, size=120, count=40)
_HEARD = Sound(seconds=25 * log_mel.HOP / Sound.RATE)


def _row(
    name: str,
    what: str,
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    look: Look,
    size: int,
    is_variable: bool = False,
) -> Row:
    def load(settings: Settings) -> Loaded:
        record = {"model": f"built-in {name}", "version": VERSION, "weights": "none"}
        return Loaded(each(function), look, size, record)

    return Row(name, what, is_variable, "as this program", "none are needed", load)


ROWS = (
    _row(
        "appearance",
        "colours, outline and edges of what moves",
        appearance.appearance,
        _PICTURE,
        appearance.APPEARANCE_SIZE,
    ),
    _row(
        "scene",
        "colours and texture of the picture's thirds",
        appearance.scene,
        _PICTURE,
        appearance.SCENE_SIZE,
    ),
    _row(
        "shape",
        "histograms of edges in cells (HOG)",
        appearance.shape,
        _PICTURE,
        appearance.SHAPE_SIZE,
    ),
    _row("motion", "optical flow", motion.motion, _PICTURE, motion.SIZE),
    _row("audio", "log-mel spectrogram", log_mel.log_mel, _HEARD, log_mel.SIZE, is_variable=True),
)
