"""The instructions of a pickle, protocols 0 to 5, as far as plain data need them."""

import struct
import sys
from collections.abc import Callable
from typing import Any

from data_loader.formats.pickles.machine import (
    CONTAINER,
    ENTRY,
    NUMBER,
    SLOT,
    VIEW,
    Buildable,
    Machine,
    Maker,
    checked_key,
)
from utils.errors import BadContent, Truncated, short

_PROTOCOLS = range(6)
# So many instructions are run between two looks at the size of the stack.
_BLOCK = 4096
# The length of a text costs as many bytes in memory at most, for each of its letters.
_BYTES_PER_LETTER = 4
_STORAGE = 1000
# Longer numbers are no measurement, and reading them takes quadratic time.
_MAX_DIGITS = 400


def run_machine(machine: Machine) -> Any:
    """Return what the pickle at the machine's place describes, and leave it at the pickle's end.

    Raises:
        BadContent: an instruction, a name or a structure that plain data do not need.
        Truncated: the bytes end before the pickle does.
    """
    data, table = machine.data, _TABLE
    try:
        while True:
            machine.check_stack()
            for _ in range(_BLOCK):
                if machine.at >= machine.end:
                    raise Truncated("the end mark is missing")
                code = data[machine.at]
                machine.at += 1
                if code == _STOP:
                    return machine.stack.pop()
                operation = table[code]
                if operation is None:
                    raise BadContent(_refusal(code))
                operation(machine)
    except (IndexError, KeyError) as error:
        if machine.at >= machine.end:
            raise Truncated("it ends within an instruction") from error
        raise BadContent(f"its instructions are broken at byte {machine.at}") from error


def _refusal(code: int) -> str:
    if code in _REFUSED:
        return f"it uses the pickle instruction {_REFUSED[code]}, which plain data do not need"
    return f"byte {code:#04x} is no pickle instruction"


def _proto(m: Machine) -> None:
    version = m.read_number(1)
    if version not in _PROTOCOLS:
        raise BadContent(f"pickle protocol {version} is not known")


def _frame(m: Machine) -> None:
    if m.read_number(8) > m.end - m.at:
        raise Truncated("a frame is longer than the rest of the file")


def _mark(m: Machine) -> None:
    m.push_mark()


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _pop_mark(m: Machine) -> None:
    m.pop_mark()


