"""Reading config files: JSON with `"inherit_from": "a.json,b.json"`."""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.config_kinds import is_too_deep, printable, shown
from utils.config_types import drop_args_of_other_types
from utils.errors import UserError, did_you_mean
from utils.files import read_json

INHERIT = "inherit_from"

_REPOSITORY = Path(__file__).resolve().parents[1]


def resolve_config(path: str | Path) -> dict[str, Any]:
    """Read a config with all that it inherits, to the values that zsvision's loader gives.

    Parents are named in order of increasing weight, and a child outweighs its parents: dicts are
    merged key by key, any other value is replaced. The key `inherit_from` itself is left out. A new
    type of a part leaves out inherited args that belong to the old one (`utils.config_types`).

    Raises:
        UserError: a file is missing, is not a JSON dict, or inherits from itself.
    """
    *ancestors, values = drop_args_of_other_types(_lineage(_find(path), ()))
    # From the last to the first, as zsvision folds them: where a dict meets another kind of value
    # the result depends on the order of merging.
    for ancestor in reversed(ancestors):
        values = _over(ancestor, values)
    values.pop(INHERIT, None)
    return copy.deepcopy(values)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` over it; neither is changed."""
    return copy.deepcopy(_over(below, above))


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge without copying what only one of the two has."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _over(merged[key], value)
        else:
            merged[key] = value
    return merged


def _lineage(path: Path, children: tuple[Path, ...]) -> list[dict[str, Any]]:
    """List the configs that `path` inherits from, each after its own parents, and `path` last."""
    seen = [child.resolve() for child in children]
    if path.resolve() in seen:
        loop = " -> ".join(str(p) for p in (*children[seen.index(path.resolve()) :], path))
        raise UserError(f'Configs inherit from each other in a loop ("{INHERIT}"): {loop}.')
    values = read_json(path, "config")
    if not isinstance(values, dict):
        raise UserError(f"The config {path} must hold a JSON dict ({{...}}) at its top level.")
    if is_too_deep(values):
        raise UserError(
            f"The config {path} has dicts and lists nested deeper than those of any config."
        )
    lineage = []
    for parent in _parents(values, path):
        lineage += _lineage(parent, (*children, path))
    return [*lineage, values]


def _parents(values: dict[str, Any], path: Path) -> list[Path]:
    if INHERIT not in values:
        return []
    names = values[INHERIT]
    if not isinstance(names, str) or not all(name.strip() for name in names.split(",")):
        raise UserError(
            f'In the config {path}, "{INHERIT}" must name files, separated by commas ("a.json" '
            f'or "a.json,b.json"), not {shown(names)}.'
        )
    return [_find(name.strip(), child=path) for name in names.split(",")]


def _find(name: str | Path, child: Path | None = None) -> Path:
    """Find a config file: from the working directory; a parent also beside its child or here."""
    folders = [Path()] if child is None else [Path(), child.parent, _REPOSITORY]
    for folder in folders:
        if _exists(folder / name):
            return folder / name
    hint = did_you_mean(str(name), _names_nearby(Path(name), folders))
    missing = printable(str(name))
    if child is None:
        raise UserError(f"The config {missing} does not exist{hint}.")
    looked = "the working directory, the config's own folder and the repository"
    raise UserError(
        f"The config {child} inherits from {missing}, which does not exist in {looked}{hint}."
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True  # reading it will say what is wrong
    except (OSError, ValueError):
        return False  # no name that a file can have


def _names_nearby(name: Path, folders: list[Path]) -> list[str]:
    """Config files that the user may have meant: in the folder named, and under `configs/`."""
    found = set()
    with suppress(OSError, ValueError):  # no name that a folder can have
        found = {str(p) for folder in folders for p in (folder / name).parent.glob("*.json")}
    for depth in ("*.json", "*/*.json"):
        found |= {str(path) for path in Path("configs").glob(depth)}
    return sorted(found)
