"""Captions by word vectors: word2vec, GrOVLE and other tables of words."""

import logging
from pathlib import Path

import numpy as np
import torch

from data_loader.store.word_vectors import WordCount, read_word_vectors, rows_of, wanted_words
from misc.text_embeddings.record import file_hash, versions
from misc.text_embeddings.settings import Settings
from misc.text_embeddings.tokens import Job, Tokens
from model.text_encoders import POOLINGS, WordTable
from utils.errors import UserError

logger = logging.getLogger(__name__)


def word_table_job(settings: Settings, path: Path, texts: list[str]) -> Job:
    """Look the words of captions up in a table; a caption without a known word gets its mean.

    Raises:
        UserError: the table cannot be used, or a flag does not go with word vectors.
    """
    settings.refuse("word vectors", "dictionary", "layer", "special_tokens", "revision")
    pooling = settings.choose_pooling("word vectors", POOLINGS)
    logger.info("Reading the word vectors %s", path)
    table = read_word_vectors(path, wanted_words(texts))
    mean_row = len(table.values)
    tokens, count = Tokens(), WordCount()
    cut = 0
    for text in texts:
        rows = rows_of(text, table.rows, count) or [mean_row]
        cut += settings.max_length is not None and len(rows) > settings.max_length
        tokens.add(rows[: settings.max_length])
    count.log()
    if count.captions_without == len(texts):
        raise UserError(
            f"The table {path} knows no word of any caption: is it a table of another language, "
            "or of upper-case words?"
        )
    record = {
        "kind": "word vectors",
        "name": settings.encoder,
        "file": path.name,
        "sha256": file_hash(path),
        "pooling": pooling,
        "max_length": settings.max_length,
        "words": count.words,
        "unknown_words": count.unknown.total(),
        "captions_without_known_words": count.captions_without,
        "captions_cut": cut,
        "versions": versions("numpy", "torch"),
    }
    values = torch.from_numpy(np.concatenate([table.values, table.mean[None]]))
    return Job(tokens, WordTable(values), table.size, pooling, False, record)
