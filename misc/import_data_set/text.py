"""The text features of a data set: an encoder's, word vectors, or word vectors of the captions."""

import logging
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
_MOST_WORDS = 5000
_WINDOW = 5
_FEW_WORDS = 3
_AT_ONCE = 1 << 20
_ROUNDS, _MARGIN = 4, 20  # of the search for singular vectors


def is_word_vectors(encoder: str) -> bool:
    """Whether what the user names as an encoder is a file of word vectors."""
    path = Path(encoder)
    return path.suffix in WORD_VECTORS and is_there(path, Path.is_file)


def refer_to_vectors(path: Path, captions: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the entry of `dataset.json` for word vectors, without where they lie.

    Raises:
        UserError: they cannot be used, or know no word of any caption.
    """
    texts = list(chain.from_iterable(captions.values()))
    vectors = read_word_vectors(path, wanted_words(texts))
    count = WordCount()
    for _ in vectors.look_up(texts, count):
        pass
    count.check(f"the word vectors {path}", "the data set")
    return {"size": vectors.size}


def encode(folder: Path, encoder: str, device: str | None, dtype: str) -> dict[str, Any]:
    """Encode the captions of the folder into a file in it; return the entry of `dataset.json`.

    Raises:
        UserError: the encoder cannot be used.
    """
    # Only now what loads torch.
    from misc.text_embeddings.captions import read_all
    from misc.text_embeddings.encoding import make_features
    from misc.text_embeddings.job import Settings, encoder_of
    from misc.text_embeddings.output import record_path
    from utils.command_line import select_device

    path = folder / ENCODED
    captions = read_all(folder / "captions.json")
    make_features(path, captions, Settings(encoder), select_device(device), dtype)
    record = read_json(record_path(path), "record")
    return {"file": ENCODED, "size": record["size"], "encoder": encoder_of(record["encoder"])}


def make_vectors(path: Path, captions: Iterable[str]) -> dict[str, Any]:
    """Make word vectors of captions alone, where there is no encoder; return the entry.

    Words that stand near the same words get similar vectors: the singular vectors of how much more
    often than by chance two words meet within a few places (Levy and Goldberg, 2014).

    Raises:
        UserError: the captions have too few words, or no spaces between them.
    """
    sentences = [words_of(caption) for caption in captions]
    counts = Counter(chain.from_iterable(sentences))
    # With spaces between its words, a caption has more of them.
    unbroken = Counter(chain.from_iterable(s for s in sentences if len(s) < _FEW_WORDS))
    WordCount(words=counts.total(), unknown=unbroken).check("word vectors", "the data set")
    words = [word for word, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:_MOST_WORDS]]
    if len(words) < 4:
        raise UserError(
            f"The training captions have {len(words)} words, too few to make word vectors of: give "
            "an encoder of text with --text-encoder."
        )
    row = {word: number for number, word in enumerate(words)}
    places = [[row[word] for word in sentence if word in row] for sentence in sentences]
    met = _meetings(places, len(words))
    total = met.sum(axis=1)
    with np.errstate(divide="ignore"):
        surprise = np.log(met * total.sum() / np.outer(total, total).clip(1))
    size = min(_SIZE, len(words) - 1)
    vectors = _strongest(np.maximum(surprise, 0).astype(np.float32), size)
    # A singular vector may come with either sign.
    vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(size)] < 0, -1, 1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.maximum(length, np.finfo(np.float64).tiny)
    with replacing(path) as handle:
        handle.write(f"{len(words)} {size}\n".encode())
        for word, vector in zip(words, vectors.astype("<f4"), strict=True):
            handle.write(word.encode() + b" " + vector.tobytes() + b"\n")
    return {"word_vectors": path.name, "size": size}


def _strongest(matrix: np.ndarray, size: int) -> np.ndarray:
    """Return the strongest directions of a symmetric matrix, (words, size), scaled by its square
    root (Halko et al., 2011, algorithm 4.4).
    """
    width = min(len(matrix), size + _MARGIN)
    start = np.random.default_rng(0).standard_normal((len(matrix), width), dtype=np.float32)
    basis = matrix @ start
    for _ in range(_ROUNDS):
        basis = matrix @ np.linalg.qr(basis)[0]
    basis = np.linalg.qr(basis)[0]
    values, directions = np.linalg.eigh(basis.T @ matrix @ basis)
    best = np.argsort(-np.abs(values), kind="stable")[:size]
    return basis @ directions[:, best] * np.sqrt(np.abs(values[best]))


def _meetings(sentences: list[list[int]], words: int) -> np.ndarray:
    """Count how often two words stand within `_WINDOW` places: (words, words), symmetric."""
    lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
    flat = np.fromiter(chain.from_iterable(sentences), dtype=np.int64, count=lengths.sum())
    sentence = np.repeat(np.arange(len(sentences)), lengths)
    met = np.zeros(words * words)
    for distance in range(1, _WINDOW + 1):
        for start in range(0, len(flat), _AT_ONCE):
            left = slice(start, min(start + _AT_ONCE, len(flat) - distance))
            right = slice(left.start + distance, max(left.stop + distance, 0))
            if left.stop <= left.start:
                break
            same = sentence[left] == sentence[right]
            pairs = flat[left][same] * words + flat[right][same]
            found, counts = np.unique(pairs, return_counts=True)
            met[found] += counts
    met = met.reshape(words, words)
    return met + met.T


def text_lengths(folder: Path, entry: Mapping[str, Any], captions: Iterable[str]) -> list[int]:
    """Return how many vectors each caption has."""
    if "word_vectors" in entry:
        return [len(words_of(caption)) for caption in captions]
    with np.load(folder / entry["file"], allow_pickle=False) as arrays:
        return np.diff(arrays["offsets"]).tolist()
