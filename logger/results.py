"""What came of runs: summaries over seeds, metrics as tables and as files, a run's last words."""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import make_folder, reason, replacing, write_json

# Title and metric of the columns that come first.
COLUMNS = {
    "R1": "R@1",
    "R5": "R@5",
    "R10": "R@10",
    "R50": "R@50",
    "MedR": "MedR",
    "MeanR": "MeanR",
    "geometric_mean_R1-R5-R10": "Geom",
}

CORRECTED = "_corrected"  # ends the name of metrics that are measured with hubs corrected

Metrics = Mapping[str, Mapping[str, float]]


def summarise_seeds(metrics_by_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the metrics of several seeds, one dict each.

    Returns:
        For each metric `{"mean": ..., "std": ..., "values": [...]}` with the values in the order
        of the seeds. The standard deviation is that of a sample (divided by n - 1), None for one
        seed. A metric that is a dict of metrics is summarised entry by entry.

    Raises:
        ValueError: no seed at all, or seeds that do not have the same metrics.
    """
    if not metrics_by_seed:
        raise ValueError("There is no seed to summarise.")
    names = list(metrics_by_seed[0])
    for metrics in metrics_by_seed:
        odd = set(names) ^ set(metrics)
        if odd:
            raise ValueError(f"Not every seed has the metric {sorted(odd)[0]}.")
    return {name: _summary([metrics[name] for metrics in metrics_by_seed]) for name in names}


def _summary(values: list[Any]) -> dict[str, Any]:
    if isinstance(values[0], Mapping):
        return summarise_seeds(values)
    import numpy as np  # takes its time: entry points import this file before they read flags

    values = [float(value) for value in values]
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "values": values,
    }


def write_summary(folder: Path, metrics_by_seed: Mapping[int, Mapping[str, Any]]) -> Path:
    """Write mean, standard deviation and values of each test metric beside the seeds' logs."""
    name = "_".join(f"seed-{seed}" for seed in metrics_by_seed)
    path = make_folder(folder) / f"summary-{name}.json"
    summary = summarise_seeds(list(metrics_by_seed.values()))
    write_json(path, {"seeds": list(metrics_by_seed), "metrics": summary})
    return path


def write_epochs(path: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Write what was measured after each epoch as CSV, a row each; nothing where there is none."""
    if not epochs:
        return
    names = list(dict.fromkeys(name for record in epochs for name in record))
    with replacing(path, "w", durable=False, encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(epochs)


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


def metrics_table(metrics: Metrics) -> str:
    """Lay out metrics by task (`t2v_metrics`, `v2t_metrics`): a row each, recalls in percent."""
    return _table({task: {k: f"{v:.1f}" for k, v in row.items()} for task, row in metrics.items()})


def seeds_table(metrics_by_seed: Sequence[Metrics]) -> str:
    """Lay out the mean over seeds, with the standard deviation behind it in brackets.

    One seed has no standard deviation.
    """
    return _table(
        {
            task: {name: _mean_and_std(entry) for name, entry in row.items()}
            for task, row in summarise_seeds(metrics_by_seed).items()
        }
    )


def _mean_and_std(summary: Mapping[str, float | None]) -> str:
    mean = f"{summary['mean']:.1f}"
    return mean if summary["std"] is None else f"{mean} ({summary['std']:.1f})"


def _table(rows: Mapping[str, Mapping[str, str]]) -> str:
    """Align cells to the right, tasks to the left; a cell that a task lacks is a dash."""
    present = list(dict.fromkeys(name for row in rows.values() for name in row))
    names = [name for name in COLUMNS if name in present]
    names += [name for name in present if name not in COLUMNS]
    lines = [["task", *(COLUMNS.get(name, name) for name in names)]]
    for task, row in rows.items():
        lines.append([task.replace("_metrics", ""), *(row.get(name, "-") for name in names)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def describe_run(
    metrics: Mapping[str, Mapping[str, float]],
    split: str,
    checkpoint: Path,
    log: Path,
    page: Path | None,
    tensorboard: bool = False,
    predictions: Path | None = None,
    note: str = "",
) -> str:
    """Tell in a few lines how a run went and how to look at it.

    Args:
        metrics: metric name -> R1, R5, ...
        split: name of what was tested on.
        checkpoint: the weights that were tested.
        log: folder of the log.
        page: the rankings page, where one was drawn.
        tensorboard: whether there are curves beside the log.
        predictions: those for a challenge, which stand in place of metrics.
        note: a last line.
    """
    if predictions:
        lines = [f"Predictions for {split}, no metrics (challenge_mode):", ""]
        lines.append(f"predictions  {predictions}")
    else:
        lines = [f"Test on {split}:", metrics_table(metrics), ""]
    lines.append(f"checkpoint   {checkpoint}")
    lines.append(f"log          {log / 'info.log'}  (metrics as JSON beside it)")
    if tensorboard:
        lines.append(f"TensorBoard  tensorboard --logdir {shlex.quote(str(log))}")
    if page:
        lines.append(f"rankings     python3 -m misc.serve_rankings {shlex.quote(str(page.parent))}")
    return "\n".join([*lines, note] if note else lines)


_TEST_SPLIT = "--eval_from_training_config"


def other_split(splits: tuple[str, str], arguments: Sequence[str]) -> str:
    """Say which split a test was on, and how to test on the other one.

    Args:
        splits: the one that training validates on, and the one of its final test.
        arguments: the command line of the test.
    """
    validation, test = splits
    if validation == test:
        return ""
    others = [argument for argument in arguments if argument != _TEST_SPLIT]
    command = f"python3 test.py {shlex.join(others)}"
    if len(others) < len(arguments):
        return f"This was the test split. For the validation split {validation}: {command}"
    return (
        f"This was the validation split {validation}. For the test split {test}: {command} "
        f"{_TEST_SPLIT}"
    )
