"""Pickles of strangers, read as plain data: arrays, numbers, strings, plain containers.

A pickle is a program for a small stack machine, which names what is to be called. Python's own two
machines run it here, but a name is looked up in a table of inert stand-ins: nothing of numpy's own
unpickling is called, no other name is known. Arrays are built from checked parts: a type from a
short list, a shape whose size is exactly the bytes that are there.

A pickle may still fill memory, work for ever or make the machine crash. It is read where that ends
nothing else: in the limited process of `apart`.
"""

import math
import mmap
import os
import pickle
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar

import numpy as np

from utils.errors import BadContent, Truncated, short

_MAX_DEPTH = 30
# Python refuses to print longer numbers; no measurement has so many digits.
_MAX_BITS = 3200
_MAX_ITEM_SIZE = 1 << 20
_NUMBER = re.compile(r"([<>|=]?)([fiu][1248]|f16|b1)$")
_TEXT = re.compile(r"([<>|=]?)([US])(\d{1,7})$")
# Python 2's texts are bytes: UTF-8 where that is valid, and what is not can be turned back.
_ENCODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
# Python's machine in C is faster, but copies the arrays.
_SMALL = 64 << 20
# What the machines raise on a broken pickle.
_BROKEN = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(OverflowError, RecursionError, struct.error),
)


class StandIn:
    """A name that a pickle may mention, and the function that stands in for it.

    Attributes:
        name: what messages call it.
        make: the function; None for what may be mentioned and not called.
    """

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.make = make

    def __call__(self, *arguments: Any) -> Any:
        if self.make is None:
            raise BadContent(f'it calls "{self.name}"')
        try:
            return self.make(*arguments)
        except TypeError as error:
            raise BadContent(
                f"it calls {self.name} with arguments that it does not take"
            ) from error

    def __setstate__(self, state: Any) -> None:
        raise BadContent(f'it sets the state of "{self.name}"')


class PlainLater(ABC):
    """Stands for something whose plain value is made when all of the pickle has been read."""

    __slots__ = ()

    @abstractmethod
    def plain_value(self) -> Any:
        """Return what it stands for."""


class _DType:
    """Stands for numpy.dtype: numbers, fixed-length text, or objects (a plain list)."""

    __slots__ = ("code", "order", "resolved")

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if type(code) is StandIn and code.name in _SCALAR_CODES:
            code = _SCALAR_CODES[code.name]
        if type(code) is not str:
            raise BadContent("the type of an array is no text")
        self.code: str = code
        self.order = ""
        self.resolved: np.dtype | None = None

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) not in (6, 7, 8):
            raise BadContent("the type of an array has an unknown form")
        _, order, subtype, names, fields, *_ = state
        if subtype is not None or names is not None or fields is not None:
            raise BadContent("it holds an array of structures")
        if order not in ("<", ">", "|", "="):
            raise BadContent("the type of an array has an unknown byte order")
        self.order, self.resolved = order, None

    @property
    def is_object(self) -> bool:
        return self.code in ("O", "O4", "O8")

    def resolve(self) -> np.dtype:
        """Return the numpy type, only ever one of numbers or fixed-length text."""
        if self.resolved is None:
            self.resolved = plain_type(self.code, self.order)
        return self.resolved


def plain_type(code: str, order: str = "") -> np.dtype:
    """Return the numpy type of a code such as "<f4", only ever one of numbers or fixed-length text.

    `order` takes the place of the byte order in the code.
    """
    number, text = _NUMBER.match(code), _TEXT.match(code)
    match = number or text
    if not match or (text and not 0 < int(text[3]) * 4 <= _MAX_ITEM_SIZE):
        raise BadContent(f'it holds an array of type "{short(code)}"')
    return np.dtype((order or match[1]) + "".join(match.groups()[1:]))


