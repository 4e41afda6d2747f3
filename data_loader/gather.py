"""Gathering rows of packed arrays into padded tensors.

B samples, T tokens, D feature size.
"""

import numpy as np
import torch

from data_loader.devices import send


def gather_rows(values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Return `values[rows]` as (B, D) float32; a row of -1 gives zeros."""
    present = np.flatnonzero(rows >= 0)
    result = values.new_zeros((len(rows), values.shape[1]), dtype=torch.float32)
    return _copy_rows(values, rows[present], result, present)


def gather_tokens(
    values: torch.Tensor,
    starts: np.ndarray,
    counts: np.ndarray,
    width: int,
    keep: np.ndarray | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """Cut or zero-pad runs of rows to `width` tokens.

    Args:
        values: (rows, D), all tokens under one another.
        starts: (B,) first row of each sample.
        counts: (B,) number of its rows.
        width: T.
        keep: (B, at least max(counts)) bool, tokens that are kept before cutting; None keeps all.

    Returns:
        (B, T, D) float32 and the (B,) number of tokens that are in it.
    """
    if keep is None:
        steps = np.arange(width)
        position = np.broadcast_to(steps, (len(starts), width))
        counts = np.minimum(counts, width)
    else:
        longest = int(counts.max(initial=0))
        kept = keep[:, :longest] & (np.arange(longest) < counts[:, None])
        # A stable sort brings the kept tokens to the front without changing their order.
        position = np.argsort(~kept, axis=1, kind="stable")[:, :width]
        steps = np.arange(position.shape[1])
        counts = np.minimum(kept.sum(axis=1), width)
    valid = steps < counts[:, None]
    index = (starts[:, None] + position)[valid]
    filled = np.zeros((len(starts), width), dtype=bool)
    filled[:, : valid.shape[1]] = valid
    result = values.new_zeros((len(starts) * width, values.shape[1]), dtype=torch.float32)
    _copy_rows(values, index, result, np.flatnonzero(filled))
    return result.view(len(starts), width, -1), counts


def _copy_rows(
    values: torch.Tensor, rows: np.ndarray, result: torch.Tensor, places: np.ndarray
) -> torch.Tensor:
    """Copy `values[rows]` to `result[places]`, on the device where both lie."""
    chosen = values.index_select(0, send(rows, values.device)).float()
    return result.index_copy_(0, send(places, values.device), chosen)
