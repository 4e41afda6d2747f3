"""Args that stay and args that go where a config gives an inherited part another type."""

from itertools import pairwise
from typing import Any

# Args of parts whose types take different ones: those that the types share. Other parts have one
# type, or types that let be what is not theirs.
SHARED_ARGS: dict[str, set[str]] = {
    "optimizer": {"lr", "weight_decay"},
    "lr_scheduler": set(),
    "loss": set(),
}
# The one optimizer that lacks a shared arg.
_LACKING = {"Rprop": {"weight_decay"}}


def drop_args_of_other_types(lineage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return configs without the args that a later one of them has no use for.

    Args:
        lineage: configs in order of increasing weight. Where one of them gives a part another type
            than those before it, their args of that part go, but for those that its types share.
    """
    kept = list(lineage)
    for part in SHARED_ARGS:
        kinds = [_kind_in(values, part) for values in lineage]
        known = [(place, kind) for place, kind in enumerate(kinds) if kind is not None]
        changes = [after for before, after in pairwise(known) if before[1] != after[1]]
        if changes:
            place, kind = changes[-1]
            kept[:place] = [without_args(values, part, kind) for values in kept[:place]]
    return kept


def without_args(values: dict[str, Any], part: str, kind: str) -> dict[str, Any]:
    """Return a config without the args of a part that only types other than `kind` take."""
    section = values.get(part)
    if not isinstance(section, dict) or not isinstance(section.get("args"), dict):
        return values
    stays = SHARED_ARGS[part] - _LACKING.get(kind, set())
    args = {name: value for name, value in section["args"].items() if name in stays}
    return {**values, part: {**section, "args": args}}


def _kind_in(values: dict[str, Any], part: str) -> str | None:
    section = values.get(part)
    kind = section.get("type") if isinstance(section, dict) else None
    return kind if isinstance(kind, str) else None
