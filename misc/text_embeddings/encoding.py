"""Runs an encoder over captions, chunk by chunk and in batches of captions of one length.

Because all captions of a batch have the same number of tokens there is no padding that could leak
into a result. The chunks, and the batches within each, follow from the captions alone: a run that
was killed goes on with the next chunk and computes exactly what it would have computed.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch

from misc.text_embeddings.tokens import Job
from model.text_encoders import pool
from utils.errors import UserError

CHUNK_BYTES = 32 << 20
CHUNK_CAPTIONS = 4096


def chunk_bounds(rows: np.ndarray, size: int) -> list[int]:
    """Cut captions into chunks of bounded memory; chunk i is from bound i to bound i + 1.

    Args:
        rows: (captions,) vectors of each caption.
        size: length of a vector.
    """
    bounds, used = [0], 0
    for at, count in enumerate(rows):
        used += int(count) * size * 4
        full = used > CHUNK_BYTES or at - bounds[-1] == CHUNK_CAPTIONS
        if full and at > bounds[-1]:
            bounds.append(at)
            used = int(count) * size * 4
    return [*bounds, len(rows)]


def encode_chunk(
    job: Job,
    first: int,
    last: int,
    device: str,
    batch_tokens: int,
    advance: Callable[[int], object],
) -> np.ndarray:
    """Return the vectors of the captions from `first` to before `last`, (rows, size) float32.

    Args:
        job: the captions and their encoder, which lies on `device`.
        first, last: bounds of the chunk.
        device: where it is computed.
        batch_tokens: tokens of a batch at most (a single longer caption is a batch).
        advance: told the number of tokens that are done.
    """
    offsets, rows = job.tokens.offsets, job.rows[first:last]
    starts = np.concatenate([[0], np.cumsum(rows)])
    result = np.empty((starts[-1], job.size), dtype=np.float32)
    lengths = np.diff(offsets[first : last + 1])
    for captions in _batches(lengths, batch_tokens):
        length = int(lengths[captions[0]])
        places = offsets[first + captions][:, None] + np.arange(length)  # (B, T)
        ids = torch.from_numpy(job.tokens.ids[places].astype(np.int64)).to(device)
        keep = torch.from_numpy(job.tokens.keep[places]).to(device)
        values = _encode(job, ids, keep)
        done = 0
        for caption in captions:
            count = int(rows[caption])
            result[starts[caption] : starts[caption] + count] = values[done : done + count]
            done += count
        advance(ids.numel())
    return result


def _encode(job: Job, ids_BT: torch.Tensor, keep_BT: torch.Tensor) -> np.ndarray:
    """Return the vectors of one batch, (rows, size) float32."""
    try:
        with torch.inference_mode():
            values = job.module(ids_BT)
            if job.pools_itself:
                keep_BT = torch.ones_like(keep_BT[:, :1])
            return pool(values, keep_BT, job.pooling, job.normalise).float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"The GPU has no memory for a batch of {ids_BT.numel()} tokens: give a smaller "
            "--batch_tokens, or leave out --device."
        ) from error


def _batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Give places of captions of one length, `batch_tokens` tokens at a time."""
    order = np.argsort(lengths, kind="stable")
    for length, group in itertools.groupby(order, key=lambda at: int(lengths[at])):
        captions = np.array(list(group))
        step = max(1, batch_tokens // length)
        for start in range(0, len(captions), step):
            yield captions[start : start + step]


def as_type(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return features in the type that is asked for.

    Raises:
        UserError: the encoder gave a value that is not finite, or too large for float16.
    """
    if not np.isfinite(values).all():
        raise UserError("The encoder gives values that are not finite: are its weights whole?")
    with np.errstate(over="ignore"):
        result = values.astype(dtype)
    if not np.isfinite(result).all():
        largest = float(np.abs(values).max())
        raise UserError(
            f"The encoder gives values up to {largest:.0f}, which float16 cannot hold: leave out "
            "--dtype float16."
        )
    return result
