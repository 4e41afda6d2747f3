"""Reading .npz archives of plain arrays, with every size checked before memory is reserved."""

import math
import re
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from data_loader.content import BadContent, Truncated, short

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 16
# What numpy writes into the head of an array; structured and object types do not match.
_HEADER = re.compile(
    r"\{\s*'descr':\s*'([<>|=]?(?:[fiu][1248]|b1|[US]\d{1,7}))',\s*"
    r"'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d,\sL]*)\),?\s*\}\s*$"
)
# Deflate reaches about 1000:1 on zeros; features that compress this well carry nothing.
_MAX_RATIO = 200
_FREE_BYTES = 64 << 20


def read_npz(path: Path, names: dict[str, bool]) -> dict[str, np.ndarray]:
    """Return the arrays of an archive.

    Args:
        path: the .npz file.
        names: the arrays it may hold, each with whether it must.

    Raises:
        BadContent: it is no archive of plain arrays, sizes do not agree, names are missing.
    """
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        missing = [name for name, required in names.items() if required and name not in members]
        if missing:
            held = ", ".join(sorted(short(name) for name in members)[:8]) or "nothing"
            raise BadContent(f'it lacks the array "{missing[0]}" (it holds: {held})')
        return {
            name: _read_member(archive, members[name], name) for name in names if name in members
        }


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    if member.file_size > _MAX_RATIO * member.compress_size + _FREE_BYTES:
        raise BadContent(f'its array "{name}" would unpack to {member.file_size} bytes')
    with archive.open(member) as stream:
        dtype, shape, order, header_size = _read_header(stream, name)
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - header_size:
            raise BadContent(
                f'its array "{name}" of shape {short(shape)} and type {dtype} needs {short(size)} '
                f"bytes, the archive has {member.file_size - header_size}"
            )
        values = np.empty(size, dtype=np.uint8)
        view, done = memoryview(values), 0
        while done < size:
            count = stream.readinto(view[done:])
            if not count:
                raise Truncated(f'its array "{name}" ends early')
            done += count
        # Reading on to the end is what makes the archive compare its checksum.
        if stream.read(1):
            raise BadContent(f'its array "{name}" is longer than its header says')
    return values.view(dtype).reshape(shape, order=order)


def _read_header(stream: IO[bytes], name: str) -> tuple[np.dtype, tuple[int, ...], str, int]:
    start = stream.read(8)
    if start[:6] != _MAGIC or len(start) < 8 or start[6] not in (1, 2, 3):
        raise BadContent(f'its member "{name}" is no array of numpy')
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER:
        raise BadContent(f'the header of its array "{name}" has {length} bytes')
    match = _HEADER.match(stream.read(length).decode("latin-1"))
    if not match:
        raise BadContent(f'its array "{name}" is no plain array of numbers or text')
    shape = tuple(int(part.rstrip("L")) for part in match[3].replace(" ", "").split(",") if part)
    order = "F" if match[2] == "True" else "C"
    return np.dtype(match[1]), shape, order, 8 + width + length
