"""Reading MessagePack files with arrays in them, as msgpack-numpy writes them.

An array is a map {"nd": true, "type": "<f4", "kind": "", "shape": [2, 3], "data": bytes}, a scalar
of numpy the same with "nd" false and no shape. msgpack-numpy unpickles arrays of objects; those are
refused here. The library decodes the parts; containers are walked here, because it reserves what
a container announces before it has seen the items.
"""

import mmap
from pathlib import Path
from typing import IO, Any

import msgpack

from data_loader.formats.pickles.machine import checked_key, text_of
from data_loader.formats.pickles.values import checked_array, plain_type
from utils.errors import BadContent, Truncated, short

_MAX_DEPTH = 30
_READ_SIZE = 1 << 20
_ARRAY_TYPES, _MAP_TYPES = range(0x90, 0xA0), range(0x80, 0x90)
_ARRAY_CODES, _MAP_CODES = (0xDC, 0xDD), (0xDE, 0xDF)
_EXTENSIONS = (*range(0xC7, 0xCA), *range(0xD4, 0xD9))


def read_msgpack(path: Path) -> Any:
    """Return the plain value of a file.

    Raises:
        BadContent: it is broken, or holds anything but plain data and arrays.
    """
    size = path.stat().st_size
    if not size:
        raise Truncated("it is empty")
    with path.open("rb") as handle:
        reader = _Reader(handle, size)
        try:
            value = reader.value(0)
        except msgpack.OutOfData as error:
            raise Truncated("it ends within a value") from error
        except msgpack.UnpackException as error:
            raise BadContent(f"it is no MessagePack ({type(error).__name__})") from error
        if reader.left:
            raise BadContent(f"{reader.left} bytes follow the value")
    return value


class _Reader:
    """Walks containers, and leaves everything within them to the library."""

    def __init__(self, handle: IO[bytes], size: int) -> None:
        self._size = size
        # The library does not tell what comes next; the first byte of a value does.
        self._bytes = mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ)
        self._unpacker = msgpack.Unpacker(
            handle, raw=True, read_size=_READ_SIZE, max_buffer_size=max(size, _READ_SIZE)
        )

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return self._size - self._unpacker.tell()

    def value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise BadContent("its containers are nested too deeply")
        if not self.left:
            raise Truncated("it ends where a value was expected")
        code = self._bytes[self._unpacker.tell()]
        if code in _MAP_TYPES or code in _MAP_CODES:
            return self._map(depth + 1)
        if code in _ARRAY_TYPES or code in _ARRAY_CODES:
            count = self._count(self._unpacker.read_array_header(), 1)
            return [_text(self.value(depth + 1)) for _ in range(count)]
        if code in _EXTENSIONS:
            raise BadContent("it holds an extension type of MessagePack")
        return self._unpacker.unpack()

    def _map(self, depth: int) -> Any:
        count = self._count(self._unpacker.read_map_header(), 2)
        result = {}
        for _ in range(count):
            key = checked_key(_text(self.value(depth)))
            try:
                result[key] = self.value(depth)
            except BadContent as error:
                if depth > 1:
                    raise
                raise type(error)(f'at "{short(key)}" {error}') from error
        if "nd" in result and "data" in result:
            return _array(result)
        return {key: _text(value) for key, value in result.items()}

    def _count(self, announced: int, bytes_each: int) -> int:
        if announced * bytes_each > self.left:
            raise Truncated(f"{announced} items were announced, fewer bytes are left")
        return announced


def _text(value: Any) -> Any:
    return text_of(memoryview(value)) if isinstance(value, bytes) else value


def _array(entry: dict[Any, Any]) -> Any:
    code, data, kind = _text(entry.get("type")), entry["data"], entry.get("kind", b"")
    if type(code) is not str or kind not in (b"", "", None):
        raise BadContent("it holds an array of objects or structures")
    if not isinstance(data, bytes):
        raise BadContent("the values of an array are no bytes")
    shape = entry.get("shape", []) if entry["nd"] is True else []
    if type(shape) is not list:
        raise BadContent("an array has an unknown shape")
    values = checked_array(memoryview(data), plain_type(code), tuple(shape), "C")
    return values if entry["nd"] is True else values[()].item()
