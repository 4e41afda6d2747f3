"""A stack machine that reads pickles and can build plain data, nothing else.

A pickle is a program for a small stack machine. Python's own machine imports and calls what the
program names, hashes whatever it is given and reserves memory before it has seen the bytes. This
one has the same instructions (`pickle_opcodes.py`), but: a name is looked up in a fixed table of
inert makers, only those are ever called, keys are strings or numbers, and every length is compared
with the bytes that are there. Byte strings are views into the file, so that reading costs no second
copy of the arrays.
"""

from collections.abc import Callable
from typing import Any

from data_loader.content import BadContent, Truncated

_KEY_TYPES = (str, int, float, type(None))
# Beyond this, integers can be chosen to share one hash, which makes dictionaries quadratic.
_MAX_KEY = 1 << 60
# One byte of a pickle can ask for an object of a hundred; real files need three bytes and more.
_FREE_OBJECTS = 100_000
_BYTES_PER_OBJECT = 3


class Maker:
    """A name that a pickle may mention, and the function that stands in for it."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.make = make


class Buildable:
    """An object that is filled by a second instruction, as arrays and dtypes are."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Take the state that follows in the pickle, or refuse it."""
        raise BadContent("it sets the state of something that has none")


def checked_key(key: Any) -> Any:
    """Return a dictionary key or set member; only those that hash in constant time pass."""
    if isinstance(key, memoryview):
        return text_of(key)
    if not isinstance(key, _KEY_TYPES):
        raise BadContent(f"it uses a {type(key).__name__} as a key")
    if isinstance(key, int) and not -_MAX_KEY < key < _MAX_KEY:
        raise BadContent("it uses an enormous number as a key")
    return key


def text_of(data: memoryview) -> str:
    """Decode a byte string: UTF-8 where it is valid, latin-1 (Python 2's strings) otherwise."""
    raw = bytes(data)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class Machine:
    """The state of one reading.

    Attributes:
        data: the whole file.
        at: place of the next byte.
        end: length of the file.
        find: gives the maker for (module, name).
        persistent: gives what lies outside the pickle under an id; None where nothing does.
        stack: values since the last mark.
        marks: stacks that were set aside by marks.
        memo: values that the pickle may refer to again.
        objects_left: how many more objects it may ask for.
    """

    def __init__(
        self,
        data: memoryview,
        find: Callable[[str, str], Maker],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data = data
        self.end = len(data)
        self.at = 0
        self.find = find
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.objects_left = _FREE_OBJECTS + self.end // _BYTES_PER_OBJECT

    def spend(self) -> None:
        """Count one object, so that a small file cannot fill the memory with empty ones."""
        self.objects_left -= 1
        if self.objects_left < 0:
            raise BadContent("it builds far more objects than a file of its size can hold")

    def read(self, count: int) -> memoryview:
        """Return the next `count` bytes as a view."""
        start, self.at = self.at, self.at + count
        if count < 0 or self.at > self.end:
            raise Truncated(f"{count} bytes were announced, {self.end - start} are left")
        return self.data[start : self.at]

    def read_number(self, size: int, signed: bool = False) -> int:
        """Return the next little-endian integer of `size` bytes."""
        return int.from_bytes(self.read(size), "little", signed=signed)

    def read_line(self) -> bytes:
        """Return the text up to the next line end (arguments of the oldest protocols)."""
        line = bytearray()
        while True:
            chunk = bytes(self.data[self.at : self.at + 256])
            if not chunk:
                raise Truncated("a line has no end")
            stop = chunk.find(b"\n")
            if stop >= 0:
                line += chunk[:stop]
                self.at += stop + 1
                return bytes(line)
            line += chunk
            self.at += len(chunk)

    def pop_mark(self) -> list[Any]:
        """Return what was pushed since the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items
