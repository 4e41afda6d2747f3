"""Write the page of each published data set: splits, experts, archives, published results.

python3 -m misc.data_set_pages

A page is `configs/<set>/README.md`. All that stands there comes from the descriptions of the data
sets, the tables of archives and checkpoints, the configs, and the published results.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from data_loader.sets.declared import aggregated, chosen_experts, declared_expert
from data_loader.sets.description import DataDescription, SplitEntry, find_description
from misc.fetching import catalogue
from misc.fetching.plan import experiments, needs
from misc.results.published import (
    COLUMNS,
    CONFIGS,
    DATA_SETS,
    DIRECTIONS,
    PUBLICATIONS,
    config_of,
    data_set_of,
    mean_and_std,
    millions,
    published_results,
)
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.config import Config, config_name, merge
from utils.files import read_json, replacing

NOT_PUBLISHED = "not published"
RELEASE_OF = {"collaborative-experts": "features-v2", "teachtext": "high-quality"}
WRITTEN_BY = """\
Written by `python3 -m misc.data_set_pages` from the project's tables: change these, not this page.
[`configs/README.md`](../README.md) tells how to read a config, and what each asks."""
INTRODUCTION = """\
These are the numbers that the published system was published with, **not measured here**: mean
(standard deviation) over three seeds, recall in percent, MedR the median rank. Where no number of
parameters was published, it is that of the model which the config builds. A checkpoint is fetched
with `python3 misc/sync_experts.py --model <experiment>`, and `--release high-quality` for the later
of two; an experiment's name is `<folder>-<config without .json>`."""


def main(arguments: list[str] | None = None) -> None:
    tool_parser("data_set_pages").parse_args(arguments)
    for folder in DATA_SETS:
        path = page_path(folder)
        path.parent.mkdir(exist_ok=True)
        with replacing(path, "w", encoding="utf-8") as handle:
            handle.write(page(folder))
        print(path.relative_to(CONFIGS.parent))


def page_path(folder: str) -> Path:
    """Where the page of a data set lies, given the folder of its configs."""
    return CONFIGS / folder / "README.md"


def page(folder: str) -> str:
    """Write the page of a data set as Markdown."""
    description = find_description(DATA_SETS[folder])
    title = [f"# {description.name}", WRITTEN_BY]
    about = _notes(description).get("about")
    sections = (
        [*title, *([about] if about else [])],
        _commands(folder, description.name),
        _splits(description),
        _archives(description.name),
        _experts(description),
        _text_features(description),
        _results(folder),
    )
    return "\n\n".join(part for section in sections for part in section) + "\n"


def _notes(description: DataDescription) -> dict[str, Any]:
    return read_json(description.source, "description").get("notes", {})


def _commands(folder: str, dataset: str) -> Iterator[str]:
    releases = catalogue.releases(dataset)
    model = next(iter(_checkpoints(folder)), None)
    config = config_of(model or f"{folder}-train-full-ce")
    code = " --access_code CODE" if _needs_code(dataset) else ""
    lines = [f"python3 misc/sync_experts.py --dataset {dataset}{code}"] if releases else []
    if "high-quality" in releases:
        lines.append(f"{lines[0]} --release high-quality")
    if config:
        path = config.relative_to(CONFIGS.parent)
        run = "data/saved/models/<experiment>/<timestamp>"
        lines += [
            f"python3 train.py --config {path} --device 0",
            f"python3 test.py --resume {run} --eval_from_training_config --device 0",
        ]
    if config and model:
        found = catalogue.find_model(model)
        lines += [
            "",
            "# or the published checkpoint: needs a download",
            f"python3 misc/sync_experts.py --model {model}",
            f"python3 test.py --config {path} --eval_from_training_config \\",
            f"    --resume {Path('data') / found.folder / found.checkpoint.name}",
        ]
    yield "## Fetch, train, test"
    if lines:
        yield "\n".join(("```", "# needs a download and a GPU", *lines, "```"))
    if not releases:
        yield f"No features of {dataset} are published: its files have to be made."
    if not config:
        yield "No experiment of this set is published: a config of one's own trains on it."


def _splits(description: DataDescription) -> Iterator[str]:
    notes = _notes(description)
    sizes, queries, names = (notes.get(key, {}) for key in ("lists", "queries", "splits"))
    protocols = _protocols(description)
    rows = []
    for name, split in description.splits.items():
        videos = split.expected.videos if split.expected else sizes.get(split.val.file)
        rows.append(
            (
                f"`{name}`" + (f" ({names[name]})" if name in names else ""),
                f"`{split.train.file}`",
                _number(sizes.get(split.train.file)),
                f"`{split.val.file}`",
                _number(videos),
                _number(_queries(split, videos, protocols.get(name, "")) or queries.get(name)),
                protocols.get(name, "-"),
            )
        )
    yield "## Splits"
    heads = ("split", "training list", "videos", "retrieval list", "videos", "queries", "protocol")
    yield _table(heads, rows, numbers=(2, 4, 5))
    where = f"Captions: `{description.captions}` in `{description.root}/`, where the lists lie too"
    yield f"{where}; {notes['captions']}." if "captions" in notes else f"{where}."
    yield "Sizes of lists and retrieval sets are those published; -: none is."
    if any(split.challenge_test for split in description.splits.values()):
        yield (
            "`public_server_val` and `public_server_test` belong to the video pentathlon: see "
            "[`misc/cvpr2020_challenge`](../../misc/cvpr2020_challenge/README.md)."
        )


