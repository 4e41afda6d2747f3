"""The containers of torch's tensors, read without torch and without executing anything.

Since torch 1.6 a file of `torch.save` is a zip archive: a pickle (`data.pkl`) that refers to
storages, each a member of its own. Before, it was several pickles in a row (magic number, version,
facts about the system, the object, the keys of its storages), then the raw storages; a tensor that
was pickled by itself still brings such a file with it. Of the pickles no names are known but those
of inert stand-ins.
"""

import io
import json
import math
import mmap
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import numpy as np

from data_loader.formats.npy import place_of
from data_loader.formats.pickles import (
    PLAIN_NAMES,
    Attributes,
    PlainLater,
    StandIn,
    Unpickler,
    plain,
)
from utils.errors import BadContent, Truncated, short

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_ZIP_START = b"PK\x03\x04"
_MAX_AXES = 16
_MAX_LENGTH = 1 << 40


# Kind of a storage -> numpy's type; bfloat16, which numpy lacks, is the upper half of a float32.
DTYPES = {
    **{"Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "<u2", "Bool": "|b1"},
    **{"Byte": "|u1", "Char": "|i1", "Short": "<i2", "Int": "<i4", "Long": "<i8"},
}
_ITEM_SIZES = {kind: np.dtype(code).itemsize for kind, code in DTYPES.items()}
_SAFETENSORS = {
    **{"F64": "Double", "F32": "Float", "F16": "Half", "BF16": "BFloat16", "BOOL": "Bool"},
    **{"I64": "Long", "I32": "Int", "I16": "Short", "I8": "Char", "U8": "Byte"},
}
# Classes of checkpoints whose objects come back as a dict of their attributes.
_OBJECTS = (
    *("parse_config.ConfigParser", "argparse.Namespace", "functools.partial", "logging.getLogger"),
    *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta"),
)


@dataclass(eq=False)
class Storage(PlainLater):
    """A flat array that tensors are views of, and where its values lie.

    Attributes:
        key: its name in the file.
        kind: one of `DTYPES`.
        length: number of values.
        at: the first byte, -1 while it is not known.
        crc: of the bytes, if the file has one.
        data: the bytes that `at` counts in; None where the caller has them.
    """

    key: str
    kind: str
    length: int
    at: int = -1
    crc: int | None = None
    data: memoryview | None = None

    @property
    def num_bytes(self) -> int:
        return self.length * _ITEM_SIZES[self.kind]

    def plain_value(self) -> np.ndarray:
        """Return the values, (length,), without copying them unless they are bfloat16."""
        if self.at < 0 or self.data is None:
            raise BadContent("the values of a tensor are not in the file")
        raw = self.data[self.at : self.at + self.num_bytes]
        if self.crc is not None and zlib.crc32(raw) != self.crc:
            raise zipfile.BadZipFile(f'the part "{short(self.key)}" fails its checksum')
        self.crc = None  # compared once
        values = np.frombuffer(raw, dtype=DTYPES[self.kind])
        if self.kind == "BFloat16":
            return (values.astype("<u4") << 16).view("<f4")
        return values


@dataclass(eq=False)
class View(PlainLater):
    """Stands for a tensor: size, strides and offset, in values, within a storage."""

    storage: Storage
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def plain_value(self) -> np.ndarray:
        values = self.storage.plain_value()[self.offset :]
        strides = [step * values.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(values, self.size, strides, writeable=False)


def read_torch(path: Path) -> Any:
    """Return what a file of `torch.save` describes, tensors as arrays, other values plain.

    Raises:
        BadContent: it is damaged, or holds anything but tensors and plain values.
    """
    with path.open("rb") as handle:
        return plain(outline(handle))


def outline(handle: IO[bytes]) -> Any:
    """Return the content of a file of `torch.save` with `View`s for tensors, stand-ins included.

    Raises:
        BadContent: it is damaged, or holds anything but tensors and values that are known.
    """
    start = handle.read(len(_ZIP_START))
    if not start:
        raise Truncated("it is empty")
    data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
    return (_read_zip if start == _ZIP_START else _read_legacy)(handle, data)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `.safetensors`: a length, a JSON header of so many bytes, the values.

    Raises:
        BadContent: it is damaged, or its arrays are not where its header says.
    """
    with path.open("rb") as handle:
        size = path.stat().st_size
        begin = 8 + int.from_bytes(handle.read(8), "little")
        if begin < 10 or begin > size:
            raise Truncated("its header is missing")
        header = json.loads(handle.read(begin - 8))
        if type(header) is not dict:
            raise BadContent("its header is no object")
        data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if kind not in _SAFETENSORS or not _are_lengths((*shape, first, last)):
            raise BadContent(f'its array "{short(name)}" is of a kind that is not known')
        storage = Storage(name, _SAFETENSORS[kind], math.prod(shape), begin + first, data=data)
        if last - first != storage.num_bytes or begin + last > size:
            raise Truncated(f'its array "{short(name)}" has not the bytes of its shape')
        arrays[name] = storage.plain_value().reshape(shape)
    return arrays


class _Reader(Unpickler):
    """Reads a pickle of a checkpoint; its storages are together never larger than the file."""

    accepted = "only weights and plain values are accepted"

    def __init__(
        self,
        file: IO[bytes],
        data: memoryview,
        locate: Callable[[Storage], None] = lambda storage: None,
    ) -> None:
        super().__init__(file)
        self.names = _NAMES
        self.storages: dict[str, Storage] = {}
        self._data, self._bytes_left, self._locate = data, len(data), locate

    def persistent_load(self, persistent_id: Any) -> Storage:
        """Return the storage behind a persistent id ("storage", type, key, location, length)."""
        wrong = BadContent("it refers to something outside the pickle that is no storage")
        if type(persistent_id) is not tuple or len(persistent_id) not in (5, 6):
            raise wrong
        what, kind, key, _, length, *view = persistent_id
        if what != "storage" or type(kind) is not StandIn or type(key) is not str or any(view):
            raise wrong
        name = kind.name.rpartition(".")[2].removesuffix("Storage")
        if name not in DTYPES:
            raise wrong
        if type(length) is not int or not 0 <= length < _MAX_LENGTH:
            raise BadContent(f"a storage has the length {short(length)}")
        if key not in self.storages:
            storage = self.storages[key] = Storage(key, name, length, data=self._data)
            self._locate(storage)
            self._bytes_left -= storage.num_bytes
            if self._bytes_left < 0:
                raise Truncated("its storages are larger than the file")
        known = self.storages[key]
        if (known.kind, known.length) != (name, length):
            raise BadContent(f'the storage "{short(key)}" has two types or lengths')
        return known


def _read_zip(handle: IO[bytes], data: memoryview) -> Any:
    with zipfile.ZipFile(handle) as archive:
        members = {member.filename: member for member in archive.infolist()}
        [pickle_name, *others] = [n for n in members if n.endswith("/data.pkl")] or [""]
        if not pickle_name or others:
            raise BadContent("it is an archive, but not of a checkpoint")
        folder = pickle_name.removesuffix("data.pkl")
        if folder + "byteorder" in members and archive.read(folder + "byteorder") != b"little":
            raise BadContent("it was written on a machine with another order of bytes")

        def locate(storage: Storage) -> None:
            name = f"data/{storage.key}"
            member = members.get(folder + name)
            if member is None:
                raise Truncated(f'the part "{short(name)}" is missing')
            if member.compress_type != zipfile.ZIP_STORED:
                raise BadContent(f'its part "{short(name)}" is compressed, as torch never does')
            if member.file_size != storage.num_bytes:
                raise BadContent(f'the part "{short(name)}" has another length than its type says')
            with archive.open(member):  # compares its name there with that in the directory
                storage.at = place_of(member, data)
            storage.crc = member.CRC

        with archive.open(pickle_name) as stream:
            return _Reader(stream, data, locate).load()


def _read_legacy(handle: IO[bytes], data: memoryview) -> Any:
    def next_pickle() -> Any:
        return _Reader(handle, data).load()

    handle.seek(0)
    if data[:1] != b"\x80" or next_pickle() != _LEGACY_MAGIC:
        raise BadContent("torch did not write it")
    if next_pickle() != _LEGACY_VERSION:
        raise BadContent("it was written by a version of torch that is not known")
    system = next_pickle()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BadContent("it was written on a machine with another order of bytes")
    reader = _Reader(handle, data)
    content, keys = reader.load(), next_pickle()
    # The values of the storages follow one after the other.
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise BadContent("its list of storages is broken")
    at = handle.tell()
    for key in keys:
        storage = reader.storages.get(key)
        if storage is None or storage.at >= 0:
            raise BadContent("its list of storages is broken")
        header = data[at : at + 8]
        if len(header) < 8 or at + 8 + storage.num_bytes > len(data):
            raise Truncated("its storages end early")
        if int.from_bytes(header, "little", signed=True) != storage.length:
            raise BadContent(f'the storage "{short(key)}" has another length than announced')
        storage.at = at + 8
        at += 8 + storage.num_bytes
    return content


def _view(storage: Any, offset: Any, size: Any, stride: Any, *settings: Any) -> View:
    """Stand for torch's rebuilding of a tensor; whether it needs gradients is not kept."""
    if type(storage) is not Storage:
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
    return View(storage, size, stride, offset)


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
        names |= dict.fromkeys(f"{module}.{name}Storage" for name in DTYPES)
    objects = {name: type(name, (Attributes,), {"name": name}) for name in _OBJECTS}
    return PLAIN_NAMES | {name: StandIn(name, make) for name, make in names.items()} | objects


def _storage_of(data: Any) -> Any:
    """Stand for torch's reading of a storage that was pickled by itself."""
    if type(data) is str:
        data = data.encode("utf-8", "surrogateescape")
    if type(data) not in (bytes, bytearray, memoryview):
        raise BadContent("a tensor has no bytes")
    return _read_legacy(io.BytesIO(data), memoryview(data))


_NAMES = _known_names()
# What a pickle may mention that holds tensors.
PICKLED_NAMES = _NAMES | {
    "torch.storage._load_from_bytes": StandIn("torch.storage._load_from_bytes", _storage_of)
}
