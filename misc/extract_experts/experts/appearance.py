"""Built-in experts that look at the pixels alone: appearance, scene and shape.

They take uint8 frames (T, H, W, 3) and return one float32 vector, (1, D), or none. A vector is made
of histograms, each scaled to length 1 after a square root (the Hellinger map), so that a linear
layer can compare them.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

APPEARANCE_SIZE, SCENE_SIZE, SHAPE_SIZE = 128, 96, 384

_FRAMES_LOOKED_AT = 8
_CROP = 36  # pixels of a crop around what moves
_OUTLINE_CELLS, _EDGE_CELLS, _BANDS = 6, 3, 3
_DIRECTIONS, _GREYS = 8, 4
_SPOT = 2  # pixels
_SMALLEST = 8  # pixels of a frame's shorter side
_SHAPE_CELLS = (6, 8)
_FAINTEST = 1e-3  # grey levels from pixel to pixel


def appearance(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Describe what stands out against the backdrop: colours, outline and edges, (1, 128).

    Where nothing changes, nothing stands out: (0, 128).
    """
    chosen = frames[_spread(len(frames), _FRAMES_LOOKED_AT)]
    size = (_CROP, _CROP)
    crops = np.empty((len(chosen), *size, 3), np.uint8)
    masks = np.empty((len(chosen), *size), np.float32)
    for place, (frame, differs) in enumerate(zip(chosen, _foreground(chosen), strict=True)):
        box = _box_around(differs)
        ends = 2 * (frame.shape[1], frame.shape[0])  # where a spot is only partly in the frame
        large = tuple(min(_SPOT * edge, end) for edge, end in zip(box, ends, strict=True))
        crops[place] = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, box=large)
        masks[place] = Image.fromarray(differs).resize(size, Image.Resampling.BILINEAR, box=box)
    if not masks.any():
        return np.empty((0, APPEARANCE_SIZE), np.float32)
    places = np.arange(_CROP)
    cell = places * _OUTLINE_CELLS // _CROP
    outline = _histograms(cell[:, None] * _OUTLINE_CELLS + cell, masks, _OUTLINE_CELLS**2)
    outline = outline.reshape(-1, _OUTLINE_CELLS, _OUTLINE_CELLS)
    cell = places * _EDGE_CELLS // _CROP
    edges = _edges(grey_of(crops), masks, cell[:, None] * _EDGE_CELLS + cell, _EDGE_CELLS**2)
    edges = edges.reshape(-1, _EDGE_CELLS, _EDGE_CELLS, _DIRECTIONS)
    # A figure that looks to the left is the same figure: its mirror image counts as much.
    mirrored = edges[:, :, ::-1, ::-1]
    parts = [
        _unit(_colours(crops, masks, np.zeros(1, int), 1, num_hues=16)),
        _unit(outline) + _unit(outline[:, :, ::-1]),
        _unit(edges) + _unit(mirrored),
    ]
    return np.concatenate([part.mean(0) for part in parts]).astype(np.float32)[None]


