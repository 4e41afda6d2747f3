"""Word vectors in word2vec's binary format, looked up word by word for captions."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_loader.content import short
from data_loader.errors import UserError
from data_loader.files import reason

logger = logging.getLogger(__name__)

_HEADER = re.compile(rb"(\d{1,9}) (\d{1,6})\s*\n")
_MAX_WORD = 1000
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words_of(caption: str | list[str]) -> list[str]:
    """Split a caption into lower-cased words without punctuation.

    A word is a run of letters and digits; an apostrophe inside it stays ("don't"), a hyphen or an
    underscore separates. A caption that is a list of tokens is joined first.
    """
    text = caption if isinstance(caption, str) else " ".join(caption)
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


class WordVectors:
    """A table word -> vector.

    Attributes:
        values: (words, size) float32.
        rows: word -> its row in `values`.
        mean: (size,) float32, the vector of a caption none of whose words is known.
    """

    def __init__(self, words: list[str], values: np.ndarray) -> None:
        # Where a word stands twice the first, more frequent, entry counts.
        self.rows: dict[str, int] = {}
        for row, word in enumerate(words):
            self.rows.setdefault(word, row)
        self.values = values
        self.mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)

    @property
    def size(self) -> int:
        """Length of one vector."""
        return self.values.shape[1]

    def look_up(self, captions: Iterable[str | list[str]]) -> Iterator[np.ndarray]:
        """Give (known words, size) float32 for each caption; log the unknown words at the end."""
        unknown: Counter[str] = Counter()
        total = 0
        for caption in captions:
            words = words_of(caption)
            total += len(words)
            known = [row for row in map(self.row, words) if row is not None]
            if len(known) < len(words):
                unknown.update(word for word in words if self.row(word) is None)
            yield self.values[known] if known else self.mean[None]
        if unknown:
            frequent = ", ".join(f"{word} ({count})" for word, count in unknown.most_common(5))
            logger.info(
                "%d of %d caption words (%.1f %%) have no word vector; most frequent: %s",
                unknown.total(),
                total,
                100 * unknown.total() / total,
                frequent,
            )

    def row(self, word: str) -> int | None:
        """Return the row of a word, None if it is unknown."""
        # Tables often lack the form with an apostrophe but have the one without.
        row = self.rows.get(word)
        return self.rows.get(word.replace("'", "")) if row is None and "'" in word else row


def read_word_vectors(path: str | Path) -> WordVectors:
    """Read word2vec's binary format: a line "words size", then word, space, float32 values.

    Raises:
        UserError: the file cannot be read, is damaged, or does not hold what its head announces.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read the word vectors {path}: {reason(error)}.") from error
    head = _HEADER.match(data[:64])
    if not head:
        raise UserError(
            f"The word vectors {path} are not in word2vec's binary format: the first line must be "
            '"<words> <size>".'
        )
    count, size = int(head[1]), int(head[2])
    if not count or not size or head.end() + count * (4 * size + 2) > len(data):
        raise UserError(
            f"The word vectors {path} announce {count} words of size {size}, more than "
            f"{len(data)} bytes can hold: the file looks truncated; fetch or make it again."
        )
    words, values = _entries(path, data, head.end(), count, size)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise UserError(
            f'The word vectors {path} hold non-finite values (word "{short(words[row])}").'
        )
    return WordVectors(words, values)


def _entries(
    path: Path, data: bytes, at: int, count: int, size: int
) -> tuple[list[str], np.ndarray]:
    words: list[str] = []
    values = np.empty((count, size), dtype=np.float32)
    for row in range(count):
        while data[at : at + 1] == b"\n":
            at += 1
        space = data.find(b" ", at, at + _MAX_WORD)
        stop = space + 1 + 4 * size
        if space < 0 or stop > len(data):
            raise UserError(
                f"The word vectors {path} are damaged or truncated at entry {row + 1} of {count} "
                f"(byte {at} of {len(data)}); fetch or make them again."
            )
        words.append(data[at:space].decode("utf-8", "replace"))
        values[row] = np.frombuffer(data, dtype="<f4", count=size, offset=space + 1)
        at = stop
    return words, values
