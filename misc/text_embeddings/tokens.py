"""Captions as token ids, in a few large arrays, and the job of turning them into vectors."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn


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
