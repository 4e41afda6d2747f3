"""Texts of many rows as two arrays, which are mapped and of which only what is asked is decoded."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import overload

import numpy as np

from data_loader.store.packed import Part, offsets_of


def text_parts(name: str, texts: Iterable[str]) -> dict[str, Part]:
    """Return texts as parts of a packed file, for `TextColumn`."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return {
        name: Part.of(np.frombuffer(b"".join(encoded), dtype=np.uint8)),
        f"{name}_offsets": Part.of(offsets_of([len(text) for text in encoded])),
    }


class TextColumn(Sequence[str]):
    """The texts of `text_parts`, decoded one by one.

    Args:
        arrays: of the packed file.
        name: of the parts.
    """

    def __init__(self, arrays: dict[str, np.ndarray], name: str) -> None:
        self._bytes, self._offsets = arrays[name], arrays[f"{name}_offsets"]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[at] for at in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes().decode()

    def all(self) -> list[str]:
        """Decode all of them at once."""
        data, offsets = self._bytes.tobytes(), self._offsets.tolist()
        return [data[a:b].decode() for a, b in pairwise(offsets)]

    def find(self, text: str) -> int:
        """Return the row of a text, -1 if it is none; the texts are in order."""
        row = bisect_left(self, text)
        return row if row < len(self) and self[row] == text else -1
