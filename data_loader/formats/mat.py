"""Reading MATLAB's files: version 5 (checked, then scipy's reader), version 7.3 (HDF5).

scipy reserves what a file announces before it has seen the bytes, so the elements are walked
first: every length must fit in what it lies in, every array must have as many values as its shape.
"""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.formats.apart import read_apart
from utils.errors import BadContent, Truncated, short
from utils.files import check_unpacked_size

_HEAD = 128
_MAX_DEPTH = 4
_COMPRESSED, _MATRIX = 15, 14
# Sizes of the values that an element may hold, by its number: integers, floats, text.
_ITEM_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_CELL, _CHAR, _NUMBERS = 1, 4, range(6, 16)
_COMPLEX = 0x0800


def read_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a `.mat` as arrays, texts and lists.

    Raises:
        BadContent: it is broken, or holds anything but plain arrays, text and cell arrays.
    """
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
        if head.startswith(b"MATLAB 7.3"):
            return read_apart("matlab", path)
        if head[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
            raise BadContent('it is no MAT-file of version 5 or 7.3 (save with "-v7" in MATLAB)')
        body = handle.read()
    order = "<" if head[126:128] == b"IM" else ">"
    plain = _unpacked(memoryview(body), order)
    for start, kind, data in _elements(plain, order):
        if kind != _MATRIX:
            raise BadContent(f"it holds an element of kind {kind} at byte {start + _HEAD}")
        _check_matrix(data, order, 0)
    import scipy.io  # takes its time, and few data sets have such files

    found = scipy.io.loadmat(io.BytesIO(head + bytes(plain)), chars_as_strings=True)
    return {name: _plain(value) for name, value in found.items() if not name.startswith("__")}


def _unpacked(body: memoryview, order: str) -> memoryview:
    """Return the elements with those that are compressed replaced by what they hold."""
    parts = []
    for _, kind, data in _elements(body, order):
        if kind != _COMPRESSED:
            parts.append(struct.pack(f"{order}II", kind, len(data)) + bytes(data))
            parts.append(b"\0" * (-len(data) % 8))
            continue
        stream = zlib.decompressobj()
        head = stream.decompress(data, 8)
        if len(head) < 8:
            raise Truncated("a compressed variable ends early")
        length = struct.unpack(f"{order}I", head[4:8])[0]
        check_unpacked_size("a variable", length, len(data))
        # One byte more than announced shows that there is more.
        rest = stream.decompress(stream.unconsumed_tail, length + 1)
        if len(rest) != length:
            raise Truncated("a compressed variable has another length than it says")
        parts += [head, rest]
    return memoryview(b"".join(parts))


def _elements(data: memoryview, order: str) -> Any:
    """Give (place, kind, content) of each element in a row of elements."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise Truncated("it ends within an element")
        kind, size = struct.unpack(f"{order}II", data[at : at + 8])
        start = at + 8
        if kind >> 16:
            # The short form: length and kind share four bytes, four bytes of content follow.
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise BadContent("an element of the short form is too long")
        if start + size > len(data):
            raise Truncated(f"an element of {size} bytes is longer than what is left")
        yield at, kind, data[start : start + size]
        is_packed = kind == _COMPRESSED
        at = at + 8 if start == at + 4 else start + size + (0 if is_packed else -size % 8)


def _check_matrix(data: memoryview, order: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise BadContent("its cell arrays are nested too deeply")
    parts = [(kind, content) for _, kind, content in _elements(data, order)]
    if not parts:
        return
    if len(parts) < 3 or [kind for kind, _ in parts[:3]] != [6, 5, 1] or len(parts[0][1]) != 8:
        raise BadContent("a variable lacks its type, shape or name")
    name = bytes(parts[2][1]).decode("latin-1")
    what = f'its variable "{short(name)}"' if name else "a cell"
    flags = struct.unpack(f"{order}I", parts[0][1][:4])[0]
    dims = parts[1][1]
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims[: len(dims) // 4 * 4])
    if not 2 <= len(shape) <= 8 or min(shape) < 0:
        raise BadContent(f"{what} has the shape {short(shape)}")
    count, content = math.prod(shape), parts[3:]
    if flags & 0xFF == _CELL:
        if len(content) != count or any(kind != _MATRIX for kind, _ in content):
            raise BadContent(f"a cell array of shape {short(shape)} has {len(content)} cells")
        for _, cell in content:
            _check_matrix(cell, order, depth + 1)
        return
    if flags & 0xFF not in (_CHAR, *_NUMBERS) or flags & _COMPLEX or len(content) != 1:
        raise BadContent(f"{what} holds something else than numbers, text and cell arrays")
    kind, values = content[0]
    if kind not in _ITEM_SIZES or len(values) != count * _ITEM_SIZES[kind]:
        raise BadContent(f"{what} of shape {short(shape)} has {len(values)} bytes of values")


def _plain(value: Any) -> Any:
    """Return cell arrays as lists, text as text; other arrays as they are."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "O":
        return [_plain(item) for item in value.reshape(-1, order="F")]
    if value.dtype.kind == "U":
        return "".join(value.reshape(-1)[:1]) if value.size < 2 else value.reshape(-1)
    return value
