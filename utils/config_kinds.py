"""What a value in a config may be: kinds that check a value, describe themselves, and read text."""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from utils.errors import did_you_mean, is_writable, short

KeyPath = tuple[str, ...]

# Stands for what the data set has.
AUTO = "auto"

# A config is nested some 8 deep; what recurses into its values must not run out of stack.
_DEEPEST = 30
UNWRITABLE = (
    "holds a control character or half a surrogate pair (of a letter that the locale lacks, say: "
    "LC_ALL=C.UTF-8 has all)"
)
_LONGEST_TEXT = 4096
_LONGEST_PATH = 3000  # bytes; the system's limit is 4096, and what a run makes lies below it
LONGEST_NAME = 255  # bytes
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


def split_key(text: str) -> KeyPath:
    """Split "a.b_.c" into its parts ("a", "b.c"): "_." is a dot inside a part."""
    return tuple(part.replace("_.", ".") for part in re.split(r"(?<!_)\.", text))


def join_key(path: KeyPath) -> str:
    """Undo `split_key`."""
    return ".".join(part.replace(".", "_.") for part in path)


def shown(value: Any) -> str:
    """Show a wrong value in an error message, shortened."""
    try:
        text = json.dumps(value, default=repr, ensure_ascii=False)
    except (ValueError, RecursionError):  # thousands of digits, or a dict within itself
        return "a value too large to show"
    text = short(text)
    return f"the string {text}" if isinstance(value, str) else text


def is_too_deep(value: Any) -> bool:
    """Tell whether a value is nested deeper than any config is."""
    level = [value]
    for _ in range(_DEEPEST):
        nested = [v.values() if isinstance(v, dict) else v for v in level if _holds_more(v)]
        # Each value once: a pickle may hold one value in many places.
        level = list({id(entry): entry for entries in nested for entry in entries}.values())
    return bool(level)


def _holds_more(value: Any) -> bool:
    return isinstance(value, dict | list | tuple)


@dataclass(frozen=True)
class Problem:
    """What is wrong with the value at `path`; with `unknown` the key itself should not be there."""

    path: KeyPath
    sentence: str
    unknown: bool = False


class Kind(ABC):
    """A kind of value. Simple kinds say what they accept, nested ones list their problems."""

    @abstractmethod
    def describe(self) -> str:
        """Say what is expected, for an error message."""

    def accepts(self, value: Any) -> bool:
        """Tell a right value from a wrong one."""
        return not any(True for _ in self.problems(value, ()))

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        """List what is wrong with `value` at the key `path`; nothing if it is right."""
        if not self.accepts(value):
            yield self.wrong(value, path)

    def wrong(self, value: Any, path: KeyPath) -> Problem:
        fault = self.fault(value) or f"must be {self.describe()}, not {shown(value)}"
        return Problem(path, f'"{name_of(path)}" {fault}')

    def fault(self, value: Any) -> str:
        """Say what is wrong with a value of the right type that cannot be used all the same."""
        return ""

    def parse(self, text: str) -> Any:
        """Return the value that a text of the command line stands for (ValueError: none)."""
        return json.loads(text)


@dataclass(frozen=True)
class Float(Kind):
    """A finite number, whole or not; true and false are none."""

    minimum: float | None = None
    maximum: float | None = None
    what: ClassVar[str] = "a finite number"

    def describe(self) -> str:
        least = "" if self.minimum is None else f" of at least {self.minimum}"
        most = "" if self.maximum is None else f", at most {self.maximum}"
        return self.what + least + most

    def accepts(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            return False
        too_low = self.minimum is not None and value < self.minimum
        too_high = self.maximum is not None and value > self.maximum
        return not (too_low or too_high)

    def parse(self, text: str) -> Any:
        if "_" in text:  # Python would read 1_0 as 10
            raise ValueError(text)
        return int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else float(text)


@dataclass(frozen=True)
class Int(Float):
    """A whole number; where there is no maximum, one beyond `vast` is taken for a slip."""

    vast: int = 2**31 - 1
    what: ClassVar[str] = "a whole number"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, int) and not self.fault(value) and super().accepts(value)

    def fault(self, value: Any) -> str:
        is_vast = isinstance(value, int) and value > self.vast and self.maximum is None
        return f"must be at most {self.vast}, not {shown(value)}" if is_vast else ""


