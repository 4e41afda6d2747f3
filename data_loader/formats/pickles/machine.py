"""A stack machine that reads pickles and can build plain data, nothing else.

A pickle is a program for a small stack machine. Python's own machine imports and calls what the
program names, hashes whatever it is given and reserves memory before it has seen the bytes. This
one has the same instructions (`pickle_opcodes.py`), but: a name is looked up in a fixed table of
inert makers, only those are ever called, keys are strings or numbers, and every length is compared
with the bytes that are there. Byte strings are views into the file, so that reading costs no second
copy of the arrays. What is built besides is counted in bytes, and must stay in proportion to the
file: one byte of a pickle can ask for an object of hundreds, or for a copy of the largest one.
"""

from collections.abc import Callable, Iterable
from typing import Any

from utils.errors import BadContent, Truncated

_KEY_TYPES = (str, int, float, type(None))
# Beyond this, integers can be chosen to share one hash, which makes dictionaries quadratic.
_MAX_KEY = 1 << 60
# What a small file may build, and each byte of a file. With the mapped file itself and what the
# libraries need, reading stays below 256 MB and four bytes for each byte of the file.
_FREE_BYTES = 176 << 20
_BUILT_PER_BYTE = 3
# Bytes of memory, about as Python takes them: an entry of a list, of a dictionary or set (which
# grow by leaps), an empty container, a number, a view into the file.
SLOT = 9
ENTRY = 150
CONTAINER = 160
NUMBER = 32
VIEW = 200
_CALL = 100
_MARK = 72


class _Nothing:
    """Stands in the memo where nothing was remembered."""


_NOTHING = _Nothing()


class Maker:
    """A name that a pickle may mention, and the function that stands in for it.

    Attributes:
        name: what messages call it.
        make: the function; None for what may be mentioned and not called.
        cost: bytes of memory that a call takes, besides a copy of its arguments.
    """

    __slots__ = ("cost", "make", "name")

    def __init__(
        self, name: str, make: Callable[..., Any] | None = None, cost: int = _CALL
    ) -> None:
        self.name = name
        self.make = make
        self.cost = cost


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


def building_limit(size: int) -> int:
    """Return how many bytes of memory a pickle of `size` bytes may build."""
    return _FREE_BYTES + _BUILT_PER_BYTE * size


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
        set_aside: number of values in them.
        memo: values that the pickle may refer to again.
        left: how many more bytes of memory it may fill.
    """

    def __init__(
        self,
        data: memoryview,
        find: Callable[[str, str], Maker],
        persistent: Callable[[Any], Any] | None = None,
        left: int | None = None,
    ) -> None:
        self.data = data
        self.end = len(data)
        self.at = 0
        self.find = find
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.set_aside = 0
        self.memo: list[Any] = []
        self.left = building_limit(self.end) if left is None else left

    def charge(self, size: int) -> None:
        """Count bytes of memory."""
        self.left -= size
        if self.left < 0:
            raise BadContent("it builds far more objects than a file of its size can hold")

    def charge_copies(self, values: Iterable[Any]) -> None:
        """Count what a copy of each of these takes, and the time that looking at it takes."""
        for value in values:
            if isinstance(value, str):
                self.charge(len(value))
            elif isinstance(value, list | tuple | set | dict):
                self.charge(ENTRY * len(value))

    def check_stack(self) -> None:
        """Insist that what waits on the stack is within the limit, too; it is not charged."""
        if SLOT * (len(self.stack) + self.set_aside) > self.left:
            self.charge(self.left + 1)

    def remember(self, index: int, value: Any) -> None:
        """Keep a value in the memo."""
        gap = index - len(self.memo)
        if gap < 0:
            self.memo[index] = value
        else:
            self.charge(SLOT * (gap + 1))
            self.memo += [_NOTHING] * gap
            self.memo.append(value)

    def push_mark(self) -> None:
        """Set aside what is on the stack."""
        self.charge(_MARK)
        self.set_aside += len(self.stack)
        self.marks.append(self.stack)
        self.stack = []

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
        self.set_aside -= len(self.stack)
        self.left += _MARK
        return items
