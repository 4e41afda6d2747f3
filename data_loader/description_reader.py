"""Reads the parts of a description, and names the place of whatever is wrong in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_loader.content import short
from data_loader.description_entries import (
    Counts,
    ExpertEntry,
    ListEntry,
    SplitEntry,
    TextEntry,
)
from data_loader.errors import UserError, did_you_mean, is_writable

_LONGEST_NAME = 255
_LARGEST_COUNT = 1_000_000_000


class DescriptionReader:
    """Reads the parts of a description and names the place of whatever is wrong."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def fail(self, where: str, problem: str) -> UserError:
        place = f' at "{where}"' if where else ""
        return UserError(f"The data set description {self.source} is not valid{place}: {problem}.")

    def mapping(
        self, value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(where, "it must be an object with named entries")
        known = (*required, *optional)
        for key in value:
            if key not in known:
                hint = did_you_mean(key[:_LONGEST_NAME], known)
                raise self.fail(
                    where, f'there is no entry "{short(key)}"{hint}; known are {", ".join(known)}'
                )
        for key in required:
            if key not in value:
                raise self.fail(where, f'the entry "{key}" is missing')
        return value

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value:
            raise self.fail(where, "it must be a non-empty text")
        if not is_writable(value):
            raise self.fail(where, "it holds a character that no file can hold")
        return value

    def name(self, value: str, where: str) -> str:
        if len(self.text(value, where)) > _LONGEST_NAME:
            raise self.fail(where, f"a name must have at most {_LONGEST_NAME} characters")
        return value

    def text_or_none(self, entry: dict[str, Any], key: str, where: str) -> str | None:
        return self.text(entry[key], _place(where, key)) if key in entry else None

    def flag(self, entry: dict[str, Any], key: str, where: str) -> bool:
        value = entry.get(key, False)
        if not isinstance(value, bool):
            raise self.fail(_place(where, key), "it must be true or false")
        return value

    def texts(self, value: Any, where: str) -> list[str]:
        if not isinstance(value, list):
            raise self.fail(where, "it must be a list of texts")
        return [self.text(item, where) for item in value]

    def files(self, value: Any, where: str) -> tuple[str, ...]:
        """One file name, or several names under which the same file is known."""
        if isinstance(value, list) and value:
            return tuple(self.texts(value, where))
        return (self.text(value, where),)

    def size(self, value: Any, where: str) -> int | None:
        return None if value is None else self.count(value, where)

    def count(self, value: Any, where: str) -> int:
        if type(value) is not int or value < 1:
            raise self.fail(where, "it must be a whole number of at least 1")
        if value > _LARGEST_COUNT:
            raise self.fail(where, f"it must be at most {_LARGEST_COUNT}")
        return value

    def entries(self, value: Any, where: str, read: Callable[[Any, str], Any]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(where, "it must be an object with named entries")
        return {
            self.name(name, f"{where}.{name[:_LONGEST_NAME]}"): read(entry, f"{where}.{name}")
            for name, entry in value.items()
        }

    def expert(self, value: Any, where: str) -> ExpertEntry:
        entry = self.mapping(value, where, ("file",), ("size", "variable_length"))
        return ExpertEntry(
            files=self.files(entry["file"], f"{where}.file"),
            size=self.size(entry.get("size"), f"{where}.size"),
            variable_length=self.flag(entry, "variable_length", where),
        )

    def text_feature(self, value: Any, where: str) -> TextEntry:
        optional = ("file", "word_vectors", "size", "parts", "parts_key_mapping")
        entry = self.mapping(value, where, (), optional)
        if ("file" in entry) == ("word_vectors" in entry):
            raise self.fail(where, 'it must have either "file" or "word_vectors"')
        kind = "file" if "file" in entry else "word_vectors"
        for key, beside in (("parts", "file"), ("parts_key_mapping", "parts")):
            if key in entry and beside not in entry:
                raise self.fail(f"{where}.{key}", f'it may stand only beside "{beside}"')
        return TextEntry(
            files=self.files(entry[kind], f"{where}.{kind}"),
            size=self.size(entry.get("size"), f"{where}.size"),
            is_word_vectors=kind == "word_vectors",
            parts=tuple(self.texts(entry.get("parts", []), f"{where}.parts")),
            parts_key_mapping=self.text_or_none(entry, "parts_key_mapping", where),
        )

    def split(self, value: Any, where: str) -> SplitEntry:
        optional = ("experts", "test_caption_index", "challenge_test", "expected")
        entry = self.mapping(value, where, ("train", "val"), optional)
        return SplitEntry(
            train=self.id_list(entry["train"], f"{where}.train"),
            val=self.id_list(entry["val"], f"{where}.val"),
            experts=self.entries(entry.get("experts", {}), f"{where}.experts", self.expert),
            test_caption_index=self.text_or_none(entry, "test_caption_index", where),
            challenge_test=self.flag(entry, "challenge_test", where),
            expected=self.counts(entry["expected"], f"{where}.expected")
            if "expected" in entry
            else None,
        )

    def counts(self, value: Any, where: str) -> Counts:
        entry = self.mapping(value, where, ("videos", "queries"))
        return Counts(**{key: self.count(entry[key], f"{where}.{key}") for key in entry})

    def id_list(self, value: Any, where: str) -> ListEntry:
        if isinstance(value, str):
            return ListEntry(self.text(value, where))
        entry = self.mapping(value, where, ("file", "key"))
        return ListEntry(
            self.text(entry["file"], f"{where}.file"), self.text(entry["key"], f"{where}.key")
        )


def _place(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
