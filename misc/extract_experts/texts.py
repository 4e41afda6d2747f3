"""Words that experts give (speech, writing) -> vectors, by the text features of the data set.

A word of a video so gets the vector that it would have in a caption.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_loader.store.word_vectors import (
    WordCount,
    read_word_vectors,
    rows_of,
    wanted_words,
)
from misc.extract_experts.expert import Words
from utils.errors import UserError, short

if TYPE_CHECKING:
    from misc.text_embeddings.job import Job

_TEXTS_AT_ONCE = 4096
_BATCH_TOKENS = 8192

Vectors = Iterator[tuple[str, np.ndarray]]
"""Videos with words that are known, in the given order: id, (m, D) float32."""


def word_vectors(
    folder: Path,
    texts: Mapping[str, Sequence[Words]],
    text_entry: Mapping[str, Any],
    device: str = "cpu",
) -> Vectors:
    """Turn what is said or written in videos into vectors.

    Args:
        folder: of the data set.
        texts: video id -> what is said or written in it, in order.
        text_entry: the text features of the data set, as its description has them: word vectors,
            or a file with the record of the encoder that made it.
        device: where an encoder runs.

    Raises:
        UserError: nobody has said what made the text features, or it cannot be used.
    """
    said = {video: [words.text for words in texts[video]] for video in texts}
    if "word_vectors" in text_entry:
        return _looked_up(folder / str(text_entry["word_vectors"]), said)
    encoder = text_entry.get("encoder")
    if not isinstance(encoder, dict) or not encoder:
        raise UserError(
            f"Nobody has said what made the text features of {folder}, so that words of videos get "
            "no vectors: make them with --encoder, or name its record in the dataset.json."
        )
    return _encoded(folder, encoder, said, device)


def _looked_up(path: Path, said: Mapping[str, list[str]]) -> Vectors:
    table = read_word_vectors(path, wanted_words(t for texts in said.values() for t in texts))
    count = WordCount()
    for video, texts in said.items():
        rows = [row for text in texts for row in rows_of(text, table.rows, count)]
        if rows:
            yield video, table.values[rows]


def _encoded(
    folder: Path, encoder: dict[str, Any], said: Mapping[str, list[str]], device: str
) -> Vectors:
    # Only now what loads torch.
    from misc.text_embeddings.captions import Captions
    from misc.text_embeddings.encoders import make_job
    from misc.text_embeddings.encoding import encode_chunk
    from misc.text_embeddings.job import encoder_of, settings_of

    said = {video: texts for video, texts in said.items() if texts}
    if not said:
        return
    counts = np.array([len(texts) for texts in said.values()])
    every = [text for texts in said.values() for text in texts]
    captions = Captions(folder / "texts", list(said), counts.tolist(), every)
    job = make_job(settings_of(encoder), captions)
    made = encoder_of(job.record)
    for key in ("kind", "sha256", "revision"):
        if encoder.get(key) != made.get(key):
            raise UserError(
                f'The text encoder "{short(encoder.get("name"))}" is another one now than made '
                f"the text features of {folder} (its {key} differs): make them anew."
            )
    job.module.to(device)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    rows = np.concatenate([[0], np.cumsum(job.rows)])
    for part in _parts(bounds):
        first, last = bounds[part.start], bounds[part.stop]
        values = encode_chunk(job, first, last, device, _BATCH_TOKENS, lambda tokens: None)
        known = np.repeat(_is_known(job)[first:last], job.rows[first:last])
        for place in part:
            own = slice(*(rows[bounds[place : place + 2]] - rows[first]))
            if known[own].any():
                yield captions.ids[place], values[own][known[own]]


def _is_known(job: "Job") -> np.ndarray:
    """Tell which texts have a known word, (texts,) bool; a table gives its mean to the others."""
    if job.record["kind"] not in ("word vectors", "MIL-NCE"):
        return np.ones(len(job.tokens), dtype=bool)
    mean_row = len(next(iter(job.module.state_dict().values()))) - 1
    return job.tokens.ids[job.tokens.offsets[:-1]] != mean_row


def _parts(bounds: np.ndarray) -> Iterator[range]:
    """Cut videos into parts whose vectors fit into memory.

    Args:
        bounds: (videos + 1,) into the texts.
    """
    first, videos = 0, len(bounds) - 1
    for last in range(1, videos + 1):
        if last == videos or bounds[last + 1] - bounds[first] > _TEXTS_AT_ONCE:
            yield range(first, last)
            first = last
