"""The built-in expert that listens: frames of a log-mel spectrogram."""

from functools import cache

import numpy as np

from misc.extract_experts.expert import Sound

SIZE = 128
HOP = 2560  # samples from one spectrum to the next: 6.25 a second
_WINDOW = 2048  # samples in one spectrum
_LOWEST, _HIGHEST = 40.0, 7800.0  # Hz
_SILENCE = 1e-4  # of full scale


def log_mel(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Turn float32 samples (S,) at 16 kHz into log-mel frames, float32 (frames, 128).

    There are none where nothing is to be heard.
    """
    if np.abs(samples).max() < _SILENCE:
        return np.empty((0, SIZE), np.float32)
    count = 1 + (len(samples) - _WINDOW) // HOP
    starts = np.arange(count) * HOP
    windows = samples[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows)) ** 2
    return np.log(power @ _mel_filters() + 1e-2).astype(np.float32)


@cache
def _mel_filters() -> np.ndarray:
    """Return triangular filters, evenly spaced in mel, (1025, 128)."""
    mel = np.linspace(_to_mel(_LOWEST), _to_mel(_HIGHEST), SIZE + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    pitch = np.fft.rfftfreq(_WINDOW, 1 / Sound.RATE)[:, None]
    # Low filters are narrower than the step between two pitches: widen them, so that none is empty.
    middle, step = edges[1:-1], Sound.RATE / _WINDOW
    rise = np.maximum(middle - edges[:-2], step)
    fall = np.maximum(edges[2:] - middle, step)
    return np.maximum(0, np.minimum(1 + (pitch - middle) / rise, 1 - (pitch - middle) / fall))


def _to_mel(pitch: float) -> float:
    return 2595 * np.log10(1 + pitch / 700)
