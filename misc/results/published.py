"""What the published system was published with: results as published, not measured here.

They lie in `published.json`: publication -> experiment -> `parameters`, and by direction
metric -> [mean, standard deviation over three seeds], in percent or ranks. The two publications
used other features: features-v2 those of "Use What You Have: Video Retrieval Using Representations
From Collaborative Experts" (Liu et al. 2019), high-quality those of "TeachText: CrossModal
Generalized Distillation for Text-Video Retrieval" (Croitoru et al. 2021). The pages of the data
sets (`misc.data_set_pages`) show them all.
"""

from functools import cache
from pathlib import Path
from typing import Any

from utils.config import config_name
from utils.files import read_json

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
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
    "youcook2": "YouCook2",
    "queryd": "QuerYD",
    "querydsegments": "QuerYDSegments",
    "vatex": "VaTeX",
}


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


def data_set_of(experiment: str) -> str:
    """The folder of an experiment's config: names of folders may hold a dash themselves."""
    return max((f for f in DATA_SETS if experiment.startswith(f"{f}-")), key=len)


def millions(parameters: int) -> str:
    """`183.45M`; small numbers in full."""
    return f"{parameters / 1e6:.2f}M" if parameters >= 1e5 else str(parameters)
