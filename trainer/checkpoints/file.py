"""The two containers in which torch has kept checkpoints, read without executing anything.

Since torch 1.6 a checkpoint is a zip archive: a pickle (`data.pkl`) that refers to storages, each a
member of its own. Before, it was several pickles in a row (magic number, version, facts about the
system, the object, the keys of its storages), then the raw storages.

A limited process of its own (`formats.apart`) reads the pickles, of which it knows no names but
those of inert stand-ins: published checkpoints hold objects of classes that do not exist here. It
answers with plain values and with the places of the tensors, which are copied out of the file here.
"""

import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import torch
from torch import Tensor

from data_loader.formats.apart import apart
from data_loader.formats.pickles import PLAIN_NAMES, Attributes, StandIn, Unpickler, plain
from data_loader.formats.read import errors_of
from utils.errors import BadContent, Truncated, short

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER = 30
_MAX_DEPTH = 30
# A pickle may mention one list in many places; whoever walks the result meets each of them.
_MAX_VALUES = 2_000_000
_MAX_AXES = 16
_MAX_LENGTH = 1 << 40
_DTYPES = {
    **{"Float": torch.float32, "Double": torch.float64, "Half": torch.float16},
    **{"BFloat16": torch.bfloat16, "Bool": torch.bool, "Byte": torch.uint8, "Char": torch.int8},
    **{"Short": torch.int16, "Int": torch.int32, "Long": torch.int64},
}
# Classes whose objects come back as a dict of their attributes.
_OBJECTS = (
    *("parse_config.ConfigParser", "argparse.Namespace", "functools.partial", "logging.getLogger"),
    *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta"),
)


def read_checkpoint_file(path: Path, leave_out: Collection[str] = ()) -> Any:
    """Return what a file of `torch.save` describes, as tensors on the CPU and plain values.

    Args:
        path: the file.
        leave_out: keys of the outermost dictionary that are not wanted; nothing of them is read.

    Raises:
        UserError: the file cannot be read, is damaged, or holds anything but weights and plain
            values.
    """
    with errors_of(path, "a checkpoint"), path.open("rb") as handle:
        if not os.fstat(handle.fileno()).st_size:
            raise Truncated("it is empty")
        content, views = apart([path], lambda: _outline(path, handle, leave_out))
        data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        values: dict[tuple, Tensor] = {}
        tensors = []
        for storage, *shape in views:
            if storage not in values:
                values[storage] = _copied(data, *storage)
            tensors.append(values[storage].as_strided(*shape))
        return _filled(content, tensors)


def _copied(data: memoryview, key: str, kind: str, length: int, at: int, crc: int | None) -> Tensor:
    """Copy the values of a storage out of the file."""
    dtype = _DTYPES[kind]
    raw = bytearray(data[at : at + length * dtype.itemsize])
    if len(raw) < length * dtype.itemsize:
        raise Truncated("its storages end early")
    if crc is not None and zlib.crc32(raw) != crc:
        raise zipfile.BadZipFile(f'the part "{short(key)}" fails its checksum')
    return torch.frombuffer(raw or bytearray(dtype.itemsize), dtype=dtype)[:length]