@dataclass(frozen=True)
class Bool(Kind):
    """True or false. On the command line 1 and 0 say the same."""

    def describe(self) -> str:
        return "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)

    def parse(self, text: str) -> Any:
        words = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in words:
            raise ValueError(text)
        return words[text.lower()]


@dataclass(frozen=True)
class Flag(Kind):
    """True, false, 1 or 0: published configs write some switches either way."""

    def describe(self) -> str:
        return "true, false, 1 or 0"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool | int) and value in (0, 1)

    def parse(self, text: str) -> Any:
        return json.loads(text.lower())


@dataclass(frozen=True)
class Str(Kind):
    """A text, of the form `pattern` where one is given; `what` puts that form into words."""

    pattern: str | None = None
    what: str = "a string"

    def describe(self) -> str:
        return self.what

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, str) or self.fault(value):
            return False
        return self.pattern is None or bool(re.fullmatch(self.pattern, value))

    def fault(self, value: Any) -> str:
        if not isinstance(value, str):
            return ""
        if not is_writable(value, in_one_line=True):
            return f"{UNWRITABLE}: {shown(value)}"
        is_long = len(value) > _LONGEST_TEXT
        return f"is longer than {_LONGEST_TEXT} characters: {shown(value)}" if is_long else ""

    def parse(self, text: str) -> Any:
        # A text in quotes is read as JSON: the way to give a string that begins with a quote.
        quoted = len(text) > 1 and text.startswith('"') and text.endswith('"')
        return json.loads(text) if quoted else text


class FilePath(Str):
    """A text that names a file or a folder, or becomes a part of such a name."""

    def fault(self, value: Any) -> str:
        found = super().fault(value)
        if found or not isinstance(value, str):
            return found
        if any(len(part.encode()) > LONGEST_NAME for part in value.split("/")):
            return f"has a part of more than {LONGEST_NAME} bytes, no file's name: {shown(value)}"
        is_long = len(value.encode()) > _LONGEST_PATH
        return f"is longer than {_LONGEST_PATH} bytes: {shown(value)}" if is_long else ""


class Choice(Kind):
    """One of a few texts; `refused` are names that a user may expect, with why they are none."""

    def __init__(self, *choices: str, refused: Mapping[str, str] | None = None) -> None:
        self.choices = choices
        self.refused = refused or {}

    def describe(self) -> str:
        *first, last = (json.dumps(choice) for choice in self.choices)
        return f"one of {', '.join(first)} or {last}" if first else last

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.choices

    def wrong(self, value: Any, path: KeyPath) -> Problem:
        hint = did_you_mean(value, self.choices) if isinstance(value, str) else ""
        hint = "" if self.fault(value) else hint
        return Problem(path, super().wrong(value, path).sentence + hint)

    def fault(self, value: Any) -> str:
        is_refused = isinstance(value, str) and value in self.refused
        return f'cannot be "{value}": {self.refused[value]}' if is_refused else ""

    def parse(self, text: str) -> Any:
        return Str().parse(text)


@dataclass(frozen=True)
class ListOf(Kind):
    """A list whose entries are all of one kind. On the command line: JSON, or "a,b"."""

    entry: Kind
    minimum: int = 0
    exactly: int | None = None

    def describe(self) -> str:
        length = f" with at least {self.minimum}" if self.minimum else ""
        length = length if self.exactly is None else f" of {self.exactly}"
        return f"a list{length} (each entry {self.entry.describe()})"

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, list) or not self._has_length(len(value)):
            yield self.wrong(value, path)
            return
        for position, entry in enumerate(value):
            yield from self.entry.problems(entry, (*path, str(position)))

    def _has_length(self, length: int) -> bool:
        return length >= self.minimum if self.exactly is None else length == self.exactly

    def parse(self, text: str) -> Any:
        if text.lstrip().startswith("["):
            return json.loads(text)
        # A comma at the end adds no entry: "a," is the list of "a" alone.
        return [self.entry.parse(part) for part in text.removesuffix(",").split(",")]


