"""What `--dry_run` prints: what would be fetched, from where to where, and who needs it."""

from collections.abc import Iterator
from pathlib import Path

from misc.fetching import catalogue
from misc.fetching.catalogue import Archive, PublishedModel
from misc.fetching.fetch import is_fetched
from misc.fetching.needs import CONFIGS, Need, config_of, needs


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
    lines += [
        f"  goes to   {data_dir / model.folder}/",
        f"  config here: {own}",
    ]
    lines += [
        f"Also there: --release {release}, another checkpoint of the same name"
        for release in catalogue.other_releases_of_model(model)
    ]
    return "\n".join(lines)
