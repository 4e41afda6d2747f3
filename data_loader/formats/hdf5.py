"""Reading HDF5 files: hickle's, MATLAB's (before version 7.3 they were no HDF5), and plain ones.

HDF5 can point to other files, name one array many times and announce sizes that are not there.
Only arrays that lie in the file itself are read, each once, each no larger than what is stored for
it. hickle's attributes hold pickles; none of them is read as such, and values that hickle pickled
as a whole are refused.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

from data_loader.formats.pickles import checked_key, text_of
from data_loader.formats.tables import ID_NAMES, Later
from utils.errors import BadContent, Truncated, short

_MAX_DEPTH = 12
# Deflate, shuffle, checksums and lzf are built in; any other filter would load a plug-in.
_FILTERS = {1, 2, 3, 32000}
_LIST_ITEM = re.compile(r"data_?(\d+)$")
# zsvision's hickle extension writes this for a slash in a key, hickle 4 two backslashes.
_SLASHES = ("24fecef0-9d7a", "\\\\")
_MATLAB_HEAD = 128
# What tells where the rest belongs.
_READ_AT_ONCE = (*ID_NAMES, "offsets")

Place: TypeAlias = h5py.Dataset | h5py.Group
Walk = Callable[[Place, int], Any]


def read_hdf5(path: Path) -> Any:
    """Return the content of a file as plain containers and arrays.

    A hickle gives the value that was hickled. Otherwise each dataset of the file stands under its
    name, a group as a list if its members are numbered and as a dictionary if not.

    Raises:
        BadContent: it is broken, or holds anything but plain data in the file itself.
    """
    with open_hdf5(path, is_lazy=False) as content:
        return content


@contextlib.contextmanager
def open_hdf5(path: Path, is_lazy: bool) -> Iterator[Any]:
    """Give what `read_hdf5` returns; lazily, numbers that do not lie there as they are are `Later`.

    Raises:
        BadContent: as `read_hdf5`.
    """
    with _opened(path) as file:
        reader = _Reader(file, is_lazy)
        if "HICKLE_VERSION" in file.attrs or _text_of(file.attrs.get("CLASS")) == "hickle":
            yield _hickled(reader)
        else:
            yield reader.members(file, reader.plain, 0)


def read_matlab_hdf5(path: Path) -> dict[str, Any]:
    """Return the variables of a `.mat` of version 7.3, axes in MATLAB's order.

    Raises:
        BadContent: as `read_hdf5`.
    """
    with _opened(path) as file:
        reader = _Reader(file)
        names = [name for name in file if not name.startswith("#")]
        return {name: reader.matlab(reader.member(file, name), 0) for name in names}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading, and turn what the library raises into one kind of error."""
    if path.stat().st_size == 0:
        raise Truncated("it is empty")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise BadContent(f"it is no HDF5 file, or damaged ({short(error, 120)})") from error


