"""Arrays in numpy's own format.

`.npy` holds one array, `.npz` a zip archive of several. numpy writes whatever is no plain array as
a pickle into the same files; a `.npy` of objects is read (so people save a dictionary, or a list
of words), its pickle as warily as any other.
"""

import math
import tokenize
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from data_loader.formats.pickles import read_pickle
from utils.errors import BadContent, Truncated, short

_HEADS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def read_npy(path: Path) -> Any:
    """Return the array of a `.npy`; of objects a list, or the plain value where it is one.

    Raises:
        BadContent: it is neither, or its size is not what its header says.
    """
    with path.open("rb") as stream:
        return _array(stream, path.stem, path.stat().st_size, may_be_objects=True)


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
                with archive.open(members[name]) as stream:
                    found[name] = _array(stream, name, members[name].file_size)
        return found


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


def _array(stream: IO[bytes], name: str, size: int, may_be_objects: bool = False) -> Any:
    """Read an array from a stream of `size` bytes."""
    if not size:
        raise Truncated("it is empty")
    try:
        read_head = _HEADS[npy_format.read_magic(stream)]
        shape, _, dtype = read_head(stream)
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
    stream.seek(0)
    return npy_format.read_array(stream, allow_pickle=False)