class _Array(PlainLater):
    """Stands for a numpy.ndarray that is given its shape, type and bytes."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None) -> None:
        self.value: np.ndarray | list[Any] | None = value

    def __setstate__(self, state: Any) -> None:
        # The first element is a version number; the oldest files lack it.
        if type(state) is not tuple or len(state) not in (4, 5):
            raise BadContent("an array has an unknown form")
        shape, dtype, is_fortran, data = state[-4:]
        if type(dtype) is not _DType:
            raise BadContent("an array has no type")
        if dtype.is_object:
            self.value = _object_list(shape, data)
        else:
            self.value = checked_array(data, dtype.resolve(), shape, "F" if is_fortran else "C")

    def plain_value(self) -> Any:
        if self.value is None:
            raise BadContent("an array has no values")
        return self.value


def checked_array(data: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    """View `data` as an array; its length must be exactly what type and shape ask for."""
    if type(data) is str:
        data = data.encode(**_ENCODING)
    if type(data) not in (bytes, bytearray, memoryview):
        raise BadContent(f"the values of an array are a {type(data).__name__}")
    size = _size(shape)
    if size * dtype.itemsize != len(data):
        raise BadContent(
            f"an array of shape {short(shape)} and type {dtype} has {len(data)} bytes of values, "
            f"not {short(size * dtype.itemsize)}"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


def _size(shape: Any) -> int:
    if type(shape) is not tuple or len(shape) > 8:
        raise BadContent("an array has an unknown shape")
    if any(type(length) is not int or not 0 <= length < 1 << 40 for length in shape):
        raise BadContent(f"an array has the shape {short(shape)}")
    return math.prod(shape)


def _object_list(shape: Any, data: Any) -> list[Any]:
    if type(data) is not list or _size(shape) != len(data):
        raise BadContent("an array of objects has another length than its shape says")
    if len(shape) > 1:
        raise BadContent("it holds an array of objects with more than one axis")
    return data


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if type(kind) is not StandIn or kind.name != "numpy.ndarray":
        raise BadContent("it reconstructs something that is no array")
    return _Array()


def _scalar(dtype: Any, data: Any = None) -> Any:
    if type(dtype) is not _DType or dtype.is_object:
        raise BadContent("it holds a scalar that is no number")
    return checked_array(data, dtype.resolve(), (1,), "C")[0].item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    if type(dtype) is not _DType or dtype.is_object or order not in ("C", "F"):
        raise BadContent("an array in a buffer has an unknown form")
    return _Array(checked_array(data, dtype.resolve(), shape, order))


class Attributes:
    """Stands for an object of a class that is not imported: what was stored of it."""

    __slots__ = ("held",)

    name = ""

    def __new__(cls, *arguments: Any) -> "Attributes":
        made = super().__new__(cls)
        made.held = {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.held: dict[str, Any]
        for part in state if type(state) is tuple else (state,):
            if isinstance(part, dict):
                self.held.update(part)


class _ExpertStore(Attributes, PlainLater):
    """Stands for the published ExpertStore: one (videos, D) array with a row for each key."""

    __slots__ = ()

    def plain_value(self) -> dict[Any, Any]:
        """Return key -> row of the store; a key that is marked as missing gives NaN."""
        keymap, store = self.held.get("keymap"), self.held.get("store")
        missing = {checked_key(key) for key in self.held.get("missing") or ()}
        values = store.value if type(store) is _Array else store
        if not isinstance(keymap, dict) or not isinstance(values, np.ndarray) or values.ndim != 2:
            raise BadContent("an ExpertStore lacks its keymap or its (videos, D) store")
        if any(type(row) is not int or not 0 <= row < len(values) for row in keymap.values()):
            raise BadContent("an ExpertStore has a key without a row in its store")
        return {key: math.nan if key in missing else values[row] for key, row in keymap.items()}


class _Mapping(dict):
    """Stands for an OrderedDict; attributes set on it (a state dict's `_metadata`) are left out."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _old_object(cls: Any, base: Any, state: Any) -> Attributes:
    if not isinstance(cls, type) or not issubclass(cls, Attributes) or state is not None:
        raise BadContent("it reconstructs an object that is no plain data")
    return cls()


def _default_dict(factory: Any = None) -> dict[Any, Any]:
    return {}


def _encoded(text: Any = "", encoding: Any = "latin1") -> bytes:
    """Stand for the detour by which Python 3 writes bytes into old protocols."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise BadContent("a byte string has an unknown encoding")
    return text.encode("latin-1")


_FLOATS = ("float16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_SCALAR_CODES = {f"numpy.{name}": np.dtype(name).str for name in (*_FLOATS, *_INTEGERS)}


def _plain_names() -> dict[str, Any]:
    names: dict[str, Any] = {
        **dict.fromkeys((*_SCALAR_CODES, "numpy.ndarray")),
        "numpy.dtype": _DType,
        "_codecs.encode": _encoded,
        "collections.OrderedDict": _Mapping,
        "collections.defaultdict": _default_dict,
        "copyreg._reconstructor": _old_object,
        "copy_reg._reconstructor": _old_object,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = _reconstruct
        names[f"{core}.multiarray.scalar"] = _scalar
        names[f"{core}.numeric._frombuffer"] = _from_buffer
    for module in ("builtins", "__builtin__"):
        mentioned = ("int", "float", "str", "bool", "tuple", "object")
        names |= dict.fromkeys(f"{module}.{name}" for name in mentioned)
        names |= {f"{module}.{kind.__name__}": kind for kind in (dict, list, set, frozenset)}
        names[f"{module}.bytes"] = _encoded
    stand_ins: dict[str, Any] = {name: StandIn(name, make) for name, make in names.items()}
    for module in ("datastructures", "utils.datastructures", "zsvision.zs_data_structures"):
        stand_ins[f"{module}.ExpertStore"] = _ExpertStore
    return stand_ins


# Full name of what a pickle may mention -> its stand-in, or a class of stand-ins.
PLAIN_NAMES = _plain_names()


class _Known:
    """Looks up in `names` what a pickle mentions."""

    names: Mapping[str, Any]
    accepted = "only arrays, numbers, strings and plain containers are accepted"

    def find_class(self, module: str, name: str) -> Any:
        found = self.names.get(f"{module}.{name}")
        if found is None:
            held = short(f"{module}.{name}".replace("\n", " "))
            raise BadContent(f'it holds "{held}"; {self.accepted}')
        return found


class Unpickler(_Known, pickle.Unpickler):
    """Python's machine in C, which knows nothing but stand-ins."""

    def __init__(self, file: IO[bytes], names: Mapping[str, Any] = PLAIN_NAMES) -> None:
        super().__init__(file, **_ENCODING)
        self.names = names

    def load(self) -> Any:
        """Return what the pickle at the file's place describes, stand-ins included.

        Raises:
            BadContent: it is broken, or names what is not known.
            Truncated: the file ends before the pickle does.
        """
        try:
            return super().load()
        except BadContent:
            raise
        except _BROKEN as error:
            if isinstance(error, EOFError) or "truncated" in str(error):
                raise Truncated("the end of its pickle is missing") from error
            raise BadContent(f"its pickle is broken ({short(error, 120)})") from error


class _Memo(list):
    """What a pickle may refer to again, by number: eight bytes for each."""

    def __setitem__(self, at: Any, value: Any) -> None:
        if at >= len(self):
            self.extend([None] * (at - len(self)))
            self.append(value)
        else:
            super().__setitem__(at, value)


class _Viewing(_Known, pickle._Unpickler):
    """Python's machine in Python; byte strings are views into the file: no array is copied."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, data: mmap.mmap, names: Mapping[str, Any]) -> None:
        super().__init__(data, **_ENCODING)
        self.names = names
        self.data, self.view, self.memo = data, memoryview(data), _Memo()

    def load(self) -> Any:
        self.read, self.readline = self.data.read, self.data.readline
        self.stack: list[Any] = []
        self.metastack: list[list[Any]] = []
        self.append = self.stack.append
        dispatch, next_byte = self.dispatch, self.data.read_byte
        try:
            while True:
                dispatch[next_byte()](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        except BadContent:
            raise
        except _BROKEN as error:
            at = self.data.tell()
            if at >= len(self.data):
                raise Truncated("the end of its pickle is missing") from error
            raise BadContent(f"its pickle is broken at byte {at} ({short(error)})") from error

    def _announced(self, width: int = 8) -> int:
        """Return a length that the file has before what is so long."""
        size = int.from_bytes(self.data.read(width), "little")
        left = len(self.data) - self.data.tell()
        if size > left:
            raise Truncated(f"{size} bytes were announced, {left} are left")
        return size

    def _memoize(self) -> None:
        self.memo.append(self.stack[-1])

    @staticmethod
    def _view(width: int) -> Callable[["_Viewing"], None]:
        def operation(self: "_Viewing") -> None:
            size, start = self._announced(width), self.data.tell()
            self.data.seek(size, os.SEEK_CUR)
            self.append(self.view[start : start + size])

        return operation

    dispatch |= {pickle.FRAME[0]: _announced, pickle.MEMOIZE[0]: _memoize}
    dispatch |= {pickle.SHORT_BINBYTES[0]: _view(1), pickle.BINBYTES8[0]: _view(8)}
    dispatch |= dict.fromkeys((pickle.BINBYTES[0], pickle.BINSTRING[0]), _view(4))
    dispatch |= {pickle.BYTEARRAY8[0]: _view(8)}


def read_pickle(file: IO[bytes], names: Mapping[str, Any] = PLAIN_NAMES) -> Any:
    """Return the plain value that the pickle (protocols 0 to 5) at the file's place describes.

    Arrays of a large one are read-only views into the file. Tuples come back as lists, byte strings
    as text, an ExpertStore as a dictionary.

    Args:
        file: where it stands.
        names: what it may mention, see `PLAIN_NAMES`.

    Raises:
        BadContent: the pickle is broken or holds anything but plain data.
        Truncated: the file ends before the pickle does.
    """
    start = file.tell()
    if file.seek(0, os.SEEK_END) <= _SMALL:
        file.seek(start)
        return plain(Unpickler(file, names).load())
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data.seek(start)
    return plain(_Viewing(data, names).load())


def plain(value: Any, depth: int = 0) -> Any:
    """Replace stand-ins, in any containers, by what they stand for.

    Lists and dictionaries are changed in place.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _sound(value)
    if value is None or kind in (bool, float, np.ndarray):
        return value
    if kind is int:
        if value.bit_length() > _MAX_BITS:
            raise BadContent(f"it holds an integer of {value.bit_length()} bits")
        return value
    if kind in (bytes, bytearray, memoryview):
        return text_of(bytes(value))
    if depth > _MAX_DEPTH:
        raise BadContent("its containers are nested too deeply, or one contains itself")
    if kind in (set, frozenset):
        return {checked_key(key) for key in value}
    if isinstance(value, PlainLater):
        value = value.plain_value()
        if type(value) is np.ndarray:
            return value
    if isinstance(value, dict):
        for key, item in value.items():
            if (found := plain(item, depth + 1)) is not item:
                value[key] = found  # which changes no size
        return {checked_key(key): item for key, item in value.items()}
    if kind is tuple:
        value = list(value)
    if type(value) is list:
        for at, item in enumerate(value):
            if (found := plain(item, depth + 1)) is not item:
                value[at] = found
        return value
    name = value.name if kind is StandIn else kind.__name__.strip("_")
    raise BadContent(f'it holds "{short(name)}" where data were expected')


def _sound(text: str) -> str:
    """Return a text of Python 2 that is no UTF-8 as latin-1, any other as it is."""
    try:
        return text_of(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # half a character, which Python may write and nobody else
        return text


def checked_key(key: Any) -> Any:
    """Return a key of a dictionary or member of a set: a text, a number or None."""
    if not isinstance(key, str | int | float | bytes | memoryview | None):
        raise BadContent(f"it uses a {type(key).__name__} as a key")
    return plain(key)


def text_of(data: bytes) -> str:
    """Decode a byte string: UTF-8 where it is valid, latin-1 (Python 2's strings) otherwise."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
