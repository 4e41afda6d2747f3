"""Arrays in numpy's own format.

`.npy` holds one array, `.npz` a zip archive of several. numpy writes whatever is no plain array as
a pickle into the same files; a `.npy` of objects is read (so people save a dictionary, or a list
of words), its pickle as warily as any other.
"""

import io
import math
import mmap
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from data_loader.formats.pickles import read_pickle
from utils.errors import BadContent, Truncated, short

_LOCAL_HEADER = 30
_LONGEST_HEAD = 1 << 16
# What is smaller is read: each mapping holds a file open, and a folder may have many.
_MAPPED_BYTES = 16 << 20
_HEADS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def read_npy(path: Path) -> Any:
    """Return the array of a `.npy`; of objects a list, or the plain value where it is one.

    Raises:
        BadContent: it is neither, or its size is not what its header says.
    """
    with path.open("rb") as stream:
        return _array(stream, path.stem, path.stat().st_size, path, may_be_objects=True)


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
        found = {}
        for name in names:
            if name in members:
                found[name] = _member(archive, path, members[name], name)
        return found


def read_all_npz(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an archive.

    Raises:
        BadContent: as `read_npz`.
    """
    with zipfile.ZipFile(path) as archive:
        names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
    return read_npz(path, dict.fromkeys(names, True))


def place_of(member: zipfile.ZipInfo, data: memoryview) -> int:
    """Return where the bytes of a member that is stored as it is begin in its archive."""
    end = member.header_offset + _LOCAL_HEADER
    return end + sum(struct.unpack("<HH", data[end - 4 : end]))


def _member(archive: zipfile.ZipFile, path: Path, member: zipfile.ZipInfo, name: str) -> Any:
    """Read an array of an archive; one that is large and stored as it is stays in the file."""
    with archive.open(member) as stream:
        is_stored = member.compress_type == zipfile.ZIP_STORED
        if not is_stored or member.file_size < _MAPPED_BYTES:
            return _array(stream, name, member.file_size)
    with path.open("rb") as handle:
        data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
    begin = place_of(member, data)
    inner = data[begin : begin + member.file_size]
    if zlib.crc32(inner) != member.CRC:
        raise zipfile.BadZipFile(f'the member "{short(name)}" fails its checksum')
    head = io.BytesIO(inner[:_LONGEST_HEAD])
    return _array(head, name, member.file_size, path, offset=begin)


def _array(
    stream: IO[bytes],
    name: str,
    size: int,
    path: Path | None = None,
    offset: int = 0,
    may_be_objects: bool = False,
) -> Any:
    """Read an array from a stream of `size` bytes, or map a large one that lies in a file."""
    if not size:
        raise Truncated("it is empty")
    try:
        read_head = _HEADS[npy_format.read_magic(stream)]
        shape, is_fortran, dtype = read_head(stream)
    except (ValueError, LookupError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise BadContent(f'its member "{name}" is no array of numpy ({short(error)})') from error
    if dtype.hasobject and may_be_objects:
        value = read_pickle(stream)
        if not isinstance(value, list) or len(value) != math.prod(shape):
            raise BadContent("its array of objects is not what its header says")
        return value[0] if len(value) == 1 else value
    if dtype.kind not in "fiubUS":
        raise BadContent(f'its array "{name}" is no plain array of numbers or text')
    needed, size = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if needed != size:
        raise (Truncated if size < needed else BadContent)(
            f'its array "{name}" of shape {short(shape)} and type {dtype} needs {short(needed)} '
            f"bytes, it has {size}"
        )
    if path and needed >= _MAPPED_BYTES and dtype.kind in "fiub":
        order: Any = "F" if is_fortran else "C"
        return np.asarray(np.memmap(path, dtype, "r", offset + stream.tell(), shape, order))
    stream.seek(0)
    return npy_format.read_array(stream, allow_pickle=False)