def _queries(split: SplitEntry, videos: int | None, protocol: str) -> int | None:
    if split.expected:
        return split.expected.queries
    one_each = protocol in (_FUSED, _GIVEN, _FIRST)
    return videos if one_each else None


_FUSED = "the captions of a video joined to one"
_GIVEN = "one caption of each video, named by the split"
_FIRST = "the first caption of each video"


def _protocols(description: DataDescription) -> dict[str, str]:
    """Split -> by which captions the configs search its videos."""
    found = {}
    for _, values in experiments():
        values = merge(values, values.get("eval_settings") or {})
        arguments = values["data_loader"]["args"]
        if arguments["dataset_name"] != description.name:
            continue
        name = arguments["split_name"]
        captions = arguments.get("num_test_captions", 1)
        if arguments.get("fuse_captions"):
            found[name] = _FUSED
        elif description.split(name).test_caption_index:
            found[name] = _GIVEN
        else:
            each = f"up to {captions} captions of each video, each by itself"
            found[name] = _FIRST if captions == 1 else each
    return found


def _archives(dataset: str) -> Iterator[str]:
    releases = catalogue.releases(dataset)
    if not releases:
        return
    rows = []
    for release in releases:
        archive = catalogue.find_archive(dataset, release)
        size = f"about {archive.about_gib} GiB" if archive.about_gib else NOT_PUBLISHED
        sums = " or ".join(f"`{value}`" for value in archive.source.sha1) or NOT_PUBLISHED
        rows.append((release, archive.source.name, size, sums, len(needs(dataset, release))))
    yield "## Archives"
    yield _table(("release", "archive", "size", "sha1", "configs that need it"), rows, (4,))
    if _needs_code(dataset):
        yield f"Who may have them: {catalogue.HOW_TO_GET_A_CODE}."
    sized = any(catalogue.find_archive(dataset, release).about_gib for release in releases)
    both = "The size is published for the set, not for each release. " if sized else ""
    yield (
        f"{both}Add `--release RELEASE` to fetch another than features-v2, and `--dry_run` to see "
        "what would be fetched, and which configs need it."
    )


def _needs_code(dataset: str) -> bool:
    releases = catalogue.releases(dataset)
    return any(catalogue.find_archive(dataset, release).lacks_code for release in releases)


@dataclass(frozen=True)
class ExpertRow:
    """An expert as a config uses it; `names` are those by which archives may list it."""

    name: str
    files: tuple[str, ...]
    is_known_by_any: bool  # of the files, which are names of one; else all of them are joined
    sizes: frozenset[int]
    variable_length: bool
    names: frozenset[str]
    split: str = ""


def expert_rows(description: DataDescription) -> list[ExpertRow]:
    """List the experts of a data set with their files, as configs and description name them."""
    rows: dict[tuple, ExpertRow] = {}
    for _, values in experiments():
        arguments = values["data_loader"]["args"]
        if arguments["dataset_name"] == description.name:
            experts = values["experts"]
            chosen = chosen_experts(experts["modalities"], experts.get("drop_feats", ""))
            split = arguments["split_name"]
            for name in chosen:
                aggregation = arguments.get("feat_aggregation", {}).get(name, {})
                row = _expert_row(name, description, split, aggregation, experts.get("face_dim"))
                if row:
                    same = rows.setdefault((row.name, row.files), row)
                    rows[row.name, row.files] = replace(same, sizes=same.sizes | row.sizes)
    for name, entry in description.experts.items():
        row = _expert_row(name, description, next(iter(description.splits)), {}, None)
        if row:
            rows.setdefault((name, entry.files), row)
    return sorted(rows.values(), key=lambda row: (row.split, row.name, row.files))


def _expert_row(
    name: str,
    description: DataDescription,
    split_name: str,
    aggregation: dict[str, Any],
    face_dim: int | None,
) -> ExpertRow | None:
    split = description.split(split_name)
    entry = description.expert_entry(name, split)
    if entry is None and name not in description.aggregated_experts:
        return None  # of one config that asks for what its set lacks
    declared = declared_expert(name, description, split, aggregation, face_dim)
    files = entry.files if entry else tuple(aggregated(name, aggregation))
    own = split_name if name in split.experts else ""
    names = {f"{own}/{name}"} if own else {name} if entry else set(files)
    return ExpertRow(
        name,
        files,
        entry is not None,
        frozenset({declared.size} - {None}),
        declared.variable_length,
        frozenset(names | (set(files) if entry else set())),
        own,
    )


