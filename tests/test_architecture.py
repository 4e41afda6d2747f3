"""The rooms of the house: each uses only rooms on floors below its own."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLOORS = {
    "model": 0,
    "data_loader": 0,
    "logger": 1,
    "utils": 1,
    "trainer": 2,
    "misc": 3,
    "train": 4,
    "test": 4,
}
# Of the lowest floor, numbers and names need its errors and its way of writing files; no more.
LENT_TO_FLOOR_1 = {"data_loader.errors", "data_loader.files"}


def source_files() -> list[Path]:
    rooms = [ROOT / room for room in FLOORS]
    return [f for room in rooms if room.is_dir() for f in sorted(room.rglob("*.py"))] + [
        ROOT / "train.py",
        ROOT / "test.py",
    ]


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", source_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_uses_only_its_own_room_and_the_floors_below(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for module in imported_modules(path):
        other = module.split(".")[0]
        if other not in FLOORS or other == room:
            continue
        assert FLOORS[other] < FLOORS[room], f"{path} imports {module}"
        if FLOORS[room] == 1:
            assert module in LENT_TO_FLOOR_1, f"{path} imports {module}"
