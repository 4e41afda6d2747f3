"""The study of recipes: changes to the published training, one at a time and together.

Its configs are not written by hand: each is the data set's own one with a change over it.
"""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_loader.sets.description import find_description
from misc.results.rows import Row
from misc.results.studies import Study, load_study
from utils.config import Config, find_config, merge
from utils.errors import UserError
from utils.files import write_json

NAME = "recipe"
FOLDER = Path("data/studies")
CLUSTERS, TOKENS = 8, 30  # of an expert of variable length, where no config of the set says more

# What every row begins with; the correction is measured beside the plain metrics of each.
PUBLISHED: dict[str, Any] = {
    "loss": {"type": "MaxMarginRankingLoss", "args": {"margin": 0.2, "fix_norm": True}},
    "optimizer": {"type": "RAdam", "args": {"lr": 0.001, "weight_decay": 5e-05}},
    "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1, "gamma": 0.95}},
    "trainer": {"ema": 0, "dropout": {"features": 0}},
    "correction": {},
}
SOFTMAX = {"loss": {"type": "NormSoftmaxLoss"}}
COSINE = {"lr_scheduler": {"type": "WarmupCosineLR"}}
# Label -> changes over one another.
RECIPES: dict[str, Sequence[Mapping[str, Any]]] = {
    "published": [],
    "softmax": [SOFTMAX],
    "softmax 0.05": [SOFTMAX, {"loss": {"args": {"temperature": 0.05}}}],
    "softmax learned": [SOFTMAX, {"loss": {"args": {"learned": True}}}],
    "both losses": [{"loss": {"type": "MarginSoftmaxLoss"}}],
    "softmax, EMA": [SOFTMAX, {"trainer": {"ema": 0.98}}],
    "softmax, cosine": [SOFTMAX, COSINE],
    "softmax, dropout": [SOFTMAX, {"trainer": {"dropout": {"features": 0.3}}}],
    "softmax, text dropout": [SOFTMAX, {"trainer": {"dropout": {"text": 0.3}}}],
    "softmax, expert dropout": [SOFTMAX, {"trainer": {"dropout": {"experts": 0.15}}}],
    "softmax, three captions": [SOFTMAX, {"data_loader": {"args": {"captions_per_video": 3}}}],
    "softmax, smoothing": [SOFTMAX, {"loss": {"args": {"label_smoothing": 0.1}}}],
    "softmax, decay": [
        SOFTMAX,
        {"optimizer": {"args": {"weight_decay": 0.1}, "decay_biases": False}},
    ],
    "together": [
        SOFTMAX,
        COSINE,
        {"trainer": {"ema": 0.98, "dropout": {"features": 0.3}}},
        {"optimizer": {"args": {"lr": 0.002}}},
    ],
}


def find_study(name: str, dataset: str) -> Study:
    """Return a study by its name: that of recipes, or one that lies in a file (`load_study`)."""
    return recipe_study(dataset) if name == NAME else load_study(name, dataset)


def recipe_study(dataset: str) -> Study:
    """Write the configs of the study for a data set, and return it.

    Args:
        dataset: a folder below `configs/`, or the folder of a data set of one's own.

    Raises:
        UserError: there is neither, or the folder cannot be written.
    """
    base, folder = _base_of(dataset), FOLDER / f"{NAME}-{Path(dataset).name}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for label, changes in RECIPES.items():
        values: dict[str, Any] = {}
        for change in (base, PUBLISHED, *changes):
            own_type = change.get("loss", {}).get("type")
            if own_type:  # another loss has other args
                values.pop("loss", None)
            if change is COSINE:
                values.pop("lr_scheduler", None)
            values = merge(values, dict(change))
        path = folder / f"{label.replace(', ', '-').replace(' ', '-').lower()}.json"
        write_json(path, values)
        paths[label] = str(path)
    return Study(NAME, "Recipes", "Recipe", paths)


def _base_of(dataset: str) -> dict[str, Any]:
    published, own = Path("configs", dataset, "train-full-ce.json"), Path(dataset)
    with suppress(UserError):
        find_config(published)
        return {"inherit_from": str(published)}
    if not (own / "dataset.json").is_file():
        raise UserError(
            f'There is neither {published} nor a dataset.json in "{dataset}": give a folder below '
            "configs/, or that of a data set of your own."
        )
    if (own / "config.json").is_file():
        return {"inherit_from": str(own / "config.json")}
    description = find_description(str(own))
    variable = [name for name, entry in description.experts.items() if entry.variable_length]
    return {
        "inherit_from": "configs/own/train-ce.json",
        "experts": {
            "modalities": sorted(description.experts),
            "text_feat": next(iter(description.text_features)),
        },
        "arch": {"args": {"vlad_clusters": dict.fromkeys(variable, CLUSTERS)}},
        "data_loader": {
            "args": {"dataset_name": dataset, "max_tokens": dict.fromkeys(variable, TOKENS)}
        },
    }


def validation_lines(rows: Sequence[Row], study: Study, custom_args: str | None) -> list[str]:
    """Say how each recipe did on the validation split, and which one that makes the best."""
    values: dict[str, float] = {}
    for row in rows:
        config = Config.from_file(study.configs[row.label], custom_args)
        direction, _, name = config["trainer.monitor"].partition(" ")
        best = max if direction == "max" else min
        found = [
            best(epoch[name] for epoch in run.metrics["epochs"] if name in epoch)
            for run in row.runs
            if run.metrics.get("epochs")
        ]
        if found:
            values[row.label] = statistics.fmean(found) * (1 if direction == "max" else -1)
    if not values:
        return []
    order = sorted(values, key=values.__getitem__, reverse=True)
    lines = [f"{abs(values[label]):8.2f}  {label}" for label in order]
    return [f"On the validation split ({name}):", *lines, f"Best there: {order[0]}"]
