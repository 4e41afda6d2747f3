"""What a pickled feature file may contain: arrays, numbers, strings, plain containers.

Every entry of the table below stands in for a name that numpy, Python or the published tools write
into pickles. Arrays are built from checked parts: a type from a short list, a shape whose size is
exactly the bytes that are there. Nothing of numpy's own unpickling is called.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from data_loader.formats.pickles.machine import (
    CONTAINER,
    SLOT,
    Buildable,
    Machine,
    Maker,
    building_limit,
    checked_key,
    text_of,
)
from data_loader.formats.pickles.opcodes import run_machine
from utils.errors import BadContent, short

_MAX_DEPTH = 30
_MAX_ITEM_SIZE = 1 << 20
# A byte of text becomes as many bytes in memory at most.
_BYTES_PER_LETTER = 4
_NUMBER = re.compile(r"([<>|=]?)([fiu][1248]|f16|b1)$")
_TEXT = re.compile(r"([<>|=]?)([US])(\d{1,7})$")


class _DType(Buildable):
    """Stands for numpy.dtype: numbers, fixed-length text, or objects (a plain list)."""

    __slots__ = ("code", "order", "resolved")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = ""
        self.resolved: np.dtype | None = None

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) not in (6, 7, 8):
            raise BadContent("the type of an array has an unknown form")
        _, order, subtype, names, fields, *_ = state
        if subtype is not None or names is not None or fields is not None:
            raise BadContent("it holds an array of structures")
        if order not in ("<", ">", "|", "="):
            raise BadContent("the type of an array has an unknown byte order")
        self.order = order
        self.resolved = None

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


class _Array(Buildable):
    """Stands for a numpy.ndarray that is given its shape, type and bytes."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | list[Any] | None = None

    def build(self, state: Any) -> None:
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


