"""Print what the published system was published with: results as published, not measured here.

python3 -m misc.published_results --all

They come as Markdown, with the config of each experiment, and lie in `published_results.json`:
publication -> experiment -> `parameters`, and by direction metric -> [mean, standard deviation over
three seeds], in percent or ranks. The two publications used other features: features-v2 those of
"Use What You Have: Video Retrieval Using Representations From Collaborative Experts" (Liu et al.
2019), high-quality those of "TeachText: CrossModal Generalized Distillation for Text-Video
Retrieval" (Croitoru et al. 2021).
"""

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from misc.tools import tool_parser
from utils.command_line import run_main
from utils.config import config_name
from utils.files import read_json

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PUBLICATIONS = {
    "collaborative-experts": "Collaborative Experts",
    "teachtext": "TeachText",
}
DIRECTIONS = ("t2v", "v2t")
COLUMNS = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MedR": "MedR"}
DATA_SETS = {
    "msrvtt": "MSRVTT",
    "msvd": "MSVD",
    "lsmdc": "LSMDC",
    "didemo": "DiDeMo",
    "activity-net": "ActivityNet",
    "queryd": "QuerYD",
    "querydsegments": "QuerYDSegments",
}

# The experiments that the two papers are about; the others are ablations.
MAIN = (
    "train-full-ce",
    "train-full-moee",
    "train-full-mnnet",
    "train-jsfusion-ce",
    "train-miech-ce",
    "train-miech-miechfeats-moee",
    "train-ce-intra-mte",
    "train-gpt2-xl-finetuned-adam",
    "train-gpt2-xl-finetuned-mte-adam",
    "train-gpt2-xl-finetuned-denoising-adam",
    "train-gpt2-xl-finetuned-mte-denoising-adam",
)

INTRODUCTION = """\
These are the numbers that the published system was published with, **not measured here**: mean
(standard deviation) over three seeds, recall in percent, MedR the median rank. The two publications
used other features, so that both have a result of `train-full-ce`. A name that is no path has no
config."""


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("published_results")
    parser.add_argument("--all", action="store_true", help="the ablations, too")
    print(markdown(parser.parse_args(arguments).all))


@cache
def published_results() -> dict[str, dict[str, dict[str, Any]]]:
    """Publication -> experiment -> what was published of it."""
    return read_json(Path(__file__).with_suffix(".json"), "table of published results")


def results_of(experiment: str) -> dict[str, dict[str, Any]]:
    """Publication -> what it reports of an experiment, by the experiment's name."""
    return {
        publication: rows[experiment]
        for publication, rows in published_results().items()
        if experiment in rows
    }


def config_of(experiment: str) -> Path | None:
    """The shipped config of an experiment, None if there is none."""
    return _configs().get(experiment)


@cache
def _configs() -> dict[str, Path]:
    return {config_name(path): path for path in sorted(CONFIGS.glob("*/*.json"))}


def mean_and_std(values: list[float]) -> str:
    """`12.3 (0.4)`."""
    return "{:.1f} ({:.1f})".format(*values)


def markdown(ablations: bool = False) -> str:
    """The main results, or all of them, as a section with one table for each publication."""
    parts = ["## Published results", INTRODUCTION]
    for publication, name in PUBLICATIONS.items():
        chosen = {
            experiment: result
            for folder in DATA_SETS
            for experiment, result in published_results()[publication].items()
            if data_set_of(experiment) == folder
            and (ablations or experiment.removeprefix(f"{folder}-") in MAIN)
        }
        parts += [f"### {name}, as published", "\n".join(_table(chosen))]
    return "\n\n".join(parts)


def _table(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A row for each experiment; columns of which nothing was published are left out."""
    reported = {key for result in results.values() for key in result}
    directions = [direction for direction in DIRECTIONS if direction in reported]
    heads = ["config"] + ["parameters"] * ("parameters" in reported)
    heads += [f"{direction} {column}" for direction in directions for column in COLUMNS.values()]
    yield _line(heads)
    yield _line(["---"] + ["---:"] * (len(heads) - 1))
    for experiment, result in results.items():
        path = config_of(experiment)
        cells = [f"`{path.relative_to(CONFIGS.parent)}`" if path else experiment]
        if "parameters" in reported:
            cells.append(millions(result["parameters"]))
        for direction in directions:
            cells += [mean_and_std(result[direction][key]) for key in COLUMNS]
        yield _line(cells)


def data_set_of(experiment: str) -> str:
    """The folder of an experiment's config: names of folders may hold a dash themselves."""
    return max((f for f in DATA_SETS if experiment.startswith(f"{f}-")), key=len)


def millions(parameters: int) -> str:
    """`183.45M`; small numbers in full."""
    return f"{parameters / 1e6:.2f}M" if parameters >= 1e5 else str(parameters)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
