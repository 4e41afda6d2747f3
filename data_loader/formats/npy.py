"""Arrays in numpy's own format, with every shape compared with the bytes that are there.

`.npy` holds one array, `.npz` a zip archive of several. numpy writes whatever is no plain array as
a pickle into the same files; a `.npy` of objects is read (so people save a dictionary, or a list
of words), its pickle as warily as any other.
"""

import math
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_loader.formats.pickles import read_pickle
from utils.content import BadContent, Truncated, short

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 16
# What numpy writes into the head of an array; structured types do not match.
_HEADER = re.compile(
    r"\{\s*'descr':\s*'([<>|=]?(?:[fiu][1248]|b1|O|[US]\d{1,7}))',\s*"
    r"'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d,\sL]*)\),?\s*\}\s*$"
)


def read_npy(path: Path) -> Any:
    """Return the array of a `.npy`; of objects a list, or the plain value where it is one.

    Raises:
        BadContent: it is neither, or its size is not what its header says.
    """
    with path.open("rb") as stream:
        dtype, shape, order, header_size = _read_header(stream, path.stem)
        if dtype.hasobject:
            return _objects(stream, shape)
        size = path.stat().st_size - header_size
        needed = math.prod(shape) * dtype.itemsize
        if size != needed:
            kind = Truncated if size < needed else BadContent
            raise kind(
                f"an array of shape {short(shape)} and type {dtype} needs {short(needed)} bytes, "
                f"it has {size}"
            )
        return _values(stream, size, path.stem).view(dtype).reshape(shape, order=order)


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


def read_npy_folder(folder: Path) -> dict[str, Any]:
    """Return the arrays of a folder with one `.npy` for each video, named by it.

    Raises:
        BadContent: there is none, or one of them cannot be read.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".npy" and path.is_file())
    if not paths:
        raise BadContent("it is a folder without .npy files; one for each video was expected")
    table = {}
    for path in paths:
        try:
            table[path.stem] = read_npy(path)
        except BadContent as error:
            raise type(error)(f"{short(path.name)}: {error}") from error
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            raise BadContent(f"{short(path.name)}: it is damaged ({short(error, 120)})") from error
    return table


def _objects(stream: IO[bytes], shape: tuple[int, ...]) -> Any:
    value = read_pickle(stream)
    if not isinstance(value, list) or len(value) != math.prod(shape):
        raise BadContent("its array of objects is not what its header says")
    return value[0] if len(value) == 1 else value


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    with archive.open(member) as stream:
        dtype, shape, order, header_size = _read_header(stream, name)
        if dtype.hasobject:
            raise BadContent(f'its array "{name}" is no plain array of numbers or text')
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - header_size:
            raise BadContent(
                f'its array "{name}" of shape {short(shape)} and type {dtype} needs {short(size)} '
                f"bytes, the archive has {member.file_size - header_size}"
            )
        values = _values(stream, size, name)
        # Reading on to the end is what makes the archive compare its checksum.
        if stream.read(1):
            raise BadContent(f'its array "{name}" is longer than its header says')
    return values.view(dtype).reshape(shape, order=order)


def _values(stream: Any, size: int, name: str) -> np.ndarray:
    values = np.empty(size, dtype=np.uint8)
    view, done = memoryview(values.data), 0
    while done < size:
        count = stream.readinto(view[done:])
        if not count:
            raise Truncated(f'its array "{name}" ends early')
        done += count
    return values


def _read_header(stream: IO[bytes], name: str) -> tuple[np.dtype, tuple[int, ...], Any, int]:
    start = stream.read(8)
    if not start:
        raise Truncated("it is empty")
    if start[:6] != _MAGIC or len(start) < 8 or start[6] not in (1, 2, 3):
        raise BadContent(f'its member "{name}" is no array of numpy')
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER:
        raise BadContent(f'the header of its array "{name}" has {length} bytes')
    text = stream.read(length)
    if len(text) < length:
        raise Truncated(f'the header of its array "{name}" ends early')
    match = _HEADER.match(text.decode("latin-1"))
    if not match:
        raise BadContent(f'its array "{name}" is no plain array of numbers or text')
    shape = tuple(int(part.rstrip("L")) for part in match[3].replace(" ", "").split(",") if part)
    order = "F" if match[2] == "True" else "C"
    return np.dtype(match[1]), shape, order, 8 + width + length
