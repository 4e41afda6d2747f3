"""Captions by words that are looked up: tables of word vectors, and HowTo100M MIL-NCE.

Of word2vec, GrOVLE and the like the vectors are the result; MIL-NCE's text branch goes on from its
own, read from its published weights and dictionary.
"""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loader.formats.read import read_array
from data_loader.store.word_vectors import WordCount, read_word_vectors, rows_of, wanted_words
from misc.text_embeddings.job import Job, Settings, Tokens, file_hash, versions
from model.text_encoders import POOLINGS, MilNceText, WordTable
from trainer.checkpoints.file import read_checkpoint_file
from utils.errors import UserError, short

logger = logging.getLogger(__name__)

# The published network always reads 16 words: more are cut, and where there are fewer the row 0 of
# its table, which stands for "no word", takes part in the maximum.
PUBLISHED_LENGTH = 16
_NO_WORD = 0
_PREFIX = "text_module."
_WEIGHTS = ("word_embd.weight", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
_WORD = re.compile(r"[\w']+")


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
    count.check(f"the word vectors {path}", "this file")
    record = {
        "kind": "word vectors",
        "name": settings.encoder,
        "file": path.name,
        "sha256": file_hash(path),
        "pooling": pooling,
        "max_length": settings.max_length,
        **_counts(count, cut),
    }
    values = torch.from_numpy(np.concatenate([table.values, table.mean[None]]))
    return Job(tokens, WordTable(values), table.size, pooling, False, record)


def mil_nce_job(settings: Settings, weights: Path, dictionary: Path, texts: list[str]) -> Job:
    """Encode captions as MIL-NCE does: one vector for a caption, or one for each word.

    A caption none of whose words is known is read as one word, the mean of the table.

    Raises:
        UserError: weights or dictionary cannot be used, or a flag does not go with MIL-NCE.
    """
    settings.refuse("MIL-NCE", "layer", "special_tokens", "revision")
    pooling = settings.choose_pooling("MIL-NCE", ("max", "tokens"))
    length = settings.max_length or PUBLISHED_LENGTH
    words = read_dictionary(dictionary)
    module = read_text_branch(weights, per_word=pooling == "tokens")
    mean_row = module.word_embd.num_embeddings - 1
    if len(words) != mean_row - 1:
        raise UserError(
            f"{dictionary} names {len(words)} words, but the table of {weights} has {mean_row} "
            "rows: one for each word and the first for none was expected; take both files of one "
            "release."
        )
    tokens, count, cut = mil_nce_tokens(texts, words, length, pooling)
    count.log()
    record = {
        "kind": "MIL-NCE",
        "name": settings.encoder,
        "file": weights.name,
        "sha256": file_hash(weights),
        "dictionary": dictionary.name,
        "dictionary_sha256": file_hash(dictionary),
        "pooling": pooling,
        "max_length": length,
        **_counts(count, cut),
    }
    own = pooling == "max"
    size = module.fc2.out_features
    return Job(tokens, module, size, "tokens", False, record, pools_itself=own)


def mil_nce_tokens(
    texts: list[str], words: list[str], length: int, pooling: str
) -> tuple[Tokens, WordCount, int]:
    """Split captions as MIL-NCE does; returns also what was found, and how many were cut.

    Args:
        texts: the captions.
        words: the dictionary; word number n has row n + 1, the mean comes after the last.
        length: words that are read.
        pooling: with "max" shorter captions are filled up to the length.
    """
    rows = {word: row for row, word in reversed(list(enumerate(words, start=1)))}
    tokens, count, cut = Tokens(), WordCount(), 0
    for text in texts:
        ids = _ids(text, rows, count) or [len(words) + 1]
        cut += len(ids) > length
        ids = ids[:length]
        tokens.add(ids + [_NO_WORD] * (length - len(ids)) if pooling == "max" else ids)
    return tokens, count, cut


def _counts(count: WordCount, cut: int) -> dict[str, Any]:
    return {
        "words": count.words,
        "unknown_words": count.unknown.total(),
        "captions_without_known_words": count.captions_without,
        "captions_cut": cut,
        "versions": versions("numpy", "torch"),
    }


def _ids(text: str, rows: dict[str, int], count: WordCount) -> list[int]:
    """Split a caption as the published network does, and count the words it lacks."""
    words = _WORD.findall(text.lower())
    found = [rows[word] for word in words if word in rows]
    count.unknown.update(word for word in words if word not in rows)
    count.words += len(words)
    count.captions_without += not found
    return found


def read_dictionary(path: Path) -> list[str]:
    """Read the words of MIL-NCE, an `.npy` array of texts; word number n has row n + 1.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    words = read_array(path, "a dictionary of words")
    if isinstance(words, np.ndarray) and words.ndim == 1 and words.dtype.kind == "U":
        return words.tolist()
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return words
    raise UserError(f"The dictionary {path} is no array of words.")


def read_text_branch(path: Path, per_word: bool) -> MilNceText:
    """Read the text branch out of the weights of S3D, with the table's mean as a last row.

    Raises:
        UserError: the file cannot be read, or lacks the text branch.
    """
    weights = _read_weights(path)
    missing = [name for name in _WEIGHTS if not isinstance(weights.get(name), Tensor)]
    if missing:
        raise UserError(
            f"The weights {path} have no text branch of MIL-NCE: {_PREFIX}{missing[0]} is missing."
        )
    table = weights["word_embd.weight"].float()
    mean = table[1:].double().mean(dim=0, keepdim=True).float()
    weights = {name: weights[name].float() for name in _WEIGHTS}
    weights["word_embd.weight"] = torch.cat([table, mean])
    hidden, size = len(weights["fc1.bias"]), len(weights["fc2.bias"])
    module = MilNceText(len(table) + 1, table.shape[-1], hidden, size, per_word)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"The text branch in {path} has layers that do not fit one another "
            f"({short(' '.join(str(error).split()), 160)})."
        ) from error
    return module


def _read_weights(path: Path) -> dict[str, Any]:
    content = read_checkpoint_file(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise UserError(f"The weights {path} hold a {type(content).__name__}, no named weights.")
    names = {str(name).removeprefix("module."): value for name, value in content.items()}
    return {name.removeprefix(_PREFIX): value for name, value in names.items()}
