"""Which configs need an archive, and what `--dry_run` prints of all that would be fetched."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data_loader.sets.declared import aggregated
from misc.fetching import catalogue
from misc.fetching.catalogue import Archive, PublishedModel
from misc.fetching.fetch import is_fetched
from misc.results.published import CONFIGS, config_of
from utils.config import merge, resolve_config
from utils.errors import UserError

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


@cache
def experiments(configs: Path = CONFIGS) -> tuple[tuple[Path, dict[str, Any]], ...]:
    """Return the configs of experiments that name a data set, resolved, in order of their paths.

    Files that only others inherit from (by their place or name) and those that cannot be read are
    left out. All are read once in a process.
    """
    found = []
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
            found.append((path, values))
    return tuple(found)


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
    wanted = set(_wanted(values, holds))
    lacks = {name: wanted - held for name, held in own.items()}
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


def _wanted(values: dict[str, Any], holds: dict[str, frozenset[str] | None]) -> Iterator[str]:
    """Yield the name of each thing that a config reads, as archives may list it."""
    experts = values.get("experts", {})
    arguments = values["data_loader"]["args"]
    dropped = {name.strip() for name in str(experts.get("drop_feats", "")).split(",")}
    known = frozenset().union(*(held for held in holds.values() if held))
    for name in experts.get("modalities", ()):
        if name in dropped:
            continue
        of_split = f"{arguments.get('split_name')}/{name}"
        if of_split in known:
            yield of_split
        elif name in known:
            yield name
        else:
            try:
                yield from aggregated(name, arguments.get("feat_aggregation", {}).get(name, {}))
            except (UserError, ValueError):
                yield name
    if experts.get("text_feat"):
        yield f"text/{experts['text_feat']}"
    for teacher in values.get("distil_params", {}).get("teachers", ()):
        yield f"teachers/{teacher}"


def archive_plan(archive: Archive, data_dir: Path, configs: Path = CONFIGS) -> str:
    """Describe the fetching of an archive, line by line, with the configs below `configs`."""
    size = "not published"
    if archive.about_gib is not None:
        size = f"about {archive.about_gib} GiB"
    done = " (complete already)" if is_fetched(data_dir, archive.name) else ""
    found = needs(archive.dataset, archive.release, configs)
    access = [f"  access    needs a code: {catalogue.HOW_TO_GET_A_CODE}"]
    lines = [
        f"{archive.dataset}, release {archive.release}{done}",
        f"  URL       {archive.source.shown}",
        *(access if archive.lacks_code else ()),
        f"  size      {size}",
        f"  sha1      {' or '.join(archive.source.sha1) or 'not published'}",
        f"  goes to   {data_dir}/",
        f"  needed by {_counted(found)}",
        *(f"    {line}" for line in _grouped(found, configs.parent)),
    ]
    for release in catalogue.releases(archive.dataset):
        if release != archive.release:
            others = needs(archive.dataset, release, configs)
            lines.append(f"Also there: --release {release}, needed by {_counted(others)}")
    return "\n".join(lines)


def _counted(found: list[Need]) -> str:
    return f"{len(found)} config{'' if len(found) == 1 else 's'}"


def _grouped(found: list[Need], root: Path) -> Iterator[str]:
    for need in sorted(found, key=lambda need: (need.unknown, need.also)):
        line = need.config.relative_to(root).as_posix()
        if need.also:
            line += f"  (and the release {' and '.join(need.also)})"
        if need.unknown:
            line += "  (whether it is enough is not published)"
        yield line


def model_plan(model: PublishedModel, data_dir: Path) -> str:
    """Describe the fetching of a checkpoint, line by line."""
    done = " (complete already)" if is_fetched(data_dir, model.name) else ""
    config = config_of(model.experiment)
    own = config.relative_to(CONFIGS.parent).as_posix() if config else "none of this name"
    lines = [f"{model.experiment}, a checkpoint of the release {model.release}{done}"]
    for source in (model.config, model.checkpoint):
        lines += [
            f"  URL       {source.shown}",
            "  size      not published",
            "  sha1      not published",
        ]
    lines += [f"  goes to   {data_dir / model.folder}/", f"  config here: {own}"]
    lines += [
        f"Also there: --release {release}, another checkpoint of the same name"
        for release in catalogue.other_releases_of_model(model)
    ]
    return "\n".join(lines)
