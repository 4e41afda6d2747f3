"""The table of experts and the presets; an expert is one row."""

import re
from dataclasses import dataclass

from misc.extract_experts.expert import Row
from misc.extract_experts.experts import builtin, hub, wheels
from utils.errors import UserError, did_you_mean

ROWS: dict[str, Row] = {row.name: row for row in (*builtin.ROWS, *wheels.ROWS, *hub.ROWS)}

# Preset -> experts, each as --experts takes it.
PRESETS: dict[str, tuple[str, ...]] = {
    "built-in": tuple(row.name for row in builtin.ROWS),
    "offline": (*wheels.PRESET, "motion"),
    "classic": hub.CLASSIC,
    "strong": hub.STRONG,
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Wanted:
    """An expert that somebody asks for.

    Attributes:
        name: of the expert in the data set.
        row: of the table.
        model: that follows the colon, empty where none stands.
    """

    name: str
    row: Row
    model: str = ""

    @property
    def spec(self) -> str:
        return f"{self.name}={self.row.name}" + (f":{self.model}" if self.model else "")


def wanted_expert(spec: str) -> Wanted:
    """Read `NAME=ROW`, `NAME=ROW:MODEL`, or the name of a row alone.

    Raises:
        UserError: there is no such row, or it asks for a model.
    """
    name, equals, rest = spec.partition("=")
    row_name, _, model = (rest if equals else spec).partition(":")
    if not equals:
        name = row_name
    if not _NAME.fullmatch(name):
        raise UserError(
            "An expert is asked for as NAME=ROW:MODEL, such as image=timm:resnet50.a1_in1k, not "
            f'"{spec}".'
        )
    if row_name not in ROWS:
        raise UserError(
            f'There is no expert "{row_name}"{did_you_mean(row_name, ROWS)}: known are '
            f"{', '.join(ROWS)}."
        )
    row = ROWS[row_name]
    if row.needs_model and not model:
        raise UserError(f'The expert "{spec}" lacks a model: write {name}={row_name}:MODEL.')
    return Wanted(name, row, model)
