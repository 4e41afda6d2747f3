"""The built-in motion expert: optical flow, summed up over direction, time and rhythm.

Flow is estimated on small grey frames by least squares in blocks (Lucas and Kanade, 1981). The
flow of the camera, the median over the blocks that show any texture, is taken away.
"""

import numpy as np
from PIL import Image

SIZE = 96

_FACTOR = 4  # frames are reduced by this factor, so that fast actors move by about a pixel
_BLOCK = 4  # pixels of a block's side after that
_DIRECTIONS, _QUARTERS, _RHYTHMS = 8, 4, 6


def motion(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Describe how things move in uint8 frames (T, H, W, 3): float32 (1, 96).

    Where there is a moment alone, or nothing moves, it is (0, 96).
    """
    if len(frames) <= _QUARTERS:
        return np.empty((0, SIZE), np.float32)
    flow, weight = _flow(_small(frames))  # (T-1, rows, columns, 2), (T-1, rows, columns)
    speed = np.linalg.norm(flow, axis=-1) * weight
    if not speed.any():
        return np.empty((0, SIZE), np.float32)
    parts = [
        _over_time(flow, speed),  # 32
        _over_speed(flow, speed),  # 16
        _rhythm(_signals(flow, speed)),  # 30
        _places(speed),  # 18
    ]
    return np.concatenate(parts).astype(np.float32)[None]


def _small(frames: np.ndarray) -> np.ndarray:
    """Reduce frames to small, slightly blurred grey ones, float32 (T, H / 4, W / 4)."""
    grey = [np.asarray(Image.fromarray(frame).convert("L").reduce(_FACTOR)) for frame in frames]
    small = np.array(grey, dtype=np.float32)
    small[:, 1:-1] = (small[:, :-2] + 2 * small[:, 1:-1] + small[:, 2:]) / 4
    small[:, :, 1:-1] = (small[:, :, :-2] + 2 * small[:, :, 1:-1] + small[:, :, 2:]) / 4
    return small


def _flow(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate flow in pixels a frame (T-1, rows, columns, 2: across, down) and its certainty."""
    down, across = np.gradient((grey[1:] + grey[:-1]) / 2, axis=(1, 2))
    change = grey[1:] - grey[:-1]
    xx, yy, xy = _sums(across**2), _sums(down**2), _sums(across * down)
    xt, yt = _sums(across * change), _sums(down * change)
    ridge = 40.0  # keeps blocks without texture still
    xx, yy = xx + ridge, yy + ridge
    determinant = xx * yy - xy**2
    flow = np.stack([xy * yt - yy * xt, xy * xt - xx * yt], -1) / determinant[..., None]
    textured = xx + yy > 6 * ridge
    camera = [
        np.median(field[mask], axis=0) if mask.sum() > 5 else np.zeros(2)
        for field, mask in zip(flow, textured, strict=True)
    ]
    flow -= np.array(camera)[:, None, None]
    # Blocks that only the camera moves keep small errors; they must not add up to a motion.
    weight = textured * (_sums(np.abs(change)) > 4 * _BLOCK**2)
    return flow, weight.astype(np.float32)


def _sums(field: np.ndarray) -> np.ndarray:
    """Add up over blocks of pixels."""
    count, height, width = field.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    whole = field[:, : rows * _BLOCK, : columns * _BLOCK]
    return whole.reshape(count, rows, _BLOCK, columns, _BLOCK).sum((2, 4))


def _directions(flow: np.ndarray) -> np.ndarray:
    angle = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) + 0.5 / _DIRECTIONS
    return np.minimum((angle % 1.0 * _DIRECTIONS).astype(int), _DIRECTIONS - 1)


def _over_time(flow: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Directions in each quarter of the clip, (32,)."""
    quarter = (np.arange(len(flow)) * _QUARTERS // len(flow))[:, None, None]
    bins = quarter * _DIRECTIONS + _directions(flow)
    return _unit(np.bincount(bins.ravel(), speed.ravel(), _QUARTERS * _DIRECTIONS))


def _over_speed(flow: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Directions of slow and of fast blocks, (16,)."""
    bins = (speed > 0.6) * _DIRECTIONS + _directions(flow)
    return _unit(np.bincount(bins.ravel(), speed.ravel(), 2 * _DIRECTIONS))


def _signals(flow: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Sum up each pair of frames in five numbers: motion across, down, amount, out, round."""
    total = speed.sum((1, 2)) + 1e-3
    rows, columns = np.arange(speed.shape[1])[:, None], np.arange(speed.shape[2])
    middle_y = (speed * rows).sum((1, 2)) / total
    middle_x = (speed * columns).sum((1, 2)) / total
    offset_y, offset_x = rows - middle_y[:, None, None], columns - middle_x[:, None, None]
    across, down = flow[..., 0] * (speed > 0), flow[..., 1] * (speed > 0)
    outwards = across * offset_x + down * offset_y
    around = across * offset_y - down * offset_x
    fields = (across, down, speed, outwards, around)
    return np.stack([field.sum((1, 2)) for field in fields])


def _rhythm(signals: np.ndarray) -> np.ndarray:
    """Mean and five lowest frequencies of each signal, (30,)."""
    length = max(signals.shape[1], 2 * (_RHYTHMS - 1))
    spectrum = np.abs(np.fft.rfft(signals, length, axis=1))[:, :_RHYTHMS]
    spectrum[:, 0] *= np.sign(signals.mean(1))  # to the left or to the right, in or out
    return _unit(spectrum, axis=1).ravel()


def _places(speed: np.ndarray) -> np.ndarray:
    """Where motion happens: its middle in each quarter, the busiest rows and columns, (18,)."""
    quarters = np.array_split(speed, _QUARTERS)
    rows, columns = np.arange(speed.shape[1]), np.arange(speed.shape[2])
    numbers = []
    for part in quarters:
        down, across = part.sum((0, 2)) + 1e-3, part.sum((0, 1)) + 1e-3
        numbers.append((down * rows).sum() / down.sum() / len(rows) - 0.5)
        numbers.append((across * columns).sum() / across.sum() / len(columns) - 0.5)
    down, across = speed.sum((0, 2)) + 1e-3, speed.sum((0, 1)) + 1e-3
    shares = [np.sort(down / down.sum())[-5:], np.sort(across / across.sum())[-5:]]
    return np.concatenate([numbers, *shares])


def _unit(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Signed square root, then length 1."""
    root = np.sign(values) * np.sqrt(np.abs(values))
    return root / (np.linalg.norm(root, axis=axis, keepdims=True) + 1e-6)