@dataclass(frozen=True)
class OrAuto(Kind):
    """ "auto", or a value of another kind."""

    inner: Kind

    def describe(self) -> str:
        return f'"{AUTO}" or {self.inner.describe()}'

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        if isinstance(value, list):
            yield from self.inner.problems(value, path)
        elif value != AUTO:
            yield self.wrong(value, path)

    def parse(self, text: str) -> Any:
        return AUTO if text == AUTO else self.inner.parse(text)


@dataclass(frozen=True)
class Nullable(Kind):
    """A simple kind, or null (null or none on the command line)."""

    kind: Kind

    def describe(self) -> str:
        return f"{self.kind.describe()} or null"

    def accepts(self, value: Any) -> bool:
        return value is None or self.kind.accepts(value)

    def fault(self, value: Any) -> str:
        return self.kind.fault(value)

    def parse(self, text: str) -> Any:
        return None if text.lower() in ("null", "none") else self.kind.parse(text)


@dataclass(frozen=True)
class WithoutEffect(Kind):
    """A key of published configs that does nothing; its value still has to be of the kind."""

    kind: Kind

    def describe(self) -> str:
        return self.kind.describe()

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        yield from self.kind.problems(value, path)

    def parse(self, text: str) -> Any:
        return self.kind.parse(text)


@dataclass(frozen=True)
class Anything(Kind):
    """Any value that JSON can hold: settings that are checked where they are used."""

    def describe(self) -> str:
        return "a value that JSON can hold, with finite numbers and printable texts"

    def accepts(self, value: Any) -> bool:
        if isinstance(value, dict):
            return all(Str().accepts(k) and self.accepts(v) for k, v in value.items())
        if isinstance(value, list):
            return all(self.accepts(entry) for entry in value)
        if isinstance(value, str):
            return Str().accepts(value)
        return value is None or isinstance(value, bool) or Float().accepts(value)

    def parse(self, text: str) -> Any:
        if text.lower() in _CONSTANTS:
            return _CONSTANTS[text.lower()]
        for read in (json.loads, Float().parse):
            try:
                return read(text)
            except ValueError:
                continue
        return text


class Dict(Kind):
    """A dict whose keys are names."""

    @abstractmethod
    def kind_of(self, name: str) -> Kind | None:
        """Return the kind of value that belongs at a key, None where there is no such key."""

    def describe(self) -> str:
        return "a dict"

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield self.wrong(value, path)
            return
        for name, entry in value.items():
            if not FilePath().accepts(name):
                place = f'"{name_of(path)}"' if path else "the config"
                yield Problem(path, f"a key in {place} cannot be one: {shown(name)}")
                return
            key = (*path, name)
            kind = self.kind_of(name)
            if kind is None:
                yield Problem(key, f'there is no key "{name_of(key)}"', unknown=True)
            else:
                yield from kind.problems(entry, key)


@dataclass(frozen=True)
class MapOf(Dict):
    """A dict from names that the user chose (of experts, of sizes) to values of one kind."""

    entry: Kind

    def kind_of(self, name: str) -> Kind:
        return self.entry


@dataclass(frozen=True)
class Section(Dict):
    """A dict of known keys, each with its kind; `others` is the kind of any further key.

    With `or_false` it may be false, to do without it.
    """

    keys: Mapping[str, Kind]
    others: Kind | None = None
    or_false: bool = False

    def describe(self) -> str:
        return "a dict or false" if self.or_false else super().describe()

    def kind_of(self, name: str) -> Kind | None:
        return self.keys.get(name, self.others)

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        return iter(()) if self.or_false and value is False else super().problems(value, path)

    def parse(self, text: str) -> Any:
        return False if self.or_false and text.lower() == "false" else super().parse(text)


def name_of(path: KeyPath) -> str:
    """Name a key for people to read: the dots of an expert's name stay as they are."""
    return ".".join(short(part) for part in path)


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond the largest float
        return False
