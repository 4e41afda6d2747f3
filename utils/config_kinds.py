"""What a value in a config may be: kinds that check a value, describe themselves, and read text."""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from data_loader.errors import did_you_mean

KeyPath = tuple[str, ...]

_SHOWN_CHARACTERS = 60
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


def split_key(text: str) -> KeyPath:
    """Split "a.b_.c" into its parts ("a", "b.c"): "_." is a dot inside a part."""
    return tuple(part.replace("_.", ".") for part in re.split(r"(?<!_)\.", text))


def join_key(path: KeyPath) -> str:
    """Undo `split_key`."""
    return ".".join(part.replace(".", "_.") for part in path)


def shown(value: Any) -> str:
    """Show a wrong value in an error message, shortened."""
    text = json.dumps(value, default=repr, ensure_ascii=False)
    text = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return f"the string {text}" if isinstance(value, str) else text


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
        sentence = f'"{_name(path)}" must be {self.describe()}, not {shown(value)}'
        return Problem(path, sentence)

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
    """A whole number."""

    what: ClassVar[str] = "a whole number"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, int) and super().accepts(value)


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
        is_text = isinstance(value, str)
        return is_text and (self.pattern is None or bool(re.fullmatch(self.pattern, value)))

    def parse(self, text: str) -> Any:
        # A text in quotes is read as JSON: the way to give a string that begins with a quote.
        quoted = len(text) > 1 and text.startswith('"') and text.endswith('"')
        return json.loads(text) if quoted else text


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
        if isinstance(value, str) and value in self.refused:
            return Problem(path, f'"{_name(path)}" cannot be "{value}": {self.refused[value]}')
        hint = did_you_mean(value, self.choices) if isinstance(value, str) else ""
        return Problem(path, super().wrong(value, path).sentence + hint)

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
class Nullable(Kind):
    """A simple kind, or null (null or none on the command line)."""

    kind: Kind

    def describe(self) -> str:
        return f"{self.kind.describe()} or null"

    def accepts(self, value: Any) -> bool:
        return value is None or self.kind.accepts(value)

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
class FalseOr(Kind):
    """A section, or false to do without it."""

    kind: "Section"

    def describe(self) -> str:
        return f"{self.kind.describe()} or false"

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        if isinstance(value, dict):
            yield from self.kind.problems(value, path)
        elif value is not False:
            yield self.wrong(value, path)

    def parse(self, text: str) -> Any:
        return json.loads(text.lower() if text.lower() == "false" else text)


@dataclass(frozen=True)
class Anything(Kind):
    """Any value that JSON can hold: settings that are checked where they are used."""

    def describe(self) -> str:
        return "a value that JSON can hold, with finite numbers"

    def accepts(self, value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(k, str) and self.accepts(v) for k, v in value.items())
        if isinstance(value, list):
            return all(self.accepts(entry) for entry in value)
        if isinstance(value, float):
            return math.isfinite(value)
        return value is None or isinstance(value, str | int)

    def parse(self, text: str) -> Any:
        if text.lower() in _CONSTANTS:
            return _CONSTANTS[text.lower()]
        for read in (json.loads, Float().parse):
            try:
                return read(text)
            except ValueError:
                continue
        return text


@dataclass(frozen=True)
class MapOf(Kind):
    """A dict from names that the user chose (of experts, of sizes) to values of one kind."""

    entry: Kind

    def describe(self) -> str:
        return "a dict"

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield self.wrong(value, path)
            return
        for name, entry in value.items():
            yield from self.entry.problems(entry, (*path, name))


@dataclass(frozen=True)
class Section(Kind):
    """A dict of known keys, each with its kind; `others` is the kind of any further key."""

    keys: Mapping[str, Kind]
    others: Kind | None = None

    def describe(self) -> str:
        return "a dict"

    def problems(self, value: Any, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield self.wrong(value, path)
            return
        for name, entry in value.items():
            kind = self.keys.get(name, self.others)
            if kind is None:
                key = (*path, name)
                yield Problem(key, f'there is no key "{_name(key)}"', unknown=True)
            else:
                yield from kind.problems(entry, (*path, name))


def _name(path: KeyPath) -> str:
    # For people to read: the dots of an expert's name stay as they are.
    return ".".join(path)


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond the largest float
        return False
