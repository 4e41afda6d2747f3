"""What a checkpoint may contain: tensors, plain data, and inert records of the published classes.

Published checkpoints pickle objects of classes that do not exist here (their config parser) beside
the weights. Each name in the table below has a stand-in; none is ever imported, and any other name
is refused. Tensors are views of storages, and whether they fit is checked before they are made.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import Tensor

from data_loader.formats.pickles.machine import Buildable, Maker
from data_loader.formats.pickles.values import PLAIN_NAMES, PlainValues
from utils.errors import BadContent, short

_MAX_DEPTH = 30
# A pickle may mention one list in many places; whoever walks the result meets each of them.
_MAX_VALUES = 2_000_000
_MAX_AXES = 16
_MAX_PATH = 4096
# Bytes of memory of a tensor besides its values, and of a record.
_TENSOR, _RECORD = 1200, 400
_MAX_LENGTH = 1 << 40

DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
# Classes whose objects come back as a dict of their attributes.
_RECORDS = (
    "parse_config.ConfigParser",
    "argparse.Namespace",
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "functools.partial",
    "logging.getLogger",
)
_PATHS = {"Path": PurePosixPath, "PosixPath": PurePosixPath, "WindowsPath": PureWindowsPath}


@dataclass(eq=False)
class Storage:
    """A flat array that tensors are views of; `read` gives its bytes once they are wanted."""

    dtype: torch.dtype
    length: int
    read: Callable[[], memoryview] | None = None
    values: Tensor | None = field(default=None, repr=False)

    @property
    def num_bytes(self) -> int:
        return self.length * self.dtype.itemsize

    def load(self) -> Tensor:
        """Copy the values out of the file; several tensors of one storage share them."""
        if self.values is None:
            if self.read is None:
                raise BadContent("the values of a tensor are not in the file")
            raw = bytearray(self.read()) if self.length else bytearray(self.dtype.itemsize)
            self.values = torch.frombuffer(raw, dtype=self.dtype)[: self.length]
        return self.values


@dataclass(eq=False)
class TensorView:
    """Stands for a tensor until its storage is there."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        return self.storage.load().as_strided(self.size, self.stride, self.offset)


class Record(Buildable):
    """Stands for an object of a class that is not imported: its name and what was stored of it."""

    __slots__ = ("attributes", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.attributes: dict[str, Any] = {}

    def build(self, state: Any) -> None:
        parts = state if type(state) is tuple else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.attributes.update(part)


class OrderedMapping(dict, Buildable):
    """Stands for an OrderedDict; attributes set on it (a state dict's `_metadata`) are left out."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise BadContent("it sets the state of a dictionary to something else than attributes")


def _record_maker(name: str) -> Maker:
    return Maker(name, lambda *arguments: Record(name), _RECORD)


def _path_maker(name: str, kind: type) -> Maker:
    def make(*parts: Any) -> str:
        if not all(type(part) is str for part in parts):
            raise BadContent("a path is made of something else than text")
        if sum(map(len, parts)) > _MAX_PATH:
            raise BadContent("a path is too long")
        return str(kind(*parts))

    return Maker(name, make)


def _ordered(items: Any = ()) -> OrderedMapping:
    make: Any = PLAIN_NAMES["collections.OrderedDict"].make
    return OrderedMapping(make(items))


def _view(storage: Any, offset: Any, size: Any, stride: Any, *settings: Any) -> TensorView:
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
    return TensorView(storage, offset, size, stride)


def _are_lengths(values: Any) -> bool:
    return type(values) is tuple and all(type(n) is int and 0 <= n < _MAX_LENGTH for n in values)


def _parameter(data: Any, *settings: Any) -> TensorView:
    if type(data) is not TensorView:
        raise BadContent("a parameter is made of something else than a tensor")
    return data


def _shape(lengths: Any = ()) -> tuple[int, ...]:
    if not _are_lengths(lengths):
        raise BadContent("a shape is no tuple of lengths")
    return lengths


def _old_object(cls: Any, base: Any, state: Any) -> Record:
    if type(cls) is not Maker or cls.name not in _RECORDS or state is not None:
        raise BadContent("it reconstructs an object that is no plain data")
    return Record(cls.name)


def _allowed_names() -> dict[str, Maker]:
    allowed = PLAIN_NAMES | {name: _record_maker(name) for name in _RECORDS}
    for module in ("pathlib", "pathlib._local"):
        for name, kind in _PATHS.items():
            for full in (f"{module}.{name}", f"{module}.Pure{name}"):
                allowed[full] = _path_maker(full, kind)
    for name in DTYPES:
        for module in ("torch", "torch.cuda"):
            allowed[f"{module}.{name}Storage"] = Maker(f"{name}Storage")
    for module in ("copyreg", "copy_reg"):
        allowed[f"{module}._reconstructor"] = Maker("_reconstructor", _old_object, _RECORD)
    return allowed | {
        "collections.OrderedDict": Maker("collections.OrderedDict", _ordered),
        "torch._utils._rebuild_tensor": Maker("_rebuild_tensor", _view, _TENSOR),
        "torch._utils._rebuild_tensor_v2": Maker("_rebuild_tensor_v2", _view, _TENSOR),
        "torch._utils._rebuild_parameter": Maker("_rebuild_parameter", _parameter),
        "torch.Size": Maker("torch.Size", _shape),
    }


_ALLOWED = _allowed_names()


def find_name(module: str, name: str) -> Maker:
    """Return the stand-in for what a checkpoint mentions.

    Raises:
        BadContent: it is not in the table.
    """
    maker = _ALLOWED.get(f"{module}.{name}")
    if maker is None:
        found = short(f"{module}.{name}".replace("\n", " "))
        raise BadContent(f'it holds "{found}", which is neither weights nor plain values')
    return maker


def plain_content(value: Any) -> Any:
    """Replace stand-ins by tensors, text and dicts; tuples stay tuples.

    Raises:
        BadContent: a container holds itself, or the whole is nested or repeated beyond all use.
    """
    return _Plain().of(value)


class _Plain:
    """One walk over a checkpoint; each container is visited once."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[Any, int] | None] = {}  # id -> (result, values in it)
        self.depth = 0
        self.plain = PlainValues()

    def of(self, value: Any) -> Any:
        return self._walk(value)[0]

    def _walk(self, value: Any) -> tuple[Any, int]:
        if value is None or isinstance(value, str | int | float):
            return value, 1
        if id(value) not in self.done:
            if self.depth > _MAX_DEPTH:
                raise BadContent("its containers are nested too deeply")
            self.done[id(value)] = None
            self.depth += 1
            self.done[id(value)] = self._convert(value)
            self.depth -= 1
        found = self.done[id(value)]
        if found is None:
            raise BadContent("a container holds itself")
        return found

    def _convert(self, value: Any) -> tuple[Any, int]:
        if type(value) is TensorView:
            return value.tensor(), 1
        if type(value) is Maker:
            return value.name, 1  # a class or function that is mentioned, never called
        if type(value) is Record:
            value = value.attributes
        if isinstance(value, dict):
            items, size = self._all(value.values())
            return dict(zip(value, items, strict=True)), size
        if type(value) in (list, tuple):
            items, size = self._all(value)
            return type(value)(items), size
        return self.plain.of(value), 1

    def _all(self, values: Iterable[Any]) -> tuple[list[Any], int]:
        items, size = [], 1
        for value in values:
            item, count = self._walk(value)
            items.append(item)
            size += count
            if size > _MAX_VALUES:
                raise BadContent(
                    "it repeats the same values until they outgrow the file many times"
                )
        return items, size
