"""Files of `torch.save` as tensors and plain values, read without executing anything.

A limited process of its own (`formats.apart`) reads the pickles, of which it knows no names but
those of inert stand-ins (`formats.tensors`): published checkpoints hold objects of classes that do
not exist here. It answers with plain values and with the places of the tensors, which are copied
out of the file here.
"""

import mmap
import os
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from data_loader.formats.apart import apart
from data_loader.formats.pickles import Attributes, StandIn, plain
from data_loader.formats.read import errors_of
from data_loader.formats.tensors import Storage, View, outline
from utils.errors import BadContent, Truncated, short

_MAX_DEPTH = 30
# A pickle may mention one list in many places; whoever walks the result meets each of them.
_MAX_VALUES = 2_000_000
_TORCH_TYPES = {
    **{"Float": torch.float32, "Double": torch.float64, "Half": torch.float16},
    **{"BFloat16": torch.bfloat16, "Bool": torch.bool, "Byte": torch.uint8, "Char": torch.int8},
    **{"Short": torch.int16, "Int": torch.int32, "Long": torch.int64},
}


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
    dtype = _TORCH_TYPES[kind]
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


def _outline(path: Path, handle: IO[bytes], leave_out: Collection[str]) -> tuple[Any, list[tuple]]:
    """Return the content with numbers for tensors, and for each number what it stands for.

    That is its storage (key, kind, length, place, checksum), its size, stride and offset.
    """
    with errors_of(path, "a checkpoint"):
        content = outline(handle)
        if isinstance(content, dict):
            content = {key: value for key, value in content.items() if key not in leave_out}
        walk = _Plain()
        return walk.of(content), [
            (_place(v.storage), v.size, v.stride, v.offset) for v in walk.views
        ]


def _place(storage: Storage) -> tuple[str, str, int, int, int | None]:
    return storage.key, storage.kind, storage.length, storage.at, storage.crc


class _Plain:
    """One walk over a checkpoint, which replaces the stand-ins; tuples stay tuples."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self._left = _MAX_VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0:
            raise BadContent("it repeats the same values until they outgrow the file many times")
        if depth > _MAX_DEPTH:
            raise BadContent("its containers are nested too deeply, or one contains itself")
        if type(value) is View:
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
