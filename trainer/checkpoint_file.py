"""The two containers in which torch has kept checkpoints, read without executing anything.

Since torch 1.6 a checkpoint is a zip archive: a pickle (`data.pkl`) that refers to storages, each a
member of its own. Before, it was several pickles in a row (magic number, version, facts about the
system, the object, the keys of its storages), then the raw storages.
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any

from data_loader.formats.pickles.machine import Machine, Maker, building_limit
from data_loader.formats.pickles.opcodes import run_machine
from trainer.checkpoint_values import DTYPES, Storage, find_name, plain_content
from utils.errors import BadContent, Truncated, short

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_PICKLE_START = 0x80
_ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER = 30
_MAX_STORAGE = 1 << 40


def read_checkpoint_file(path: Path, leave_out: Collection[str] = ()) -> Any:
    """Return what a file of `torch.save` describes, as tensors on the CPU and plain values.

    Args:
        path: the file.
        leave_out: keys of the outermost dictionary that are not wanted; nothing of them is read.

    Raises:
        OSError: the file cannot be read.
        BadContent: it holds anything but weights and plain values.
        Truncated, zipfile.BadZipFile: it is damaged.
    """
    size = path.stat().st_size
    if not size:
        raise Truncated("it is empty")
    with path.open("rb") as handle:
        data = memoryview(mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ))
        read = _read_zip if bytes(data[:4]) == _ZIP_START else _read_legacy
        content = read(handle, data)
        if isinstance(content, dict):
            content = {key: value for key, value in content.items() if key not in leave_out}
        return plain_content(content)


class _Storages:
    """The storages that a pickle refers to. Together they are never larger than the file."""

    def __init__(self, file_size: int, locate: Callable[[str, Storage], None]) -> None:
        self.by_key: dict[str, Storage] = {}
        self._bytes_left = file_size
        self._locate = locate

    def find(self, persistent_id: Any) -> Storage:
        """Return the storage behind a persistent id ("storage", type, key, location, length)."""
        wrong = BadContent("it refers to something outside the pickle that is no storage")
        if type(persistent_id) is not tuple or len(persistent_id) not in (5, 6):
            raise wrong
        what, kind, key, _, length, *view = persistent_id
        if what != "storage" or type(kind) is not Maker or type(key) is not str or any(view):
            raise wrong
        if type(length) is not int or not 0 <= length < _MAX_STORAGE:
            raise BadContent(f"a storage has the length {short(length)}")
        dtype = DTYPES.get(kind.name.removesuffix("Storage"))
        if dtype is None:
            raise wrong
        if key not in self.by_key:
            storage = Storage(dtype, length)
            self._bytes_left -= storage.num_bytes
            if self._bytes_left < 0:
                raise Truncated("its storages are larger than the file")
            self._locate(key, storage)
            self.by_key[key] = storage
        known = self.by_key[key]
        if (known.dtype, known.length) != (dtype, length):
            raise BadContent(f'the storage "{short(key)}" has two types or lengths')
        return known


def _read_zip(handle: IO[bytes], data: memoryview) -> Any:
    with zipfile.ZipFile(handle) as archive:
        members = {member.filename: member for member in archive.infolist()}
    [pickle_name, *others] = [n for n in members if n.endswith("/data.pkl")] or [""]
    if not pickle_name or others:
        raise BadContent("it is an archive of something else than a checkpoint")
    folder = pickle_name.removesuffix("data.pkl")

    def member(name: str) -> memoryview:
        if folder + name not in members:
            raise Truncated(f'the part "{short(name)}" is missing')
        return _stored(members[folder + name], data)

    def locate(key: str, storage: Storage) -> None:
        name = f"data/{key}"
        if folder + name not in members:
            raise Truncated(f'the part "{short(name)}" is missing')
        if members[folder + name].file_size != storage.num_bytes:
            raise BadContent(f'the part "{short(name)}" has another length than its type says')
        storage.read = lambda: member(name)

    if folder + "byteorder" in members and bytes(member("byteorder")) != b"little":
        raise BadContent("it was written on a machine with another order of bytes")
    storages = _Storages(len(data), locate)
    return run_machine(Machine(member("data.pkl"), find_name, storages.find))


def _stored(member: zipfile.ZipInfo, data: memoryview) -> memoryview:
    """Return the bytes of a member where they lie in the file; torch compresses nothing."""
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise BadContent(f'its part "{short(member.filename)}" is compressed, as torch never does')
    header = bytes(data[member.header_offset : member.header_offset + _LOCAL_HEADER])
    if len(header) < _LOCAL_HEADER or not header.startswith(_ZIP_START):
        raise zipfile.BadZipFile(f'the header of the part "{short(member.filename)}" is broken')
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = member.header_offset + _LOCAL_HEADER + name_length + extra_length
    content = data[start : start + member.file_size]
    if len(content) < member.file_size:
        raise Truncated(f'the part "{short(member.filename)}" ends early')
    if zlib.crc32(content) != member.CRC:
        raise zipfile.BadZipFile(f'the part "{short(member.filename)}" fails its checksum')
    return content


def _read_legacy(handle: IO[bytes], data: memoryview) -> Any:
    storages = _Storages(len(data), lambda key, storage: None)
    # The pickles share what one may build; the values of the storages are copied besides.
    end, left = 0, building_limit(len(data)) - len(data)

    def next_pickle() -> Any:
        nonlocal end, left
        machine = Machine(data, find_name, storages.find, left)
        machine.at = end
        value = run_machine(machine)
        end, left = machine.at, machine.left
        return value

    if data[0] != _PICKLE_START or next_pickle() != _LEGACY_MAGIC:
        raise BadContent("it is no file that torch has written")
    if next_pickle() != _LEGACY_VERSION:
        raise BadContent("it was written by a version of torch that is not known")
    system = next_pickle()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BadContent("it was written on a machine with another order of bytes")
    content, keys = next_pickle(), next_pickle()
    _place_legacy_storages(storages.by_key, keys, data, end)
    return content


def _place_legacy_storages(
    storages: dict[str, Storage], keys: Any, data: memoryview, at: int
) -> None:
    """Find the values of the storages `keys`, which follow one after the other."""
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise BadContent("its list of storages is broken")
    for key in keys:
        storage = storages.get(key)
        if storage is None or storage.read is not None:
            raise BadContent("its list of storages is broken")
        header, values = data[at : at + 8], data[at + 8 : at + 8 + storage.num_bytes]
        if len(header) < 8 or len(values) < storage.num_bytes:
            raise Truncated("its storages end early")
        if int.from_bytes(header, "little", signed=True) != storage.length:
            raise BadContent(f'the storage "{short(key)}" has another length than announced')
        storage.read = lambda values=values: values
        at += 8 + storage.num_bytes
