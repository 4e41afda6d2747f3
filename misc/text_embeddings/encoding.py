"""Makes a file of text features: encodes chunk by chunk, in batches of captions of one length.

Because all captions of a batch have the same number of tokens there is no padding that could leak
into a result. The chunks, and the batches within each, follow from the captions alone: a run that
was killed goes on with the next chunk and computes exactly what it would have computed.
"""

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logger.progress import progress
from misc.text_embeddings.captions import Captions
from misc.text_embeddings.encoders import make_job
from misc.text_embeddings.job import Job, Settings, encoder_of, readable
from misc.text_embeddings.output import Parts, is_complete, record_path
from model.text_encoders import pool
from utils.errors import UserError
from utils.files import make_folder, write_json

logger = logging.getLogger(__name__)

CHUNK_BYTES = 32 << 20
CHUNK_CAPTIONS = 4096
_SECONDS_BETWEEN_LINES = 30


def make_features(
    path: Path,
    captions: Captions,
    settings: Settings,
    device: str = "cpu",
    dtype: str = "float32",
    batch_tokens: int = 8192,
) -> str:
    """Encode captions into a file, go on with one that was begun, or do nothing if it is complete.

    Returns:
        What there is then, in words.

    Raises:
        UserError: the encoder, or what lies at the path, cannot be used.
    """
    job = make_job(settings, captions)
    record = readable(
        {
            "made_by": "misc/prepare_text_embeddings.py",
            "encoder": job.record,
            "size": job.size,
            "dtype": dtype,
            "captions": captions.record(),
            "vectors": int(job.rows.sum()),
            "device": device.partition(":")[0],
            "batch_tokens": batch_tokens,
        }
    )
    if is_complete(path, record):
        return f"{path} is already complete.\n{_summary(path, captions, job)}"
    _make(path, captions, job, record, device)
    return _summary(path, captions, job)


def _make(path: Path, captions: Captions, job: Job, record: dict[str, Any], device: str) -> None:
    make_folder(path.parent)
    rows = job.rows
    bounds = chunk_bounds(rows, job.size)
    chunks = list(itertools.pairwise(bounds))
    shapes = [(int(rows[first:last].sum()), job.size) for first, last in chunks]
    parts = Parts(path, shapes, record["dtype"])
    with parts.opened(record):
        missing = parts.missing()
        if len(missing) < len(chunks):
            logger.info(
                "Going on: %d of %d chunks are there", len(chunks) - len(missing), len(chunks)
            )
        _encode_all(parts, [(number, *chunks[number]) for number in missing], job, record, device)
        parts.assemble(captions.ids, captions.counts, rows)
        write_json(record_path(path), record)
        parts.remove()


def _encode_all(
    parts: Parts,
    chunks: list[tuple[int, int, int]],
    job: Job,
    record: dict[str, Any],
    device: str,
) -> None:
    offsets = job.tokens.offsets
    total = sum(int(offsets[last] - offsets[first]) for _, first, last in chunks)
    job.module.to(device)
    done, said, started = 0, time.monotonic(), time.monotonic()
    with progress(None, total=total, description="tokens") as bar:

        def advance(tokens: int) -> None:
            nonlocal done, said
            done += tokens
            bar.update(tokens)
            now = time.monotonic()
            if bar.disable and now - said > _SECONDS_BETWEEN_LINES:  # a log has no bar
                said = now
                minutes = (now - started) / done * (total - done) / 60
                share = 100 * done / total
                logger.info("%.0f %% of the tokens, about %.0f minutes left", share, minutes)

        for number, first, last in chunks:
            values = encode_chunk(job, first, last, device, record["batch_tokens"], advance)
            try:
                values = as_type(values, record["dtype"])
            except UserError:
                # Going on would end here again.
                parts.remove()
                raise
            parts.write(number, values)


def _summary(path: Path, captions: Captions, job: Job) -> str:
    entry = {"file": path.name, "size": job.size, "encoder": encoder_of(readable(job.record))}
    return (
        f"{len(captions.texts)} captions of {len(captions.ids)} videos, {int(job.rows.sum())} "
        f"vectors of size {job.size}: {path} ({path.stat().st_size / 1e6:.1f} MB), described in "
        f"{record_path(path).name}.\n"
        f'For "text_features" of a dataset.json: "{path.stem}": {json.dumps(entry)}'
    )


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
