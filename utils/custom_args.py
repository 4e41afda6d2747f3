"""Overrides from the command line: `--custom_args "key.sub@value+key2@value2"`, or with "="."""

import copy
import re
from dataclasses import dataclass
from typing import Any

from utils.config_kinds import (
    AUTO,
    KeyPath,
    Kind,
    MapOf,
    is_too_deep,
    join_key,
    shown,
    split_key,
)
from utils.config_schema import drop_args_of_other_types, kind_at, nearest_key
from utils.errors import UserError, did_you_mean, is_writable, short
from utils.files import safe_name

FORM = '"key.sub@value+key2@value2"'

# Not the plus of 1e+3, nor one that "_" sets apart.
_SEPARATOR = r"(?<!_)(?:(?<![0-9][eE])\+|\+(?![0-9]))"
_SUFFIX_CHARACTERS = 40
_SUFFIXES_CHARACTERS = 150


@dataclass(frozen=True)
class Override:
    """One `key@value` or `key=value`; `text` is the value as it was given."""

    path: KeyPath
    text: str

    @property
    def key(self) -> str:
        return join_key(self.path)


def parse_custom_args(text: str) -> list[Override]:
    """Split the text of `--custom_args`; an empty text has no overrides.

    A dot inside a key is written "_.", a plus inside a value "_+" (the plus of 1e+3 needs none).

    Raises:
        UserError: an override has neither "@" nor "=", or no key, or a key is given twice.
    """
    if not is_writable(
        re.sub(r"\s", " ", text), in_one_line=True
    ):  # lines of a script may be broken anywhere
        raise UserError(
            f'--custom_args holds a control character or half a surrogate pair: "{_shown(text)}".'
        )
    overrides: list[Override] = []
    for part in re.split(_SEPARATOR, text) if text.strip() else ():
        key, *rest = re.split("[@=]", part.replace("_+", "+"), maxsplit=1)
        if not rest or not all(split_key(key.strip())):
            raise UserError(f'--custom_args: "{_shown(part)}" is not of the form {FORM}.')
        override = Override(split_key(key.strip()), rest[0].strip())
        if override.path in [other.path for other in overrides]:
            raise UserError(f'--custom_args: the key "{_shown(override.key)}" is given twice.')
        overrides.append(override)
    return overrides


def apply_overrides(values: dict[str, Any], overrides: list[Override]) -> dict[str, Any]:
    """Return config `values` with the overrides, read as the kinds that their keys want.

    An override replaces the whole value at its key, a dict included. A new type of a part leaves
    out args that belong to the old one (`drop_args_of_other_types`).

    Raises:
        UserError: there is no such key, or the text is no value for it.
    """
    values = copy.deepcopy(values)
    for override in sorted(overrides, key=_order):
        value = _read(override)
        if override.path[1:] == ("type",):
            values = drop_args_of_other_types([values, {override.path[0]: {"type": value}}])[0]
        _check_expert(override, values)
        _dict_at(override, values)[override.path[-1]] = value
    return values


def name_suffix(overrides: list[Override]) -> str:
    """Return what the overrides add to the experiment's name: `-<last part of key>_<value>` each.

    It is safe in file names, and other values give another name.
    """
    parts = [f"{o.path[-1]}_{o.text}" for o in overrides]
    suffix = "".join(f"-{safe_name(part, _SUFFIX_CHARACTERS)}" for part in parts)
    return safe_name(suffix, _SUFFIXES_CHARACTERS)


def _shown(text: str) -> str:
    return short(text, 200)


def _read(override: Override) -> Any:
    kind = _kind_of(override)
    try:
        value = kind.parse(override.text)
    except (ValueError, RecursionError):
        value = override.text  # not even the form is right: the check below says what is
    if is_too_deep(value):
        raise UserError(
            f'--custom_args: the value of "{_shown(override.key)}" is nested deeper than any '
            "value of a config."
        )
    for problem in kind.problems(value, override.path):
        hint = nearest_key(problem.path, join_key) if problem.unknown else ""
        raise UserError(f"--custom_args: {problem.sentence}{hint}.")
    return value


def _kind_of(override: Override) -> Kind:
    kind: Kind | None = None
    for length in range(1, len(override.path) + 1):
        start = override.path[:length]
        kind = kind_at(start)
        if kind is None:
            hint = nearest_key(start, join_key)
            raise UserError(f'--custom_args: there is no key "{_shown(join_key(start))}"{hint}.')
    assert kind is not None  # a key has at least one part
    return kind


def _order(override: Override) -> tuple[bool, bool]:
    """Experts come first, as their names are known keys of other dicts, and types before args."""
    return override.path[0] != "experts", override.path[1:] != ("type",)


def _dict_at(override: Override, values: dict[str, Any]) -> dict[str, Any]:
    """Walk to the dict that holds the override's key, adding those on the way that are missing."""
    for depth, part in enumerate(override.path[:-1], start=1):
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(
                f'--custom_args: "{_shown(override.key)}" cannot be set, because '
                f'"{join_key(override.path[:depth])}" is {shown(values)} in this config.'
            )
    return values


def _check_expert(override: Override, values: dict[str, Any]) -> None:
    """Refuse a new name in a dict by expert unless it is one of the config's experts, or text."""
    experts = values.get("experts", {}).get("modalities", [])
    if experts == AUTO:
        return  # the data set, which is not open yet, tells its experts
    held: Any = values
    for depth, name in enumerate(override.path):
        held = held if isinstance(held, dict) else {}
        known = [*held, *experts, "text"]
        if isinstance(kind_at(override.path[:depth]), MapOf) and name not in known:
            raise UserError(
                f'--custom_args: "{_shown(override.key)}" names "{_shown(name)}", which is '
                f"no expert of this config{did_you_mean(name, known)}."
            )
        held = held.get(name)
