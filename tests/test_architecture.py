"""The rooms of the house: each uses only rooms on floors below its own."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A room stands on the ground (0) or above all that it may use; within `data_loader` it is the same.
FLOORS = {
    "utils": 0,
    "model": 0,
    "data_loader.formats": 1,
    "data_loader.sets": 2,
    "data_loader.store": 3,
    "data_loader.teachers": 4,
    "data_loader": 5,
    "logger.page": 1,
    "logger": 5,
    "trainer.checkpoints": 6,
    "trainer.optimisation": 6,
    "trainer.processes": 6,
    "trainer.recipe": 6,
    "trainer.runs": 7,
    "trainer.evaluation": 7,
    "trainer.rankings": 8,
    "trainer": 9,
    "misc": 10,
    "train": 11,
    "test": 11,
}
# Rooms beside one another, of which neither knows the other.
STRANGERS = [("data_loader", "logger"), ("data_loader", "model"), ("logger", "model")]


def source_files() -> list[Path]:
    rooms = [ROOT / room for room in FLOORS if "." not in room]
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


def room_of(module: str) -> str:
    """The room that a module lies in: the longest name in the table that it begins with."""
    inside = [room for room in FLOORS if f"{module}.".startswith(f"{room}.")]
    return max(inside, key=len, default="")


@pytest.mark.parametrize("path", source_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_uses_only_its_own_room_and_the_floors_below(path: Path) -> None:
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imported_modules(path):
        other = room_of(module)
        if not other or other == room:
            continue
        assert FLOORS[other] < FLOORS[room], f"{path} imports {module}"
        pair = (room.split(".")[0], other.split(".")[0])
        assert pair not in STRANGERS and pair[::-1] not in STRANGERS, f"{path} imports {module}"
