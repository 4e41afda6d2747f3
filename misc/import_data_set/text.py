"""The text features of a data set: an encoder's, word vectors, or word vectors of the captions."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.store.word_vectors import WordCount, read_word_vectors, wanted_words, words_of
from utils.errors import UserError
from utils.files import is_there, read_json, replacing

logger = logging.getLogger(__name__)

WORD_VECTORS = (".bin", ".txt", ".vec", ".gz", ".zip")
OWN_VECTORS = "words.bin"
ENCODED = "text.npz"

_SIZE = 200
_MOST_WORDS = 20_000
_WINDOW = 5


def is_word_vectors(encoder: str) -> bool:
    """Whether what the user names as an encoder is a file of word vectors."""
    path = Path(encoder)
    return path.suffix in WORD_VECTORS and is_there(path, Path.is_file)


def refer_to_vectors(path: Path, base: Path, captions: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the entry of `dataset.json` for word vectors as they lie.

    Raises:
        UserError: they cannot be used, or know no word of any caption.
    """
    texts = list(chain.from_iterable(captions.values()))
    vectors = read_word_vectors(path, wanted_words(texts))
    count = WordCount()
    for _ in vectors.look_up(texts, count):
        pass
    count.check(f"the word vectors {path}", "the data set")
    return {
        "word_vectors": os.path.relpath(path.resolve(), base.resolve()),
        "size": vectors.size,
    }


def encode(folder: Path, encoder: str, device: str | None, dtype: str) -> dict[str, Any]:
    """Encode the captions of the folder into a file in it; return the entry of `dataset.json`.

    Raises:
        UserError: the encoder cannot be used.
    """
    # Only now what loads torch.
    from misc.text_embeddings.captions import read_all
    from misc.text_embeddings.encoding import make_features
    from misc.text_embeddings.job import Settings
    from misc.text_embeddings.output import record_path
    from utils.command_line import select_device

    path = folder / ENCODED
    captions = read_all(folder / "captions.json")
    make_features(path, captions, Settings(encoder), select_device(device), dtype)
    return {"file": ENCODED, "size": read_json(record_path(path), "record")["size"]}


def make_vectors(path: Path, captions: Iterable[str]) -> dict[str, Any]:
    """Make word vectors of captions alone, where there is no encoder; return the entry.

    Words that stand near the same words get similar vectors: the singular vectors of how much more
    often than by chance two words meet within a few places (Levy and Goldberg, 2014).

    Raises:
        UserError: the captions have no words.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import svds

    sentences = [words_of(caption) for caption in captions]
    counts = Counter(chain.from_iterable(sentences))
    words = [word for word, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:_MOST_WORDS]]
    if len(words) < 4:
        raise UserError(
            f"The training captions have {len(words)} words, too few to make word vectors of: give "
            "an encoder of text with --text-encoder."
        )
    row = {word: number for number, word in enumerate(words)}
    pairs: Counter[tuple[int, int]] = Counter()
    for sentence in sentences:
        known = [row[word] for word in sentence if word in row]
        for place, one in enumerate(known):
            for other in known[place + 1 : place + 1 + _WINDOW]:
                pairs[one, other] += 1
                pairs[other, one] += 1
    places = np.array(list(pairs), dtype=np.int64)
    values = np.array(list(pairs.values()), dtype=np.float64)
    total = np.zeros(len(words))
    np.add.at(total, places[:, 0], values)
    chance = total[places[:, 0]] * total[places[:, 1]] / values.sum()
    surprise = np.maximum(np.log(values / chance), 0)
    matrix = coo_matrix((surprise, places.T), shape=(len(words), len(words))).tocsr()
    size = min(_SIZE, len(words) - 1)
    vectors, strength, _ = svds(matrix, k=size, v0=np.ones(len(words)))
    vectors = vectors * np.sqrt(strength)
    # A singular vector may come with either sign.
    vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(size)] < 0, -1, 1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.maximum(length, np.finfo(np.float64).tiny)
    with replacing(path) as handle:
        handle.write(f"{len(words)} {size}\n".encode())
        for word, vector in zip(words, vectors.astype("<f4"), strict=True):
            handle.write(word.encode() + b" " + vector.tobytes() + b"\n")
    return {"word_vectors": path.name, "size": size}


def text_lengths(folder: Path, entry: Mapping[str, Any], captions: Iterable[str]) -> list[int]:
    """Return how many vectors each caption has."""
    if "word_vectors" in entry:
        return [len(words_of(caption)) for caption in captions]
    with np.load(folder / entry["file"], allow_pickle=False) as arrays:
        return np.diff(arrays["offsets"]).tolist()