def _dup(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _push(value: Any) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        m.stack.append(value)

    return operation


def _push_new(kind: type) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        m.charge(2 * CONTAINER if kind is set else CONTAINER)
        m.stack.append(kind())

    return operation


def _byte(m: Machine) -> None:
    # An own version for the most frequent argument, which spares two calls.
    m.stack.append(m.data[m.at])
    m.at += 1


def _integer(size: int, signed: bool = False) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        m.left -= NUMBER  # checked with the stack
        m.stack.append(m.read_number(size, signed))

    return operation


def _binfloat(m: Machine) -> None:
    m.left -= NUMBER
    m.stack.append(struct.unpack(">d", m.read(8))[0])


def _long(size: int) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        raw = m.read(m.read_number(size))
        if len(raw) > _MAX_DIGITS:
            raise BadContent(f"it holds an integer of {len(raw)} bytes")
        m.charge(NUMBER + 2 * len(raw))
        m.stack.append(int.from_bytes(raw, "little", signed=True))

    return operation


def _push_text(m: Machine, text: str) -> None:
    m.charge(sys.getsizeof(text))
    m.stack.append(text)


def _text(size: int) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        raw = bytes(m.read(m.read_number(size)))
        _push_text(m, raw.decode("utf-8", "replace"))

    return operation


def _raw(size: int) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        m.charge(VIEW)
        m.stack.append(m.read(m.read_number(size)))

    return operation


def _short_python2_text(m: Machine) -> None:
    _push_text(m, bytes(m.read(m.read_number(1))).decode("latin-1"))


def _text_line(kind: str) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        line = m.read_line()
        if len(line) > _MAX_DIGITS:
            raise BadContent(f"it holds a number of {len(line)} digits")
        m.charge(NUMBER + len(line))
        word = line.decode("ascii").strip()
        if kind == "I" and word in ("00", "01"):
            m.stack.append(word == "01")
        elif kind == "F":
            m.stack.append(float(word))
        else:
            m.stack.append(int(word.rstrip("L")))

    return operation


def _string_line(m: Machine) -> None:
    line = m.read_line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise BadContent("a string has no quotes around it")
    _push_text(m, line[1:-1].decode("unicode-escape"))


def _unicode_line(m: Machine) -> None:
    _push_text(m, m.read_line().decode("raw-unicode-escape"))


def _put(size: int) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        m.remember(m.read_number(size), m.stack[-1])

    return operation


def _get_byte(m: Machine) -> None:
    m.stack.append(m.memo[m.data[m.at]])
    m.at += 1


def _get(size: int) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        m.stack.append(m.memo[m.read_number(size)])

    return operation


def _line_index(m: Machine) -> int:
    line = m.read_line()
    if not line.isdigit() or len(line) > 12:
        raise BadContent("a memo index is no number")
    return int(line)


def _put_line(m: Machine) -> None:
    m.remember(_line_index(m), m.stack[-1])


def _get_line(m: Machine) -> None:
    m.stack.append(m.memo[_line_index(m)])


def _memoize(m: Machine) -> None:
    m.left -= SLOT  # checked with the stack
    m.memo.append(m.stack[-1])


def _tuple(count: int) -> Callable[[Machine], None]:
    def operation(m: Machine) -> None:
        if len(m.stack) < count:
            raise IndexError
        m.charge(CONTAINER)
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return operation


def _tuple_of_mark(m: Machine) -> None:
    items = m.pop_mark()
    m.charge(CONTAINER + SLOT * len(items))
    m.stack.append(tuple(items))


def _list_of_mark(m: Machine) -> None:
    items = m.pop_mark()
    m.charge(CONTAINER + SLOT * len(items))
    m.stack.append(items)


def _dict_of_mark(m: Machine) -> None:
    items = m.pop_mark()
    m.charge(CONTAINER)
    m.stack.append({})
    _set_all(m, items)


def _frozenset_of_mark(m: Machine) -> None:
    items = m.pop_mark()
    m.charge(2 * CONTAINER)
    m.stack.append(set())
    _add_all(m, items)


def _add_all(m: Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    if type(target) is not set:
        raise BadContent(f"it adds members to a {type(target).__name__}")
    _charge_keys(m, items)
    target.update(checked_key(item) for item in items)


def _charge_keys(m: Machine, keys: list[Any]) -> None:
    # A byte string becomes a text wherever it is a key.
    texts = sum(len(key) for key in keys if type(key) is memoryview)
    m.charge(ENTRY * len(keys) + _BYTES_PER_LETTER * texts)


def _set_all(m: Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise BadContent(f"it sets items of a {type(target).__name__}")
    _charge_keys(m, items[::2])
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[checked_key(key)] = value


def _setitem(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _set_all(m, [key, value])


def _setitems(m: Machine) -> None:
    items = m.pop_mark()
    _set_all(m, items)


def _extend(m: Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    if type(target) is not list:
        raise BadContent(f"it appends to a {type(target).__name__}")
    m.charge(SLOT * len(items))
    target.extend(items)


def _append(m: Machine) -> None:
    value = m.stack.pop()
    _extend(m, [value])


def _appends(m: Machine) -> None:
    items = m.pop_mark()
    _extend(m, items)


def _additems(m: Machine) -> None:
    _add_all(m, m.pop_mark())


def _global(m: Machine) -> None:
    module, name = m.read_line(), m.read_line()
    m.stack.append(m.find(module.decode("utf-8"), name.decode("utf-8")))


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise BadContent("a global name is no text")
    m.stack.append(m.find(module, name))


def _reduce(m: Machine) -> None:
    arguments, maker = m.stack.pop(), m.stack[-1]
    if type(maker) is not Maker or maker.make is None:
        raise BadContent(f"it calls {_describe(maker)}")
    if type(arguments) is not tuple:
        raise BadContent(f"it calls {maker.name} without a tuple of arguments")
    m.charge(maker.cost)
    m.charge_copies(arguments)
    try:
        m.stack[-1] = maker.make(*arguments)
    except TypeError as error:
        raise BadContent(f"it calls {maker.name} with other arguments than it takes") from error


def _build(m: Machine) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if not isinstance(target, Buildable):
        raise BadContent(f"it sets the state of {_describe(target)}")
    parts = state if type(state) is tuple else (state,)
    m.charge_copies(parts)
    for part in parts:
        if isinstance(part, dict):
            m.charge_copies(part.values())
    target.build(state)


def _persistent_id(m: Machine) -> None:
    if m.persistent is None:
        raise BadContent("it refers to something outside the pickle, which plain data do not need")
    m.charge(_STORAGE)
    m.stack[-1] = m.persistent(m.stack[-1])


def _describe(value: Any) -> str:
    return f'"{short(value.name)}"' if type(value) is Maker else f"a {type(value).__name__}"


_STOP = ord(".")
_REFUSED = {
    ord("P"): "PERSID",
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x92: "NEWOBJ_EX",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
}
_OPERATIONS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"(": _mark,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": _dup,
    b"N": _push(None),
    b"\x88": _push(True),
    b"\x89": _push(False),
    b"I": _text_line("I"),
    b"L": _text_line("L"),
    b"F": _text_line("F"),
    b"J": _integer(4, signed=True),
    b"K": _byte,
    b"M": _integer(2),
    b"G": _binfloat,
    b"\x8a": _long(1),
    b"\x8b": _long(4),
    b"S": _string_line,
    b"V": _unicode_line,
    b"T": _raw(4),
    b"U": _short_python2_text,
    b"X": _text(4),
    b"\x8c": _text(1),
    b"\x8d": _text(8),
    b"B": _raw(4),
    b"C": _raw(1),
    b"\x8e": _raw(8),
    b"\x96": _raw(8),
    b"p": _put_line,
    b"q": _put(1),
    b"r": _put(4),
    b"\x94": _memoize,
    b"g": _get_line,
    b"h": _get_byte,
    b"j": _get(4),
    b")": _push(()),
    b"t": _tuple_of_mark,
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"]": _push_new(list),
    b"l": _list_of_mark,
    b"a": _append,
    b"e": _appends,
    b"}": _push_new(dict),
    b"d": _dict_of_mark,
    b"s": _setitem,
    b"u": _setitems,
    b"\x8f": _push_new(set),
    b"\x90": _additems,
    b"\x91": _frozenset_of_mark,
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _reduce,
    b"b": _build,
    b"Q": _persistent_id,
}
_TABLE: list[Callable[[Machine], None] | None] = [None] * 256
for _code, _operation in _OPERATIONS.items():
    _TABLE[_code[0]] = _operation
