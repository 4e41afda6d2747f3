"""The guide to `dataset.json` and to features names what the readers know, and no more."""

import json
import re
from typing import Any, ClassVar

import pytest

from data_loader.formats.layouts import FEATURE_READERS
from data_loader.sets.description import DescriptionReader, parse_description
from tests.conftest import ROOT
from utils.errors import UserError

TEXT = (ROOT / "data_loader" / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w.*]+)` \| .* \| `(.+)` \|$", re.MULTILINE)
EXAMPLES = {key: json.loads(value) for key, value in ROW.findall(TEXT)}
SMALLEST = json.loads(re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)[1])  # type: ignore[index]


class Noting(DescriptionReader):
    """Notes every key that the reader knows."""

    known: ClassVar[set[str]] = set()

    def mapping(
        self, value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        place = re.sub(r"^(\w+)\.\w+$", r"\1.*", where)
        self.known.update(f"{place}.{key}".lstrip(".") for key in (*required, *optional))
        return super().mapping(value, where, required, optional)


def test_every_key_is_documented_with_an_example_that_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from data_loader.sets import description

    monkeypatch.setattr(description, "DescriptionReader", Noting)
    Noting.known = set()
    for key, example in EXAMPLES.items():
        value = json.loads(json.dumps(SMALLEST))
        *path, last = key.split(".")
        inner = value
        for name in path:
            inner = inner[next(iter(inner)) if name == "*" else name]
        if key == "text_features.*.file":
            del inner["word_vectors"]
        if key == "experts.*.parts":
            del inner["file"]
        elif last.startswith("parts"):
            inner.pop("word_vectors")
            inner |= {"file": "text.pkl", "parts": ["a.pkl"]}
        inner[last] = example
        parse_description(value, ROOT / "dataset.json")
        with pytest.raises(UserError, match="no entry"):
            inner[f"{last}x"] = example
            parse_description(value, ROOT / "dataset.json")
    known = {key for key in Noting.known if not re.search(r"\.(train|val|expected)\.", key)}
    assert known == set(EXAMPLES)


def test_every_ending_is_documented() -> None:
    table = TEXT[TEXT.index("| ending |") : TEXT.index("## Text features")]
    endings = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    assert set(re.findall(r"`(\.\w+)`", " ".join(endings))) == set(FEATURE_READERS)
