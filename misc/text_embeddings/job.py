"""What is to be encoded and by what: the flags, the captions as token ids, the job, its record."""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from utils.errors import UserError, did_you_mean, short
from utils.files import reason


@dataclass(frozen=True)
class Settings:
    """The flags that concern the encoder; None where the user says nothing.

    Attributes:
        encoder: a known name, a file, a folder or a name on the Hugging Face hub.
        weights: the file or folder of a known encoder.
        dictionary: the words of MIL-NCE.
        pooling: "tokens", "mean", ...
        layer: the hidden states to take.
        special_tokens: "keep" or "drop".
        max_length: tokens of a caption that are read.
        revision: branch, tag or commit on the hub.
    """

    encoder: str
    weights: Path | None = None
    dictionary: Path | None = None
    pooling: str | None = None
    layer: int | None = None
    special_tokens: str | None = None
    max_length: int | None = None
    revision: str | None = None

    def refuse(self, kind: str, *flags: str) -> None:
        """Insist that flags without a meaning for this kind of encoder are not given.

        Raises:
            UserError: one of them is.
        """
        for flag in flags:
            if getattr(self, flag) is not None:
                raise UserError(
                    f'--{flag} has no meaning for {kind}, which is what "{self.encoder}" is.'
                )

    def choose_pooling(self, kind: str, known: Sequence[str]) -> str:
        """Return the pooling, by default the first of the known ones.

        Raises:
            UserError: this kind of encoder does not know it.
        """
        if self.pooling is None:
            return known[0]
        if self.pooling not in known:
            raise UserError(
                f'--pooling "{self.pooling}" is not known for {kind}'
                f"{did_you_mean(self.pooling, known)}: known are {', '.join(known)}."
            )
        return self.pooling


class Tokens:
    """The token ids of all captions: first all are added, then they are read.

    Attributes:
        ids: (tokens,) int32.
        keep: (tokens,) bool, the tokens whose vectors count.
        offsets: (captions + 1,) int64 into both.
    """

    def __init__(self) -> None:
        self._ids, self._keep, self._lengths = array("i"), bytearray(), array("i")

    def add(self, ids: Sequence[int], keep: Sequence[bool] | None = None) -> None:
        """Append a caption; without `keep` all its tokens count."""
        self._ids.extend(ids)
        self._keep.extend([True] * len(ids) if keep is None else keep)
        self._lengths.append(len(ids))

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def ids(self) -> np.ndarray:
        return np.frombuffer(self._ids, dtype=np.int32)

    @property
    def keep(self) -> np.ndarray:
        return np.frombuffer(self._keep, dtype=bool)

    @cached_property
    def offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)])


@dataclass(frozen=True)
class Job:
    """What is to be encoded, and by what.

    Attributes:
        tokens: of all captions.
        module: ids (B, T) -> (B, T, size), or (B, 1, size) if it pools by itself.
        size: length of a vector.
        pooling, normalise: see `model.text_encoders.pool`.
        record: all that decides the result, and the numbers of words unknown or cut.
        pools_itself: whether the module gives one vector for a caption.
    """

    tokens: Tokens
    module: nn.Module
    size: int
    pooling: str
    normalise: bool
    record: dict[str, Any]
    pools_itself: bool = False

    @cached_property
    def rows(self) -> np.ndarray:
        """The number of vectors of each caption, (captions,) int64."""
        if self.pools_itself or self.pooling != "tokens":
            return np.ones(len(self.tokens), dtype=np.int64)
        return np.add.reduceat(self.tokens.keep, self.tokens.offsets[:-1], dtype=np.int64)


# What of a job's record decides how a caption is encoded; the rest are counts.
_DECIDES = (
    *("kind", "name", "revision", "file", "sha256", "dictionary", "dictionary_sha256"),
    *("model_type", "pooling", "normalised", "layer", "special_tokens", "max_length"),
)


def encoder_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return what another caption needs to be encoded in the same way, for a `dataset.json`."""
    return {key: record[key] for key in _DECIDES if record.get(key) is not None}


def settings_of(encoder: dict[str, Any]) -> Settings:
    """Return the flags with which a recorded encoder is made again."""
    # A sentence encoder says itself how it pools, and alone scales its vectors to length 1.
    pooling = "sentence" if encoder.get("normalised") else encoder.get("pooling")
    # The revision of a folder is the hashes of its files.
    revision = encoder.get("revision")
    return Settings(
        encoder=str(encoder.get("name")),
        pooling=pooling,
        layer=encoder.get("layer"),
        special_tokens=encoder.get("special_tokens"),
        max_length=encoder.get("max_length"),
        revision=revision if isinstance(revision, str) else None,
    )


def file_hash(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {reason(error)}.") from error


def readable(value: Any) -> Any:
    """Return plain data with all texts as UTF-8 has them.

    Names of files come as the locale has them: bytes that it does not know are half characters,
    which no JSON file takes.
    """
    if isinstance(value, dict):
        return {key: readable(inner) for key, inner in value.items()}
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {name: metadata.version(name) for name in packages}


def first_line(error: Exception) -> str:
    """Return the kind and the first line of an error of a library, for the middle of a sentence."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {short(lines[0].rstrip('.:'), 200)}"
