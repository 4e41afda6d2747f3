"""From a sentence to what a model compares: the text encoder of an index, kept ready.

An index holds what its encoder needs in the folder of its model. Each kind of encoder is a row of
`KINDS`, by the name that the record of text features has for it (see `misc.text_embeddings`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.store.packed import Part, read_packed, write_packed
from data_loader.store.word_vectors import WordVectors, spellings, words_of
from misc.search.index.columns import TextColumn, text_parts
from misc.search.index.manifest import anew
from model.similarity import RetrievalModel, TextEmbeddings
from trainer.evaluation.evaluate import evaluating
from utils.errors import BadContent, UserError, listed, short

WORDS_FILE, ENCODER_FOLDER = "words.packed", "encoder"
# A text that is longer is no sentence; the encoders would take minutes to cut it into words.
LONGEST_QUERY = 10_000

Encoder = Callable[[Sequence[str]], list[np.ndarray]]
"""Gives the features of texts, (words, D) float32 for each of them."""


@dataclass(frozen=True)
class TextSide:
    """How a sentence comes to the model; plain data for an index, which may come from anybody.

    Attributes:
        encoder: what makes its features, see `misc.text_embeddings.job.encoder_of`.
        size: D.
        max_tokens: words that are kept.
        average: whether the mean of all words is taken.
        files: the files of the encoder, relative to its folder; by their role.
    """

    encoder: dict[str, Any]
    size: int
    max_tokens: int
    average: bool
    files: dict[str, str]

    def __post_init__(self) -> None:
        counts, names = (self.size, self.max_tokens), [*self.files.values()]
        if not all(type(count) is int and count > 0 for count in counts):
            raise TypeError("a number of tokens or of values is none")
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise TypeError("a file is not in the folder of the encoder")
        if not isinstance(self.encoder, dict):
            raise TypeError("an encoder has no record")


class QueryEncoder:
    """Embeds sentences as the captions of the training were embedded.

    Args:
        net: the model, in evaluation mode.
        side: how a sentence comes to it.
        folder: holds the encoder's files.
        device: of the model.

    Raises:
        UserError: the encoder's files are missing or damaged, or its kind is not known.
    """

    def __init__(
        self, net: RetrievalModel, side: TextSide, folder: Path, device: torch.device
    ) -> None:
        kind = side.encoder.get("kind")
        if kind not in KINDS:
            raise UserError(
                f"The index {folder.parent} encodes queries by {short(repr(kind))}, which this "
                f"program does not know (it knows {', '.join(KINDS)})."
            )
        self._net, self._side, self._device = net, side, device
        self._encode = KINDS[kind](side, folder, device)

    def features(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the text features of sentences, (words, D) float32 each."""
        return self._encode([checked(text) for text in texts])

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed sentences, one query each.

        Raises:
            UserError: a text has no words, or none that the encoder knows.
        """
        features = self.features(texts)
        batch, counts = padded(features, self._side.max_tokens, self._side.average)
        with evaluating(self._net):
            text = self._net.encode_text(
                batch.unsqueeze(1).to(self._device), counts.unsqueeze(1).to(self._device)
            )
        if not all(bool(e.isfinite().all()) for e in text.embeddings):
            raise UserError("The model gives an embedding of this query that is not finite.")
        return text.to(torch.device("cpu"))


def checked(text: str) -> str:
    """Return a query as encoders take it.

    Raises:
        UserError: it has no words, or far too many.
    """
    text = text.encode("utf-8", "replace").decode()
    if len(text) > LONGEST_QUERY:
        raise UserError(
            f"The query has {len(text)} characters: a sentence of at most {LONGEST_QUERY} was "
            "expected."
        )
    if not text.strip():
        raise UserError("The query has no words: a sentence was expected.")
    return text


def padded(
    features: Sequence[np.ndarray], max_tokens: int, average: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut and zero-pad, or average, as the batches of a training are made.

    Returns:
        (Q, T, D) float32 and the (Q,) float32 number of tokens in each.
    """
    if average:
        batch = np.stack([words.mean(axis=0, keepdims=True) for words in features])
        return torch.from_numpy(batch), torch.ones(len(features))
    batch = np.zeros((len(features), max_tokens, features[0].shape[1]), dtype=np.float32)
    for row, words in zip(batch, features, strict=True):
        row[: len(words)] = words[:max_tokens]
    counts = torch.tensor([min(len(words), max_tokens) for words in features])
    return torch.from_numpy(batch), counts.float()


# Encoders ----------------------------------------------------------------------------------------