class _Reader:
    """Reads the datasets of one file, each at most once.

    Args:
        file: an open file.
        is_lazy: whether numbers that do not lie there as they are become `Later`.
    """

    def __init__(self, file: h5py.File, is_lazy: bool = False) -> None:
        self.file, self.is_lazy = file, is_lazy
        self._seen: set[int] = set()
        self._bytes = np.asarray(np.memmap(file.filename, dtype=np.uint8, mode="r"))

    def member(self, group: h5py.Group, name: str) -> Place:
        """Return a member that lies in this file and was not read before."""
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise BadContent(f'"{short(name)}" is a link to somewhere else')
        return self._once(group[name], name)

    def _once(self, place: Any, name: str) -> Place:
        if not isinstance(place, h5py.Dataset | h5py.Group):
            raise BadContent(f'"{short(name)}" is neither an array nor a group')
        address = h5py.h5o.get_info(place.id).addr
        if address in self._seen:
            raise BadContent(f'"{short(name)}" is another name of what it holds already')
        self._seen.add(address)
        return place

    def members(self, group: h5py.Group, walk: Walk, depth: int) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            raise BadContent("its groups are nested too deeply")
        return {name: walk(self.member(group, name), depth + 1) for name in group}

    def plain(self, place: Place, depth: int) -> Any:
        if isinstance(place, h5py.Dataset):
            return self.values(place)
        held = self.members(place, self.plain, depth)
        numbered = held and all(name.isdecimal() for name in held)
        return [held[name] for name in sorted(held, key=int)] if numbered else held

    def matlab(self, place: Place, depth: int) -> Any:
        if not isinstance(place, h5py.Dataset):
            raise BadContent(f'"{short(place.name)}" is a structure of MATLAB')
        kind = _text_of(place.attrs.get("MATLAB_class"))
        if place.attrs.get("MATLAB_empty", 0):
            return np.empty((0,), dtype=np.float32)
        if kind == "cell":
            return self._cell(place, depth)
        values = self.values(place)
        if kind == "char":
            return "".join(map(chr, values.T.reshape(-1).tolist()))
        return values.T if isinstance(values, np.ndarray) else values

    def _cell(self, place: h5py.Dataset, depth: int) -> list[Any]:
        if depth > _MAX_DEPTH or h5py.check_ref_dtype(place.dtype) is not h5py.Reference:
            raise BadContent(f'"{short(place.name)}" is no cell array of plain values')
        self._check_storage(place)
        references = place[()].T.reshape(-1)
        return [
            self.matlab(self._once(self.file[reference], place.name), depth + 1)
            for reference in references
        ]

    def values(self, place: h5py.Dataset) -> Any:
        """Return the values of a dataset: an array, a number, a text or a list of texts."""
        if place.shape is None:
            return None
        texts = h5py.check_string_dtype(place.dtype)
        if place.dtype.kind not in "fiubS" and texts is None:
            raise BadContent(f'"{short(place.name)}" holds {place.dtype}, no plain numbers or text')
        self._check_storage(place)
        if texts is None and place.ndim and (mapped := self._mapped(place)) is not None:
            return mapped
        name = place.name.rpartition("/")[2].lower()
        if self.is_lazy and texts is None and place.ndim and name not in _READ_AT_ONCE:
            # A dataset that stays open keeps a cache of its own.
            path = place.name
            return Later(place.shape, place.dtype, lambda rows: self.file[path][rows])
        found = place[()]
        if "str_type" in place.attrs and texts and texts.length:
            return text_of(found.tobytes())
        if texts is not None:
            return _texts(found)
        return found if isinstance(found, np.ndarray) else found.item()

    def _mapped(self, place: h5py.Dataset) -> np.ndarray | None:
        """Return the values as they lie in the file, where they lie there in one piece."""
        offset, size = place.id.get_offset(), math.prod(place.shape) * place.dtype.itemsize
        if place.chunks is not None or not offset or not size or offset + size > len(self._bytes):
            return None
        return self._bytes[offset : offset + size].view(place.dtype).reshape(place.shape)

    def _check_storage(self, place: h5py.Dataset) -> None:
        """Insist that values lie in this file, and no more of them than are stored."""
        name = short(place.name)
        if place.external or place.is_virtual:
            raise BadContent(f'"{name}" lies in other files')
        creation = place.id.get_create_plist()
        used = [creation.get_filter(number)[0] for number in range(creation.get_nfilters())]
        if not _FILTERS.issuperset(used):
            raise BadContent(f'"{name}" is stored by an unknown filter ({short(used)})')
        stored = place.id.get_storage_size()
        size = math.prod(place.shape) * place.dtype.itemsize
        if place.chunks is None and size > stored:
            raise BadContent(f'"{name}" of shape {short(place.shape)} has only {stored} bytes')


def _texts(found: Any) -> Any:
    if not isinstance(found, np.ndarray):
        return _text_of(found)
    if found.ndim != 1:
        return [_texts(row) for row in found]
    return [_text_of(item) for item in found]


