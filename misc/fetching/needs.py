"""Which configs of this repository need an archive, from what they read and what it holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loader.sets.layout import aggregated
from misc.fetching import catalogue
from utils.config import config_name, merge, resolve_config
from utils.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_CHALLENGE = "challenge"
_PART_NAMES = ("base_", "data_loader_")


@dataclass(frozen=True)
class Need:
    """A config that needs an archive.

    Attributes:
        config: the config file.
        also: other releases whose archives it needs too.
        unknown: whether only the data set's name says so, as the archive's contents are not
            published, or lack something that the config reads.
    """

    config: Path
    also: tuple[str, ...] = ()
    unknown: bool = False


def needs(dataset: str, release: str, configs: Path = CONFIGS) -> list[Need]:
    """List the configs that need the archive of a data set in a release.

    A config whose files are all in the archive of another release, but not all in this one, does
    not need this one.

    Args:
        dataset: name of the data set.
        release: name of the release.
        configs: the folder of the configs.
    """
    found = []
    for path, values in experiments(configs):
        arguments = values["data_loader"]["args"]
        if arguments["dataset_name"] == dataset:
            need = _need(path, values, dataset, release)
            if need is not None:
                found.append(need)
    return found


def experiments(configs: Path = CONFIGS) -> Iterable[tuple[Path, dict[str, Any]]]:
    """Yield the configs of experiments that name a data set, resolved, in order of their paths.

    Files that only others inherit from (by their place or name) and those that cannot be read are
    left out.
    """
    for path in sorted(configs.glob("**/*/*.json")):
        try:
            values = resolve_config(path)
        except UserError:
            continue
        loader = values.get("data_loader")
        arguments = loader.get("args") if isinstance(loader, dict) else None
        named = isinstance(arguments, dict) and isinstance(arguments.get("dataset_name"), str)
        is_part = path.parent.name == "fragments" or path.stem.startswith(_PART_NAMES)
        if named and not is_part:
            yield path, values


def config_of(experiment: str, configs: Path = CONFIGS) -> Path | None:
    """Return the config of an experiment of this name, None if there is none."""
    for path in sorted(configs.glob("**/*.json")):
        if config_name(path) == experiment:
            return path
    return None


def _need(path: Path, values: dict[str, Any], dataset: str, release: str) -> Need | None:
    holds = {name: catalogue.what_it_holds(dataset, name) for name in catalogue.releases(dataset)}
    challenge = _challenge_folders(values)
    if challenge:
        others = tuple(name for name in challenge if name != release)
        return Need(path, also=others) if release in challenge else None
    own = {name: held for name, held in holds.items() if not name.startswith(_CHALLENGE)}
    if release not in own:
        return None
    if None in own.values():
        return Need(path, unknown=True)
    wanted = [frozenset(names) for names in _wanted(values, holds)]
    return _of_releases(path, release, {name: _lacks(wanted, held) for name, held in own.items()})


def _of_releases(path: Path, release: str, lacks: dict[str, set[int]]) -> Need | None:
    """Decide by which of the things that a config reads each release lacks."""
    if not lacks[release]:
        return Need(path)
    others = tuple(name for name in lacks if name != release)
    missing = set.intersection(*lacks.values())
    if others and missing == set.intersection(*(lacks[name] for name in others)):
        return None  # this one adds nothing to the others
    return Need(path, also=others, unknown=bool(missing))


def _challenge_folders(values: dict[str, Any]) -> list[str]:
    """The releases of the challenge whose folders a config names: to train, and to be tested."""
    arguments = values["data_loader"]["args"]
    root = str(arguments.get("root_feat_folder", ""))
    if not root.startswith(_CHALLENGE):
        return []
    test = merge(values, values.get("eval_settings") or {})["data_loader"]["args"]
    if test.get("split_name") != "public_server_test":
        return [root]
    return [root, str(test.get("challenge_test_root_feat_folder", _CHALLENGE))]


def _lacks(wanted: list[frozenset[str]], held: frozenset[str]) -> set[int]:
    return {index for index, names in enumerate(wanted) if not names & held}


def _wanted(
    values: dict[str, Any], holds: dict[str, frozenset[str] | None]
) -> Iterable[tuple[str, ...]]:
    """Yield the names of each thing that a config reads, as archives may list it."""
    experts = values.get("experts", {})
    arguments = values["data_loader"]["args"]
    dropped = {name.strip() for name in str(experts.get("drop_feats", "")).split(",")}
    known = frozenset().union(*(held for held in holds.values() if held))
    for name in experts.get("modalities", ()):
        if name in dropped:
            continue
        of_split = f"{arguments.get('split_name')}/{name}"
        if of_split in known:
            yield (of_split,)
        elif name in known:
            yield (name,)
        else:
            try:
                for file in aggregated(name, arguments.get("feat_aggregation", {}).get(name, {})):
                    yield (file,)
            except (UserError, ValueError):
                yield (name,)
    if experts.get("text_feat"):
        yield (f"text/{experts['text_feat']}",)
    for teacher in values.get("distil_params", {}).get("teachers", ()):
        yield (f"teachers/{teacher}",)
