"""Rows of results as tables: mean and standard deviation, bold best, the published row below."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logger.results import summarise_seeds
from misc.published_results import DIRECTIONS, PUBLICATIONS, mean_and_std, millions, results_of
from misc.results.rows import Row, difference_in_std
from misc.results.table_text import Cell, Table

# Each published experiment was trained with as many.
PUBLISHED_SEEDS = 3
COLUMNS = {
    "R1": "R@1",
    "R5": "R@5",
    "R10": "R@10",
    "R50": "R@50",
    "MedR": "MedR",
    "MeanR": "MeanR",
    "geometric_mean_R1-R5-R10": "Geom",
}
RANKS = ("MedR", "MeanR")  # the lower, the better
NOTHING = "-"

# direction -> metric -> {"mean", "std"}, None where not every run has it
Summary = Mapping[str, Mapping[str, Mapping[str, Any] | None]]


@dataclass(frozen=True)
class Line:
    """One line of a table, before it is laid out."""

    label: str
    parameters: str
    seeds: str
    cells: Mapping[str, Sequence[Cell]]


def table_by_experiment(
    rows: Sequence[Row], first_head: str, columns: Sequence[str], with_published: bool = True
) -> Table:
    """One row for each experiment: text-to-video and video-to-text side by side."""
    heads = [first_head, "parameters", "seeds"]
    heads += [f"{direction} {COLUMNS[column]}" for direction in DIRECTIONS for column in columns]
    lines = []
    for line in _lines(rows, columns, with_published):
        first = map(Cell, (line.label, line.parameters, line.seeds))
        lines.append([*first, *(cell for d in DIRECTIONS for cell in line.cells[d])])
    return Table(heads, lines)


def table_by_task(
    rows: Sequence[Row], first_head: str, columns: Sequence[str], with_published: bool = True
) -> Table:
    """One row for each task and experiment, text-to-video first, as published tables have them."""
    heads = [first_head, "task", *(COLUMNS[column] for column in columns), "parameters", "seeds"]
    lines = []
    for direction in DIRECTIONS:
        for line in _lines(rows, columns, with_published):
            first = map(Cell, (line.label, direction))
            last = map(Cell, (line.parameters, line.seeds))
            lines.append([*first, *line.cells[direction], *last])
    return Table(heads, lines, texts=2)


LAYOUTS: dict[str, Callable[..., Table]] = {
    "experiments": table_by_experiment,
    "tasks": table_by_task,
}


def shown(summary: Mapping[str, float | None] | None) -> str:
    """`12.3 (0.4)`: mean and standard deviation; one run has no deviation."""
    if summary is None:
        return NOTHING
    if summary["std"] is None:
        return f"{summary['mean']:.1f}"
    return mean_and_std([summary["mean"], summary["std"]])


def _lines(rows: Sequence[Row], columns: Sequence[str], with_published: bool) -> list[Line]:
    summaries = [_summary(row, columns) for row in rows]
    best = _best_means(summaries, columns)
    lines = []
    for row, summary in zip(rows, summaries, strict=True):
        lines.append(_measured_line(row, summary, best))
        published = results_of(row.experiment) if with_published and row.is_final else {}
        for publication, result in published.items():
            lines += _published_lines(
                row, summary, f"published: {PUBLICATIONS[publication]}", result
            )
    return lines


def _summary(row: Row, columns: Sequence[str]) -> Summary:
    summary: dict[str, dict[str, Any]] = {}
    for direction in DIRECTIONS:
        summary[direction] = {}
        for column in columns:
            values = [test.get(f"{direction}_metrics", {}).get(column) for test in row.metrics]
            whole = bool(values) and None not in values
            found = summarise_seeds([{column: value} for value in values]) if whole else {}
            summary[direction][column] = found.get(column)
    return summary


def _best_means(summaries: Sequence[Summary], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Find the best mean of each column, as it is shown; None where there is nothing to compare."""
    best: dict[str, dict[str, Any]] = {direction: {} for direction in DIRECTIONS}
    for direction in DIRECTIONS:
        for column in columns:
            entries = [s[direction][column] for s in summaries if s[direction][column]]
            means = [round(entry["mean"], 1) for entry in entries]
            choose = min if column in RANKS else max
            best[direction][column] = choose(means) if len(means) > 1 else None
    return best


def _measured_line(row: Row, summary: Summary, best: Mapping[str, Mapping[str, Any]]) -> Line:
    counts = {run.parameters for run in row.runs}
    [count] = counts if len(counts) == 1 else [None]
    cells = {
        direction: [
            Cell(
                shown(entry),
                entry is not None and round(entry["mean"], 1) == best[direction][column],
            )
            for column, entry in summary[direction].items()
        ]
        for direction in DIRECTIONS
    }
    return Line(row.label, _count(count), str(len(row.runs)), cells)


def _published_lines(
    row: Row, summary: Summary, label: str, published: Mapping[str, Any]
) -> list[Line]:
    texts: dict[str, list[Cell]] = {direction: [] for direction in DIRECTIONS}
    differences: dict[str, list[Cell]] = {direction: [] for direction in DIRECTIONS}
    for direction in DIRECTIONS:
        for column, own in summary[direction].items():
            values = published.get(direction, {}).get(column)
            other = dict(zip(("mean", "std"), values, strict=True)) if values else None
            texts[direction].append(Cell(shown(other)))
            known = own is not None and other is not None
            value = difference_in_std(own, len(row.runs), other, PUBLISHED_SEEDS) if known else None
            differences[direction].append(Cell(NOTHING if value is None else f"{value:+.1f}"))
    return [
        Line(label, _count(published.get("parameters")), str(PUBLISHED_SEEDS), texts),
        Line("difference / std", "", "", differences),
    ]


def _count(parameters: int | None) -> str:
    return NOTHING if parameters is None else millions(parameters)