def checked_array(data: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    """View `data` as an array; its length must be exactly what type and shape ask for."""
    if type(data) is str:
        data = memoryview(data.encode("latin-1"))
    if type(data) is not memoryview:
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
    for length in shape:
        if type(length) is not int or not 0 <= length < 1 << 40:
            raise BadContent(f"an array has the shape {short(shape)}")
    return math.prod(shape)


def _object_list(shape: Any, data: Any) -> list[Any]:
    if type(data) is not list or _size(shape) != len(data):
        raise BadContent("an array of objects has another length than its shape says")
    if len(shape) > 1:
        raise BadContent("it holds an array of objects with more than one axis")
    return data


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if type(kind) is not Maker or kind.name != "numpy.ndarray":
        raise BadContent("it reconstructs something that is no array")
    return _Array()


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _DType:
    if type(code) is Maker and code.name in _SCALAR_CODES:
        code = _SCALAR_CODES[code.name]
    if type(code) is not str:
        raise BadContent("the type of an array is no text")
    return _DType(code)


def _scalar(dtype: Any, data: Any = None) -> Any:
    if type(dtype) is not _DType or dtype.is_object:
        raise BadContent("it holds a scalar that is no number")
    return checked_array(data, dtype.resolve(), (1,), "C")[0].item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if type(dtype) is not _DType or dtype.is_object or order not in ("C", "F"):
        raise BadContent("an array in a buffer has an unknown form")
    return checked_array(data, dtype.resolve(), shape, order)


class _ExpertStore(Buildable):
    """Stands for the published ExpertStore: one (videos, D) array with a row for each key."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def build(self, state: Any) -> None:
        if type(state) is not dict:
            raise BadContent("an ExpertStore has no dictionary of attributes")
        self.state = state

    def table(self) -> dict[str, Any]:
        """Return key -> row of the store; a key that is marked as missing gives NaN."""
        keymap, store = self.state.get("keymap"), self.state.get("store")
        missing = {checked_key(key) for key in self.state.get("missing") or ()}
        values = store.value if type(store) is _Array else store
        if type(keymap) is not dict or not isinstance(values, np.ndarray) or values.ndim != 2:
            raise BadContent("an ExpertStore lacks its keymap or its (videos, D) store")
        if any(type(row) is not int or not 0 <= row < len(values) for row in keymap.values()):
            raise BadContent("an ExpertStore has a key without a row in its store")
        return {key: math.nan if key in missing else values[row] for key, row in keymap.items()}


def _old_object(cls: Any, base: Any, state: Any) -> Any:
    if type(cls) is Maker and cls.name == "ExpertStore" and state is None:
        return _ExpertStore()
    raise BadContent("it reconstructs an object that is no plain data")


def _pairs(items: Any = ()) -> dict[Any, Any]:
    """Stand for OrderedDict(items): pairs of key and value."""
    if type(items) is dict:
        return items
    result = {}
    for item in _sequence(items):
        if type(item) not in (list, tuple) or len(item) != 2:
            raise BadContent("a dictionary is made of something else than pairs")
        result[checked_key(item[0])] = item[1]
    return result


def _default_dict(factory: Any = None) -> dict[Any, Any]:
    if factory is not None and type(factory) is not Maker:
        raise BadContent("a defaultdict has an unknown factory")
    return {}


def _sequence(items: Any) -> Any:
    if type(items) not in (list, tuple, set):
        raise BadContent(f"it makes a container of a {type(items).__name__}")
    return items


def _members(items: Any = ()) -> set[Any]:
    return {checked_key(item) for item in _sequence(items)}


def _encoded(text: Any = "", encoding: Any = "latin1") -> memoryview:
    """Stand for the detour by which Python 3 writes bytes into old protocols."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise BadContent("a byte string has an unknown encoding")
    return memoryview(text.encode("latin-1"))


_FLOATS = ("float16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_SCALAR_CODES = {f"numpy.{name}": np.dtype(name).str for name in (*_FLOATS, *_INTEGERS)}
# Bytes of memory of an array besides its values.
_ARRAY = 400
_PLAIN_TYPES = ("int", "float", "str", "bool", "tuple", "object")
_MAKERS = [
    *(Maker(name) for name in _SCALAR_CODES),
    Maker("numpy.ndarray"),
    Maker("numpy.dtype", _dtype),
    Maker("_codecs.encode", _encoded),
    Maker("collections.OrderedDict", _pairs),
    Maker("collections.defaultdict", _default_dict),
]
# Full name of what a pickle may mention -> its stand-in.
PLAIN_NAMES: dict[str, Maker] = {maker.name: maker for maker in _MAKERS}
for _core in ("numpy.core", "numpy._core"):
    PLAIN_NAMES[f"{_core}.multiarray._reconstruct"] = Maker("_reconstruct", _reconstruct, _ARRAY)
    PLAIN_NAMES[f"{_core}.multiarray.scalar"] = Maker("scalar", _scalar)
    PLAIN_NAMES[f"{_core}.numeric._frombuffer"] = Maker("_frombuffer", _from_buffer, _ARRAY)
for _builtins in ("builtins", "__builtin__"):
    PLAIN_NAMES |= {f"{_builtins}.{name}": Maker(name) for name in _PLAIN_TYPES}
    PLAIN_NAMES[f"{_builtins}.bytes"] = Maker("bytes", _encoded)
    PLAIN_NAMES[f"{_builtins}.dict"] = Maker("dict", _pairs)
    PLAIN_NAMES[f"{_builtins}.list"] = Maker("list", lambda items=(): list(_sequence(items)))
    PLAIN_NAMES[f"{_builtins}.set"] = Maker("set", _members)
    PLAIN_NAMES[f"{_builtins}.frozenset"] = Maker("frozenset", _members)
for _module in ("datastructures", "utils.datastructures", "zsvision.zs_data_structures"):
    PLAIN_NAMES[f"{_module}.ExpertStore"] = Maker("ExpertStore", _ExpertStore)
for _module in ("copyreg", "copy_reg"):
    PLAIN_NAMES[f"{_module}._reconstructor"] = Maker("_reconstructor", _old_object)


def _find(module: str, name: str) -> Maker:
    maker = PLAIN_NAMES.get(f"{module}.{name}")
    if maker is None:
        found = short(f"{module}.{name}".replace("\n", " "))
        raise BadContent(
            f'it holds "{found}"; only arrays, numbers, strings and plain containers are accepted'
        )
    return maker


def read_pickle(data: memoryview) -> Any:
    """Return the plain value that a pickle (protocols 0 to 5) describes.

    Arrays are read-only views into `data`. Tuples come back as lists, byte strings as text, an
    ExpertStore as a dictionary.

    Raises:
        BadContent: the pickle is broken or holds anything but plain data.
    """
    machine = Machine(data, _find)
    value = run_machine(machine)
    return PlainValues(machine.left).of(value)


class PlainValues:
    """Replaces stand-ins of `PLAIN_NAMES`, in any containers, by what they stand for.

    Each container is visited once; lists and dictionaries are changed in place.
    """

    def __init__(self, left: int | None = None) -> None:
        """Begin, with so many bytes of memory left that may be filled."""
        self._left = building_limit(0) if left is None else left
        self._depth = 0
        # id -> result, and what must live for as long as its id is a key.
        self._done: dict[int, Any] = {}
        self._seen: list[Any] = []

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, str | int | float | np.ndarray):
            return value
        done = self._done
        if id(value) in done:
            if done[id(value)] is done:
                raise BadContent("a container holds itself")
            return done[id(value)]
        if self._depth > _MAX_DEPTH:
            raise BadContent("its containers are nested too deeply")
        self._seen.append(value)
        done[id(value)] = done
        self._depth += 1
        done[id(value)] = result = self._made_plain(value)
        self._depth -= 1
        return result

    def _made_plain(self, value: Any) -> Any:
        if type(value) is memoryview:
            self._charge(_BYTES_PER_LETTER * len(value))
            return text_of(value)
        if type(value) is _ExpertStore:
            return value.table()
        if type(value) is _Array:
            if value.value is None:
                raise BadContent("an array has no values")
            return self.of(value.value)
        if type(value) is tuple:
            self._charge(CONTAINER + SLOT * len(value))
            value = list(value)
        if type(value) is list:
            self._replace(value, enumerate(value))
        elif type(value) is dict:
            self._replace(value, value.items())
        elif type(value) is not set:
            name = value.name if type(value) is Maker else type(value).__name__.strip("_")
            raise BadContent(f'it holds "{short(name)}" where data were expected')
        return value

    def _replace(self, container: Any, items: Iterable[tuple[Any, Any]]) -> None:
        for key, item in items:
            plain = self.of(item)
            if plain is not item:
                container[key] = plain  # which changes no size

    def _charge(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise BadContent("it repeats the same values until they outgrow the file many times")
