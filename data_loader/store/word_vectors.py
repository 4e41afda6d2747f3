"""Word vectors, looked up word by word for captions."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_loader.formats.apart import behind_wall
from data_loader.formats.word_vector_files import open_word_vectors
from utils.errors import UserError, short

logger = logging.getLogger(__name__)

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def words_of(caption: str | list[str]) -> list[str]:
    """Split a caption into lower-cased words without punctuation.

    A word is a run of letters and digits; an apostrophe inside it stays ("don't"), a hyphen or an
    underscore separates. A caption that is a list of tokens is joined first.
    """
    text = caption if isinstance(caption, str) else " ".join(caption)
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def spellings(word: str) -> tuple[str, ...]:
    """Return the forms under which a table may know a word, the best first."""
    # Tables often lack the form with an apostrophe but have the one without.
    return (word, word.replace("'", "")) if "'" in word else (word,)


@dataclass
class WordCount:
    """What a look-up found and did not find.

    Attributes:
        captions: number of captions.
        words: number of words of all captions.
        unknown: the words that the table lacks, with their numbers.
        captions_without: number of captions none of whose words is known.
    """

    captions: int = 0
    words: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    captions_without: int = 0

    def log(self) -> None:
        """Log the unknown words, if there are any."""
        if self.unknown:
            frequent = ", ".join(
                f"{short(word)} ({count})" for word, count in self.unknown.most_common(5)
            )
            logger.info(
                "%d of %d caption words (%.1f %%) have no word vector; most frequent: %s",
                self.unknown.total(),
                self.words,
                100 * self.unknown.total() / self.words,
                frequent,
            )
        if self.captions_without:
            logger.info(
                "%d captions have no known word: they get the mean vector", self.captions_without
            )

    def check(self, vectors: str, source: str) -> None:
        """Insist that the captions (from `source`) are of words, and not all strange to the table.

        Raises:
            UserError: none has a known word, or most are written without spaces between words.
        """
        unbroken = {word: n for word, n in self.unknown.items() if _WITHOUT_SPACES.search(word)}
        if 2 * sum(unbroken.values()) > self.words:
            raise UserError(
                f"The captions of {source} are in a language that is written without spaces (such "
                f'as "{short(next(iter(unbroken)), 30)}"), in which word vectors find no words: '
                "make text features with an encoder, whose own tokeniser parts them (python3 -m "
                "misc.prepare_text_embeddings --encoder), or write spaces between the words."
            )
        if self.captions and self.captions_without == self.captions:
            asked = ", ".join(f'"{short(word, 30)}"' for word, _ in self.unknown.most_common(3))
            raise UserError(
                f"None of the {self.captions} captions of {source} has a word that {vectors} "
                f"know (asked for: {asked or 'no word at all'}): take word vectors of the "
                "captions' language, in lower case, or make text features with "
                "misc/prepare_text_embeddings.py."
            )


def rows_of(caption: str | list[str], rows: dict[str, int], count: WordCount) -> list[int]:
    """Return the table's rows of the words it knows, in order, and count the others."""
    words = words_of(caption)
    found = []
    for word in words:
        row = next((rows[form] for form in spellings(word) if form in rows), None)
        if row is None:
            count.unknown[word] += 1
        else:
            found.append(row)
    count.captions += 1
    count.words += len(words)
    count.captions_without += not found
    return found


class WordVectors:
    """A table word -> vector.

    Attributes:
        values: (words, size) float32.
        rows: word -> its row in `values`.
        mean: (size,) float32, the vector of a caption none of whose words is known.
    """

    def __init__(self, words: list[str], values: np.ndarray, mean: np.ndarray) -> None:
        # Where a word stands twice the first, more frequent, entry counts.
        self.rows: dict[str, int] = {}
        for row, word in enumerate(words):
            self.rows.setdefault(word, row)
        self.values = values
        self.mean = mean

    @property
    def size(self) -> int:
        """Length of one vector."""
        return self.values.shape[1]

    def look_up(
        self, captions: Iterable[str | list[str]], count: WordCount | None = None
    ) -> Iterator[np.ndarray]:
        """Give (known words, size) float32 for each caption; log the unknown words at the end.

        Args:
            captions: texts, or lists of tokens.
            count: where to count what was found, if anybody wants to know.
        """
        count = WordCount() if count is None else count
        for caption in captions:
            known = rows_of(caption, self.rows, count)
            yield self.values[known] if known else self.mean[None]
        count.log()


def wanted_words(captions: Iterable[str | list[str]]) -> set[str]:
    """Return all words that a look-up of these captions may ask for."""
    return {form for caption in captions for word in words_of(caption) for form in spellings(word)}


def read_word_vectors(path: str | Path, wanted: set[str] | None = None) -> WordVectors:
    """Read word vectors: word2vec's binary format or text, also packed (.gz, .zip).

    Args:
        path: the file.
        wanted: words to keep, so that a table of millions need not fit in memory; None keeps all.
            The mean is that of the whole table either way.

    Raises:
        UserError: the file cannot be read, is damaged, or does not hold what its head announces.
    """
    return WordVectors(*_read_table(path, wanted))


@behind_wall
def _read_table(
    path: str | Path, wanted: set[str] | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    path = Path(path)
    words: list[str] = []
    kept: list[np.ndarray] = []
    with open_word_vectors(path) as (size, blocks):
        total, count = np.zeros(size), 0
        for block, values in blocks:
            if not np.isfinite(values).all():
                word = block[int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])]
                raise UserError(
                    f'The word vectors {path} hold non-finite values (word "{short(word)}").'
                )
            total += values.sum(axis=0, dtype=np.float64)
            count += len(block)
            rows = [row for row, word in enumerate(block) if wanted is None or word in wanted]
            words += [block[row] for row in rows]
            kept.append(values[rows].astype(np.float32))
    return words, np.concatenate(kept), (total / count).astype(np.float32)