def scene(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Describe colours and texture of the upper, middle and lower third of the frame, (1, 96).

    Frames of a few pixels have no texture: (0, 96).
    """
    chosen = frames[_spread(len(frames), 2)]
    if min(chosen.shape[1:3]) < _SMALLEST:
        return np.empty((0, SCENE_SIZE), np.float32)
    weights = np.ones(chosen.shape[:-1], np.float32)
    fine = grey_of(chosen)
    coarse = np.stack([np.asarray(Image.fromarray(grey).reduce(4)) for grey in fine])
    parts = [_colours(chosen, weights, _band(chosen.shape[1]), _BANDS, num_hues=12)]
    for grey in (fine, coarse):
        weights = np.ones(grey.shape, np.float32)
        parts.append(_edges(grey, weights, _band(grey.shape[1]), _BANDS))
    bands = [part.sum(0).reshape(_BANDS, -1) for part in parts]
    vector = np.concatenate([_unit(band[None])[0] for row in bands for band in row])
    return vector.astype(np.float32)[None]


def shape(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Describe edges in 6 x 8 cells, whatever stands where (HOG: Dalal and Triggs, 2005), (1, 384).

    A cell is set against the 3 x 3 cells around it, so that light and contrast do not count.
    """
    grey = grey_of(frames[_spread(len(frames), 2)])
    if min(grey.shape[1:]) < _SMALLEST:
        return np.empty((0, SHAPE_SIZE), np.float32)
    rows, columns = _SHAPE_CELLS
    down = np.arange(grey.shape[1]) * rows // grey.shape[1]
    across = np.arange(grey.shape[2]) * columns // grey.shape[2]
    cell = down[:, None] * columns + across
    edges = _edges(grey, np.ones(grey.shape, np.float32), cell, rows * columns)
    edges = edges.reshape(-1, rows, columns, _DIRECTIONS).mean(0) / (len(down) * len(across))
    if edges.sum() < _FAINTEST:
        return np.empty((0, SHAPE_SIZE), np.float32)
    energy = np.pad((edges**2).sum(-1), 1, mode="edge")
    around = sliding_window_view(energy, (3, 3)).sum((2, 3))
    return np.sqrt(edges / np.sqrt(around + 1e-6)[..., None]).astype(np.float32).reshape(1, -1)


def _spread(count: int, wanted: int) -> np.ndarray:
    return np.linspace(0, count - 1, wanted).round().astype(int)


def grey_of(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of the channels, float32 (..., H, W)."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return (red.astype(np.float32) + green + blue) / 3


def _band(height: int) -> np.ndarray:
    return (np.arange(height) * _BANDS // height)[:, None]


def _foreground(frames: np.ndarray) -> np.ndarray:
    """Say how clearly spots of 2 x 2 pixels differ from the backdrop, 0 to 1: (N, H/2, W/2)."""
    small = np.stack([np.asarray(Image.fromarray(frame).reduce(_SPOT)) for frame in frames])
    # The upper median: a partial sort of bytes is quicker than the mean of both middle values.
    middle = len(small) // 2
    backdrop = np.partition(small, middle, axis=0)[middle]
    differs = np.maximum(small, backdrop) - np.minimum(small, backdrop)
    red, green, blue = np.moveaxis(differs, -1, 0)
    strongest = np.maximum(np.maximum(red, green), blue).astype(np.float32)
    return np.clip((strongest - 25) / 20, 0, 1)


def _box_around(weights: np.ndarray) -> tuple[int, int, int, int]:
    """Find the box (left, top, right, bottom) around the heaviest blob; all of it when empty."""
    height, width = weights.shape
    half = 17
    # The package takes its time, and whoever finds the set complete needs none of it.
    from scipy.ndimage import uniform_filter

    crowd = uniform_filter(weights, 11)
    row, column = np.unravel_index(int(crowd.argmax()), crowd.shape)
    top, left = max(row - half, 0), max(column - half, 0)
    near = weights[top : row + half, left : column + half]
    if near.sum() < 5:
        return 0, 0, width, height
    across, down = _middle_range(near.sum(0)), _middle_range(near.sum(1))
    return (
        max(left + across[0] - 1, 0),
        max(top + down[0] - 1, 0),
        min(left + across[1] + 2, width),
        min(top + down[1] + 2, height),
    )


def _middle_range(weights: np.ndarray) -> tuple[int, int]:
    share = np.cumsum(weights) / weights.sum()
    return int(np.searchsorted(share, 0.03)), int(np.searchsorted(share, 0.97))


def _edges(grey: np.ndarray, weights: np.ndarray, cell: np.ndarray, num_cells: int) -> np.ndarray:
    """Histograms of edge directions (modulo 180 degrees) in each cell, (N, num_cells * 8)."""
    down, across = np.gradient(grey, axis=(1, 2))
    strength = np.sqrt(down**2 + across**2) * weights
    direction = np.arctan2(down, across) * (_DIRECTIONS / np.pi) % _DIRECTIONS
    bins = np.minimum(direction.astype(np.int64), _DIRECTIONS - 1)
    return _histograms(cell * _DIRECTIONS + bins, strength, num_cells * _DIRECTIONS)


def _colours(
    pixels: np.ndarray, weights: np.ndarray, cell: np.ndarray, num_cells: int, num_hues: int
) -> np.ndarray:
    """Histograms of hues and 4 greys in each cell, (N, num_cells * (num_hues + 4)).

    A pixel counts as its hue as far as it is colourful, as its grey for the rest.
    """
    count, height, width, _ = pixels.shape
    tall = Image.fromarray(pixels.reshape(count * height, width, 3)).convert("HSV")
    hue, saturation, value = np.asarray(tall).reshape(*pixels.shape).transpose(3, 0, 1, 2)
    colourful = saturation.astype(np.float32) / 255
    size = num_hues + _GREYS
    hues = cell * size + hue.astype(np.int64) * num_hues // 256
    greys = cell * size + num_hues + value.astype(np.int64) * _GREYS // 256
    bright = weights * colourful * value / np.float32(255)
    split = _histograms(hues, bright, num_cells * size)
    return split + _histograms(greys, weights * (1 - colourful), num_cells * size)


def _histograms(bins: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Add up weights (N, H, W) by bin, for each of N pictures apart: (N, size)."""
    count = len(weights)
    apart = bins + (np.arange(count) * size)[:, None, None]
    flat = np.broadcast_to(apart, weights.shape).ravel()
    return np.bincount(flat, weights.ravel(), count * size).reshape(count, size)


def _unit(histograms: np.ndarray) -> np.ndarray:
    """Square root, then length 1 for each picture: (N, ...) -> (N, size)."""
    root = np.sqrt(histograms.reshape(len(histograms), -1))
    return root / (np.linalg.norm(root, axis=1, keepdims=True) + 1e-6)
