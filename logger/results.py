"""Results of several seeds as files: a summary beside their logs, and a leaderboard."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logger.summary import summarise_seeds
from utils.errors import UserError
from utils.files import make_folder, reason, replacing, write_json


def write_summary(folder: Path, metrics_by_seed: Mapping[int, Mapping[str, Any]]) -> Path:
    """Write mean, standard deviation and values of each test metric beside the seeds' logs."""
    name = "_".join(f"seed-{seed}" for seed in metrics_by_seed)
    path = make_folder(folder) / f"summary-{name}.json"
    summary = summarise_seeds(list(metrics_by_seed.values()))
    write_json(path, {"seeds": list(metrics_by_seed), "metrics": summary})
    return path


def append_to_leaderboard(
    path: Path, experiment: str, metrics_by_seed: Mapping[int, Mapping[str, Any]]
) -> None:
    """Add one line of JSON for an experiment to a file that collects them.

    Raises:
        UserError: the file cannot be read or written.
    """
    entry = {
        "experiment": experiment,
        "seeds": list(metrics_by_seed),
        "metrics": summarise_seeds(list(metrics_by_seed.values())),
    }
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        what = reason(error) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"Cannot read the leaderboard {path}: {what}.") from error
    make_folder(path.parent)
    with replacing(path, "w", encoding="utf-8") as handle:
        handle.write(before + json.dumps(entry) + "\n")