def _text_of(value: Any) -> Any:
    """Decode a text, or the first of an array of texts; other values stay as they are."""
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "SO":
        value = value.reshape(-1)[0]
    return text_of(value) if isinstance(value, bytes) else value


def _hickled(reader: _Reader) -> Any:
    """Return the value of a hickle, versions 3 to 5."""
    # Asking the file itself whether it has a name would follow a link to another file.
    held = set(reader.file)
    for name in ("data", "data_0"):
        if name in held:
            return _hickled_value(reader, reader.member(reader.file, name), 0)
    raise BadContent("it is a hickle without a value")


def _hickled_value(reader: _Reader, place: Place, depth: int) -> Any:
    kinds = [_text_of(place.attrs[key]) for key in ("type", "base_type") if key in place.attrs]
    if isinstance(place, h5py.Dataset):
        if not kinds or "pickle" in kinds:
            raise BadContent(f'"{short(place.name)}" was pickled by hickle')
        if "none" in kinds or "None" in kinds:
            return None
        return reader.values(place)

    def pair(inner: Place, at: int) -> tuple[Any, Any]:
        value = _hickled_value(reader, inner, at)
        if _text_of(inner.attrs.get("key_base_type")) != "key_value":
            return _key(inner.name), value
        if not isinstance(value, list) or len(value) != 2:
            raise BadContent(f'"{short(inner.name)}" is no pair of key and value')
        return checked_key(value[0]), value[1]

    held = reader.members(place, pair, depth)
    numbers = {name: _LIST_ITEM.match(name) for name in held}
    if "dict_item" in kinds:
        return next((value for _, value in held.values()), None)
    is_pair = any(key != _key(name) for name, (key, _) in held.items())
    if held and all(numbers.values()) and not is_pair:
        places = {name: int(match[1]) for name, match in numbers.items() if match}
        return [held[name][1] for name in sorted(held, key=places.__getitem__)]
    if not held and any("list" in str(kind) for kind in kinds):
        return []
    return dict(held.values())


def _key(name: str) -> str:
    """Return the key of a dictionary from the name of its member, quoted if it was a text."""
    name = name.rsplit("/", 1)[-1]
    for code in _SLASHES:
        name = name.replace(code, "/")
    quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
    return name[1:-1] if quoted else name


def read_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a `.mat`, version 5 (scipy reads it) or 7.3: arrays, texts, lists.

    Raises:
        BadContent: it is broken, or holds anything but plain arrays, text and cell arrays.
    """
    with path.open("rb") as handle:
        head = handle.read(_MATLAB_HEAD)
        if head.startswith(b"MATLAB 7.3"):
            return read_matlab_hdf5(path)
        if head[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
            raise BadContent('it is no MAT-file of version 5 or 7.3 (save with "-v7" in MATLAB)')
        import scipy.io  # takes its time, and few data sets have such files

        handle.seek(0)
        try:
            found = scipy.io.loadmat(handle, chars_as_strings=True)
        except MemoryError:
            raise
        except Exception as error:  # of damage it raises whatever happens to it
            raise BadContent(f"it is damaged ({short(error, 120)})") from error
    return {name: _variable(value, name) for name, value in found.items() if name[:2] != "__"}


def _variable(value: Any, name: str) -> Any:
    """Return cell arrays as lists, text as text; other arrays of numbers as they are."""
    kind = value.dtype.kind if type(value) is np.ndarray else ""
    if kind == "O":
        return [_variable(item, name) for item in value.reshape(-1, order="F")]
    if kind == "U":
        return "".join(value.reshape(-1)[:1]) if value.size < 2 else value.reshape(-1)
    if not kind or kind not in "fiub":
        raise BadContent(
            f'its variable "{short(name)}" holds something other than numbers, text and cell arrays'
        )
    return value