class _WordTable:
    """Looks words up in the table that an index holds; only what is asked for is read of it."""

    def __init__(self, side: TextSide, folder: Path, device: torch.device) -> None:
        try:
            arrays = read_packed(folder / WORDS_FILE).arrays
            self._words, self._values = TextColumn(arrays, "words"), arrays["values"]
        except (OSError, BadContent, KeyError) as error:
            raise UserError(
                f"The word vectors of the index {folder.parent} are missing or damaged: "
                f"{anew(folder.parent)}."
            ) from error
        self._pooling = side.encoder.get("pooling", "tokens")
        self._max_length = side.encoder.get("max_length")

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._of(text) for text in texts]

    def _of(self, text: str) -> np.ndarray:
        words = words_of(text)
        found = [self._row(word) for word in words]
        rows = [row for row in found if row >= 0][: self._max_length]
        if not rows:
            asked = listed(f'"{short(word, 30)}"' for word in words) or "no word at all"
            raise UserError(f"The query has no word that the index knows ({asked}).")
        values = self._values[rows]
        if self._pooling == "tokens":
            return values
        pooled = values.mean(axis=0) if self._pooling == "mean" else values.max(axis=0)
        return pooled[None]

    def _row(self, word: str) -> int:
        return next((row for form in spellings(word) if (row := self._words.find(form)) >= 0), -1)


def write_words(folder: Path, table: WordVectors) -> None:
    """Write a table of word vectors as `_WordTable` reads it.

    Raises:
        UserError: it cannot be written.
    """
    words = sorted(table.rows)
    order = np.array([table.rows[word] for word in words], dtype=np.int64)
    values = Part(
        np.dtype("<f4"),
        (len(words), table.size),
        lambda: (table.values[order[at : at + 65536]] for at in range(0, len(order), 65536)),
    )
    write_packed(folder / WORDS_FILE, {**text_parts("words", words), "values": values}, {})


class _Prepared(ABC):
    """An encoder of `misc.text_embeddings`: loaded with the first query, kept for the others."""

    def __init__(self, side: TextSide, folder: Path, device: torch.device) -> None:
        self._record, self._files = side.encoder, side.files
        self._folder, self._device = folder / ENCODER_FOLDER, str(device)
        self._job: Any = None
        self._tokens_of: Any = None

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        from misc.text_embeddings.captions import Captions
        from misc.text_embeddings.encoding import encode_chunk

        names = [f"query {at}" for at in range(1, len(texts) + 1)]
        captions = Captions(self._folder, names, [1] * len(texts), list(texts))
        if self._job is None:
            try:
                self._job, self._tokens_of = self._load(captions)
            except UserError as error:
                index = self._folder.parent.parent
                raise UserError(
                    f"The text encoder of the index {index} cannot be used: "
                    f"{str(error).removesuffix('.')}; {anew(index)}."
                ) from error
            self._job.module.to(self._device)
        job = replace(self._job, tokens=self._tokens_of(captions))
        values = encode_chunk(job, 0, len(texts), self._device, 8192, lambda tokens: None)
        return np.split(values, np.cumsum(job.rows)[:-1])

    @abstractmethod
    def _load(self, captions: Any) -> tuple[Any, Any]:
        """Return the job of some captions, and what gives the tokens of others."""


class _HuggingFace(_Prepared):
    def _load(self, captions: Any) -> tuple[Any, Any]:
        from misc.text_embeddings.hugging_face import TokenReader, load_tokenizer, transformer_job
        from misc.text_embeddings.job import settings_of
        from misc.text_embeddings.model_folder import find_model

        name = str(self._folder)
        settings = replace(settings_of(self._record), encoder=name, revision=None)
        job = transformer_job(settings, name, captions)
        reader = TokenReader(
            load_tokenizer(find_model(name, None).path),
            job.record["max_length"],
            job.record["special_tokens"] == "drop",
            job.record["pooling"],
        )
        return job, lambda captions: reader.read(captions)[0]


class _MilNce(_Prepared):
    def _load(self, captions: Any) -> tuple[Any, Any]:
        from misc.text_embeddings.job import Settings
        from misc.text_embeddings.word_encoders import (
            mil_nce_job,
            mil_nce_tokens,
            read_dictionary,
        )

        weights, dictionary = (self._folder / self._files[r] for r in ("weights", "dictionary"))
        pooling, length = self._record["pooling"], self._record["max_length"]
        settings = Settings("howto100m_mil_nce", pooling=pooling, max_length=length)
        job = mil_nce_job(settings, weights, dictionary, captions.texts)
        words = read_dictionary(dictionary)
        return job, lambda asked: mil_nce_tokens(asked.texts, words, length, pooling)[0]


KINDS: dict[str, Callable[[TextSide, Path, torch.device], Encoder]] = {
    "word vectors": _WordTable,
    "Hugging Face encoder": _HuggingFace,
    "MIL-NCE": _MilNce,
}
