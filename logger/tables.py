"""Metrics as tables of plain text."""

from collections.abc import Mapping, Sequence

from logger.summary import summarise_seeds

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

Metrics = Mapping[str, Mapping[str, float]]


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
