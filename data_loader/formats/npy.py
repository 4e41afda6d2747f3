"""Arrays in numpy's own format, with every size checked before memory is reserved.

`.npy` holds one array, `.npz` a zip archive of several. numpy writes whatever is no plain array as
a pickle into the same files; the only such file that is read is a `.npy` of one object (how people
save a dictionary with `numpy.save`), and its pickle goes through our own machine.
"""

import math
import mmap
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_loader.formats.pickles.values import read_pickle
from utils.errors import BadContent, Truncated, short
from utils.files import check_unpacked_size

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 16
# What numpy writes into the head of an array; structured types do not match.
_HEADER = re.compile(
    r"\{\s*'descr':\s*'([<>|=]?(?:[fiu][1248]|b1|O|[US]\d{1,7}))',\s*"
    r"'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d,\sL]*)\),?\s*\}\s*$"
)


def read_npy(path: Path) -> Any:
    """Return the array of a `.npy`, or the plain value where it holds one object.

    Raises:
        BadContent: it is neither, or its size is not what its header says.
    """
    with path.open("rb") as stream:
        dtype, shape, order, header_size = _read_header(stream, path.stem)
        if dtype.hasobject:
            return _one_object(stream, shape, header_size)
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


def _one_object(stream: IO[bytes], shape: tuple[int, ...], header_size: int) -> Any:
    if math.prod(shape) != 1:
        raise BadContent("it holds an array of objects; one dictionary or an array was expected")
    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    value = read_pickle(memoryview(data)[header_size:])
    if not isinstance(value, list) or len(value) != 1:
        raise BadContent("its array of objects is not what its header says")
    return value[0]


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    check_unpacked_size(f'its array "{name}"', member.file_size, member.compress_size)
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
