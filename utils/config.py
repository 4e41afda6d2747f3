"""The config of an experiment: JSON with `"inherit_from": "a.json,b.json"`, read and checked."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.config_kinds import LONGEST_NAME, KeyPath, Kind, is_too_deep, shown, split_key
from utils.config_schema import check, drop_args_of_other_types
from utils.custom_args import apply_overrides, name_suffix, parse_custom_args
from utils.errors import UserError, did_you_mean, is_writable, short
from utils.files import read_json, write_json

# In the config stored beside a checkpoint: the experiment's name, which its path no longer tells.
NAME_KEY = "experiment_name"

INHERIT = "inherit_from"
_REPOSITORY = Path(__file__).resolve().parents[1]

_MISSING = object()


class Config:
    """Checked values of one experiment, by dotted keys.

    Attributes:
        values: the nested dict, as JSON holds it.
        name: name of the experiment; its results lie in folders of that name.

    Keys may be given in parts: `config["arch"]`, `config["arch.args.use_ce"]`,
    `config.get("trainer.early_stop")`. A dot inside a part is written "_.".
    """

    def __init__(self, values: dict[str, Any], name: str, where: str) -> None:
        check(values, where)
        _check_name(name, where)
        self.values = copy.deepcopy(values)
        self.values.pop(NAME_KEY, None)
        self.name = name
        self._where = where

    @classmethod
    def from_file(cls, path: str | Path, custom_args: str | None = None) -> "Config":
        """Read a config file, apply the overrides of the command line, and check the result.

        The experiment is named `<folder of the file>-<stem of the file>`, with a suffix for each
        override. A config that `save` wrote keeps the name it had.

        Raises:
            UserError: a file cannot be used, or a key or value is wrong.
        """
        path = find_config(path)
        values = resolve_config(path)
        own_name = read_json(path, "config").get(NAME_KEY)  # not that of a config it inherits from
        config = cls(values, own_name or config_name(path), f"In the config {short(path, 200)}")
        return config.with_custom_args(custom_args)

    @classmethod
    def from_dict(cls, values: dict[str, Any], name: str | None = None) -> "Config":
        """Make a config of values at hand: in a test or notebook, or of a checkpoint.

        Without `name`, values that `stored` gave keep the name they had.
        """
        given = name or (values.get(NAME_KEY) if isinstance(values, dict) else None) or "config"
        return cls(values, str(given), f'In the config "{short(given, 200)}"')

    def with_custom_args(self, custom_args: str | None) -> "Config":
        """Return this config with overrides such as "trainer.epochs@3+optimizer.args.lr@0.01"."""
        overrides = parse_custom_args(custom_args or "")
        values = apply_overrides(self.values, overrides)
        name = values.get(NAME_KEY, self.name + name_suffix(overrides))
        return Config(values, name, self._where)

    def merged(self, overrides: dict[str, Any]) -> "Config":
        """Return this config with `overrides` over it: dicts are merged, the rest is replaced."""
        return Config(merge(self.values, overrides), self.name, self._where)

    def eval_config(self) -> "Config":
        """Return the config of the final test: `eval_settings`, if there are any, over the rest."""
        return self.merged(self.values.get("eval_settings") or {})

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value at a dotted key, or `default` where the config does not have it."""
        found: Any = self.values
        for part in split_key(key):
            found = found.get(part, _MISSING) if isinstance(found, dict) else _MISSING
        return default if found is _MISSING else found

    def __getitem__(self, key: str) -> Any:
        """Return the value at a dotted key.

        Raises:
            UserError: the config does not have that key.
        """
        found = self.get(key, _MISSING)
        if found is _MISSING:
            raise UserError(f'{self._where}: the key "{key}" is missing, but it is needed.')
        return found

    def require(self, keys: Iterable[str]) -> None:
        """Refuse a config that lacks one of the dotted keys.

        Raises:
            UserError: names all that are missing.
        """
        missing = [f'"{key}"' for key in keys if key not in self]
        if len(missing) > 1:
            raise UserError(
                f"{self._where}: the keys {', '.join(missing)} are missing, but they are needed."
            )
        for key in keys:
            self[key]

    def check(self, kinds: Mapping[str, Kind]) -> None:
        """Refuse values that are not of the kinds given for their dotted keys, where they stand.

        The same keys of `eval_settings` are checked as well.

        Raises:
            UserError: names the key, what was expected and the nearest known name.
        """
        for above in ("", "eval_settings."):
            for key, kind in kinds.items():
                value = self.get(above + key, _MISSING)
                if value is _MISSING:
                    continue
                for problem in kind.problems(value, split_key(above + key)):
                    raise UserError(f"{self._where}: {problem.sentence}.")

    def __contains__(self, key: str) -> bool:
        return self.get(key, _MISSING) is not _MISSING

    def stored(self) -> dict[str, Any]:
        """Return the values with the experiment's name: all there is to make this config again."""
        return {**copy.deepcopy(self.values), NAME_KEY: self.name}

    def save(self, path: str | Path) -> None:
        """Write the config, so that the folder of a run is enough to make it again."""
        write_json(path, self.stored())


def config_name(path: str | Path) -> str:
    """Name the experiment of a config file after its folder and its stem."""
    path = Path(path).absolute()
    return f"{path.parent.name}-{path.stem}"


def _check_name(name: str, where: str) -> None:
    fault = ""
    if not is_writable(name, in_one_line=True):
        fault = "holds a control character or half a surrogate pair"
    elif any(len(part.encode()) > LONGEST_NAME for part in name.split("/")):
        fault = f"is longer than the {LONGEST_NAME} bytes that the name of a folder may have"
    if fault:
        raise UserError(
            f'{where}: the experiment\'s name "{short(name, 200)}" {fault}: set "{NAME_KEY}", or '
            "rename the config or its folder."
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the dotted keys at which two configs have different values."""
    return [".".join(path) for path in differing_paths(old, new)]


def differing_paths(
    old: Mapping[str, Any], new: Mapping[str, Any], above: KeyPath = ()
) -> Iterator[KeyPath]:
    """Walk the keys at which two configs have different values."""
    for key in [*old, *(key for key in new if key not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from differing_paths(a, b, (*above, key))
        elif key not in old or key not in new or a != b:
            yield (*above, key)


def resolve_config(path: str | Path) -> dict[str, Any]:
    """Read a config with all that it inherits, to the values that zsvision's loader gives.

    Parents are named in order of increasing weight, and a child outweighs its parents: dicts are
    merged key by key, any other value is replaced. The key `inherit_from` itself is left out, and
    so are inherited args of a part's old type (`drop_args_of_other_types`).

    Raises:
        UserError: a file is missing, is not a JSON dict, or inherits from itself.
    """
    *ancestors, values = drop_args_of_other_types(_lineage(find_config(path), ()))
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
    return [find_config(name.strip(), child=path) for name in names.split(",")]


def find_config(name: str | Path, child: Path | None = None) -> Path:
    """Find a config file: from the working directory, a parent also beside its child, or here.

    Raises:
        UserError: there is none; says which name is nearest.
    """
    folders = [Path(), *([] if child is None else [child.parent]), _REPOSITORY]
    for folder in folders:
        if _exists(folder / name):
            return folder / name
    hint = did_you_mean(str(name), _names_nearby(Path(name), folders))
    missing = short(name, 200)
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
    for root in (Path(), _REPOSITORY):
        for depth in ("configs/*.json", "configs/*/*.json"):
            found |= {str(path.relative_to(root)) for path in root.glob(depth)}
    return sorted(found)