def _experts(description: DataDescription) -> Iterator[str]:
    rows = expert_rows(description)
    cells = [
        (
            f"`{row.name}`" + (f" (split {row.split})" if row.split else ""),
            (" or " if row.is_known_by_any else " and ").join(f"`{file}`" for file in row.files),
            " or ".join(map(str, sorted(row.sizes))) or "by the file",
            "variable length" if row.variable_length else "one vector",
            _releases_with(description.name, row.names, all_of_them=not row.is_known_by_any),
        )
        for row in rows
    ]
    folders = ", ".join(f"`{folder}/`" for folder in description.feature_folders)
    releases = catalogue.releases(description.name)
    untold = any(catalogue.what_it_holds(description.name, r) is None for r in releases)
    doubt = " (?): what this archive holds is not published." if untold else ""
    yield "## Experts"
    yield f"Files lie in {folders} below `{description.root}/`.{doubt}"
    yield _table(("expert", "file", "size", "of a video", "release"), cells, (2,))
    used = {row.name for row in rows}
    others = [f"`{name}`" for name in description.aggregated_experts if name not in used]
    if others:
        yield (
            "A config may also name the following experts, which none here uses; their files are "
            "named after their entry in `feat_aggregation`: " + ", ".join(others) + "."
        )


def _text_features(description: DataDescription) -> Iterator[str]:
    rows = []
    for name, entry in description.text_features.items():
        files = " or ".join(f"`{file}`" for file in entry.files)
        if entry.parts:
            files += " or, in parts, " + " and ".join(f"`{file}`" for file in entry.parts)
        held = _releases_with(description.name, frozenset({f"text/{name}"}), all_of_them=True)
        rows.append((f"`{name}`", files, entry.size or "by the file", held))
    yield "## Text features"
    yield _table(("text_feat", "file", "size of a word", "release"), rows, (2,))


def _releases_with(dataset: str, names: frozenset[str], all_of_them: bool) -> str:
    found, untold = [], []
    for release in catalogue.releases(dataset):
        held = catalogue.what_it_holds(dataset, release)
        if held is None:
            untold.append(release)
        elif names <= held if all_of_them else names & held:
            found.append(release)
    return ", ".join((*found, *(f"{release} (?)" for release in untold))) or "none"


def _results(folder: str) -> Iterator[str]:
    yield "## Published results"
    shown = set()
    for publication, name in PUBLICATIONS.items():
        results = {
            experiment: result
            for experiment, result in published_results()[publication].items()
            if data_set_of(experiment) == folder
        }
        if results:
            if not shown:
                yield INTRODUCTION
            yield f"### {name}, with the features of {RELEASE_OF[publication]}"
            yield _result_table(results, RELEASE_OF[publication])
            shown |= results.keys()
    if not shown:
        yield "None."
    others = [
        f"`{path.name}`"
        for path in sorted((CONFIGS / folder).glob("*.json"))
        if config_name(path) not in shown
    ]
    if others:
        yield "Configs without a published result: " + ", ".join(others) + "."


def _result_table(results: Mapping[str, Mapping[str, Any]], release: str) -> str:
    """A row for each experiment; directions of which nothing was published are left out."""
    directions = [d for d in DIRECTIONS if any(d in result for result in results.values())]
    heads = ["config", "parameters", "checkpoint"]
    heads += [f"{direction} {column}" for direction in directions for column in COLUMNS.values()]
    rows = []
    for experiment, result in results.items():
        path = config_of(experiment)
        cells = [
            f"[`{path.stem}`]({path.name})" if path else f"{experiment} (no config)",
            _parameters(result, path),
            "yes" if experiment in catalogue.models(release) else NOT_PUBLISHED,
        ]
        for direction in directions:
            cells += [mean_and_std(result[direction][key]) for key in COLUMNS]
        rows.append(cells)
    return _table(heads, rows, range(1, len(heads)))


def _parameters(result: Mapping[str, Any], config: Path | None) -> str:
    if "parameters" in result:
        return millions(result["parameters"])
    return millions(_built_parameters(config)) if config else NOT_PUBLISHED


@cache
def _built_parameters(path: Path) -> int:
    config = Config.from_file(path)
    # These take their time to load.
    from trainer.build import build_net, count_parameters, inputs_of
    from trainer.memory import only_sizes

    with only_sizes():
        return count_parameters(build_net(config, inputs_of(config)))


def _checkpoints(folder: str) -> list[str]:
    """Experiments of a data set that have a checkpoint, CE with all experts first."""
    releases = RELEASE_OF.values()
    found = dict.fromkeys(name for release in releases for name in catalogue.models(release))
    return sorted(
        (name for name in found if data_set_of(name) == folder),
        key=lambda name: not name.endswith("-train-full-ce"),
    )


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()
) -> str:
    """Lay out a Markdown table; the columns of `numbers` to the right."""
    rule = ["---:" if place in numbers else "---" for place in range(len(heads))]
    lines = (heads, rule, *rows)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