def _filled(value: Any, tensors: list[Tensor]) -> Any:
    """Put the tensors where their numbers stand, as bytes: all other bytes have become text."""
    if type(value) is bytes:
        return tensors[int(value)]
    if type(value) is dict:
        return {key: _filled(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_filled(item, tensors) for item in value)
    return value


# --- In the limited process -----------------------------------------------------------------------


@dataclass(eq=False)
class _Storage:
    """A flat array that tensors are views of, and where its values lie in the file."""

    key: str
    kind: str
    length: int
    at: int = -1
    crc: int | None = None

    @property
    def num_bytes(self) -> int:
        return self.length * _DTYPES[self.kind].itemsize


@dataclass(eq=False)
class _View:
    """Stands for a tensor."""

    storage: _Storage
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


def _outline(path: Path, handle: IO[bytes], leave_out: Collection[str]) -> tuple[Any, list[tuple]]:
    """Return the content with numbers for tensors, and for each number what it stands for.

    That is its storage (key, kind, length, place, checksum), its size, stride and offset.
    """
    with errors_of(path, "a checkpoint"):
        is_zip = handle.read(4) == _ZIP_START
        handle.seek(0)
        content = (_read_zip if is_zip else _read_legacy)(handle)
        if isinstance(content, dict):
            content = {key: value for key, value in content.items() if key not in leave_out}
        walk = _Plain()
        return walk.of(content), [
            (astuple(v.storage), v.size, v.stride, v.offset) for v in walk.views
        ]


class _Reader(Unpickler):
    """Reads a pickle of a checkpoint; its storages are together never larger than the file."""

    accepted = "only weights and plain values are accepted"

    def __init__(
        self, file: IO[bytes], size: int, locate: Callable[[_Storage], None] = lambda storage: None
    ) -> None:
        super().__init__(file)
        self.names = _NAMES
        self.storages: dict[str, _Storage] = {}
        self._bytes_left, self._locate = size, locate

    def persistent_load(self, persistent_id: Any) -> _Storage:
        """Return the storage behind a persistent id ("storage", type, key, location, length)."""
        wrong = BadContent("it refers to something outside the pickle that is no storage")
        if type(persistent_id) is not tuple or len(persistent_id) not in (5, 6):
            raise wrong
        what, kind, key, _, length, *view = persistent_id
        if what != "storage" or type(kind) is not StandIn or type(key) is not str or any(view):
            raise wrong
        name = kind.name.rpartition(".")[2].removesuffix("Storage")
        if name not in _DTYPES:
            raise wrong
        if type(length) is not int or not 0 <= length < _MAX_LENGTH:
            raise BadContent(f"a storage has the length {short(length)}")
        if key not in self.storages:
            storage = self.storages[key] = _Storage(key, name, length)
            self._locate(storage)
            self._bytes_left -= storage.num_bytes
            if self._bytes_left < 0:
                raise Truncated("its storages are larger than the file")
        known = self.storages[key]
        if (known.kind, known.length) != (name, length):
            raise BadContent(f'the storage "{short(key)}" has two types or lengths')
        return known


def _read_zip(handle: IO[bytes]) -> Any:
    with zipfile.ZipFile(handle) as archive:
        members = {member.filename: member for member in archive.infolist()}
        [pickle_name, *others] = [n for n in members if n.endswith("/data.pkl")] or [""]
        if not pickle_name or others:
            raise BadContent("it is an archive, but not of a checkpoint")
        folder = pickle_name.removesuffix("data.pkl")
        if folder + "byteorder" in members and archive.read(folder + "byteorder") != b"little":
            raise BadContent("it was written on a machine with another order of bytes")

        def locate(storage: _Storage) -> None:
            name = f"data/{storage.key}"
            member = members.get(folder + name)
            if member is None:
                raise Truncated(f'the part "{short(name)}" is missing')
            if member.compress_type != zipfile.ZIP_STORED:
                raise BadContent(f'its part "{short(name)}" is compressed, as torch never does')
            if member.file_size != storage.num_bytes:
                raise BadContent(f'the part "{short(name)}" has another length than its type says')
            with archive.open(member):  # compares its name there with that in the directory
                header = os.pread(handle.fileno(), _LOCAL_HEADER, member.header_offset)
            storage.at = member.header_offset + _LOCAL_HEADER
            storage.at += sum(struct.unpack("<HH", header[26:30]))
            storage.crc = member.CRC

        with archive.open(pickle_name) as stream:
            return _Reader(stream, os.fstat(handle.fileno()).st_size, locate).load()


def _read_legacy(handle: IO[bytes]) -> Any:
    size = os.fstat(handle.fileno()).st_size

    def next_pickle() -> Any:
        return _Reader(handle, size).load()

    if handle.read(1) != b"\x80" or handle.seek(0) or next_pickle() != _LEGACY_MAGIC:
        raise BadContent("torch did not write it")
    if next_pickle() != _LEGACY_VERSION:
        raise BadContent("it was written by a version of torch that is not known")
    system = next_pickle()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BadContent("it was written on a machine with another order of bytes")
    reader = _Reader(handle, size)
    content, keys = reader.load(), next_pickle()
    # The values of the storages follow one after the other.
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise BadContent("its list of storages is broken")
    at = handle.tell()
    for key in keys:
        storage = reader.storages.get(key)
        if storage is None or storage.at >= 0:
            raise BadContent("its list of storages is broken")
        header = os.pread(handle.fileno(), 8, at)
        if len(header) < 8 or at + 8 + storage.num_bytes > size:
            raise Truncated("its storages end early")
        if int.from_bytes(header, "little", signed=True) != storage.length:
            raise BadContent(f'the storage "{short(key)}" has another length than announced')
        storage.at = at + 8
        at += 8 + storage.num_bytes
    return content


class _Plain:
    """One walk over a checkpoint, which replaces the stand-ins; tuples stay tuples."""

    def __init__(self) -> None:
        self.views: list[_View] = []
        self._left = _MAX_VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0:
            raise BadContent("it repeats the same values until they outgrow the file many times")
        if depth > _MAX_DEPTH:
            raise BadContent("its containers are nested too deeply, or one contains itself")
        if type(value) is _View:
            if value.storage.at < 0:
                raise BadContent("the values of a tensor are not in the file")
            self.views.append(value)
            return b"%d" % (len(self.views) - 1)
        if type(value) is StandIn or (isinstance(value, type) and issubclass(value, Attributes)):
            return value.name  # a class or function that is mentioned, never called
        if isinstance(value, Attributes):
            value = value.held
        if isinstance(value, dict):
            return {plain(key): self.of(item, depth + 1) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.of(item, depth + 1) for item in value)
        return plain(value)


def _view(storage: Any, offset: Any, size: Any, stride: Any, *settings: Any) -> _View:
    """Stand for torch's rebuilding of a tensor; whether it needs gradients is not kept."""
    if type(storage) is not _Storage:
        raise BadContent("a tensor has no storage")
    if not (_are_lengths(size) and _are_lengths(stride) and _are_lengths((offset,))):
        raise BadContent("a tensor has sizes, strides or an offset that are no plain numbers")
    if len(size) != len(stride) or len(size) > _MAX_AXES:
        raise BadContent(f"a tensor has {len(size)} sizes and {len(stride)} strides")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if max(count, offset) > storage.length or (count and last >= storage.length):
        raise BadContent(
            f"a tensor of shape {short(size)} reaches beyond the {storage.length} values there are"
        )
    if not count and math.prod(n for n in size if n) >= _MAX_LENGTH:
        raise BadContent(f"a tensor has the shape {short(size)}")
    return _View(storage, size, stride, offset)


def _are_lengths(values: Any) -> bool:
    return type(values) is tuple and all(type(n) is int and 0 <= n < _MAX_LENGTH for n in values)


def _path(kind: type[PurePosixPath] | type[PureWindowsPath], *parts: str) -> str:
    return str(kind(*parts))


def _known_names() -> dict[str, Any]:
    names: dict[str, Any] = {
        "torch._utils._rebuild_tensor": _view,
        "torch._utils._rebuild_tensor_v2": _view,
        "torch._utils._rebuild_parameter": lambda data, *settings: data,
        "torch.Size": tuple,
    }
    for module in ("pathlib", "pathlib._local"):
        for name in ("Path", "PosixPath", "WindowsPath"):
            kind = PureWindowsPath if name == "WindowsPath" else PurePosixPath
            make = partial(_path, kind)
            names |= {f"{module}.{prefix}{name}": make for prefix in ("", "Pure")}
    for module in ("torch", "torch.cuda"):
        names |= dict.fromkeys(f"{module}.{name}Storage" for name in _DTYPES)
    objects = {name: type(name, (Attributes,), {"name": name}) for name in _OBJECTS}
    return PLAIN_NAMES | {name: StandIn(name, make) for name, make in names.items()} | objects


_NAMES = _known_names()
