"""Results of the published system, to hold one's own against: mean and deviation over seeds."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from data_loader.files import read_json

FILE = Path(__file__).with_name("published_results.json")

# Each published experiment was trained with as many seeds.
SEEDS = 3

# In the file one metric has another name.
_NAMES = {"geom": "geometric_mean_R1-R5-R10"}


def published_summary(experiment: str) -> Mapping[str, Mapping[str, Mapping[str, float]]] | None:
    """Return direction -> metric -> {"mean", "std"} as published, None where nothing is.

    Directions are "t2v" and "v2t"; metrics have the names that the metrics of a run have.
    """
    found = _experiments().get(experiment)
    if found is None:
        return None
    return {
        direction: {
            _NAMES.get(name, name): {"mean": mean, "std": std}
            for name, (mean, std) in values.items()
        }
        for direction, values in found["metrics"].items()
    }


def published_parameters(experiment: str) -> int | None:
    """Return the number of parameters of a published experiment, None where it is not told."""
    return _experiments()[experiment]["params"]


@cache
def _experiments() -> Mapping[str, Any]:
    return read_json(FILE, "published results")["experiments"]
