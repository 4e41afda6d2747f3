"""Tables of results: mean and standard deviation, bold best, the published row below, as text."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logger.results import COLUMNS, CORRECTED, summarise_seeds
from misc.results.published import DIRECTIONS, PUBLICATIONS, mean_and_std, millions, results_of
from misc.results.rows import Row

# Each published experiment was trained with as many.
PUBLISHED_SEEDS = 3
RANKS = ("MedR", "MeanR")  # the lower, the better
NOTHING = "-"

# direction -> metric -> {"mean", "std"}, None where not every run has it
Summary = Mapping[str, Mapping[str, Mapping[str, Any] | None]]

# What LaTeX takes for a command stands for itself in these spellings.
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~])")
# A number with its sign, which LaTeX would set as a hyphen.
_SIGNED = re.compile(r"(?<![\w.)])([+-])(?=[0-9])")


@dataclass(frozen=True)
class Cell:
    """A text, and whether it is the best of its column."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """Cells in rows under heads; the first `texts` columns hold words, the others numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    texts: int = 1


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
    corrected = [_summary(row, columns, CORRECTED) for row in rows]
    # Each kind has a best of its own: plain numbers are not measured by corrected ones.
    best, best_corrected = _best_means(summaries, columns), _best_means(corrected, columns)
    lines = []
    for row, summary, other in zip(rows, summaries, corrected, strict=True):
        lines.append(_measured_line(row, row.label, summary, best))
        if any(any(of.values()) for of in other.values()):
            label = f"{row.label}, hubs corrected"
            lines.append(_measured_line(row, label, other, best_corrected))
        published = results_of(row.experiment) if with_published and row.is_final else {}
        for publication, result in published.items():
            lines += _published_lines(
                row, summary, f"published: {PUBLICATIONS[publication]}", result
            )
    return lines


def _summary(row: Row, columns: Sequence[str], kind: str = "") -> Summary:
    summary: dict[str, dict[str, Any]] = {}
    for direction in DIRECTIONS:
        summary[direction] = {}
        for column in columns:
            values = [
                test.get(f"{direction}_metrics{kind}", {}).get(column) for test in row.metrics
            ]
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


def _measured_line(
    row: Row, label: str, summary: Summary, best: Mapping[str, Mapping[str, Any]]
) -> Line:
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
    return Line(label, _count(count), str(len(row.runs)), cells)


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


def difference_in_std(
    own: Mapping[str, float | None], seeds: int, other: Mapping[str, float], other_seeds: int
) -> float | None:
    """Return the difference of two means in pooled standard deviations of one run.

    The pooled variance weighs that of each side by its degrees of freedom (n - 1), so a single run
    is measured by the deviation of the other side. None where nothing deviates but the means do.
    """
    difference = own["mean"] - other["mean"]
    freedom = (seeds - 1) + (other_seeds - 1)
    variances = (seeds - 1) * (own["std"] or 0) ** 2 + (other_seeds - 1) * other["std"] ** 2
    deviation = (variances / freedom) ** 0.5 if freedom else 0.0
    if deviation == 0:
        return 0.0 if difference == 0 else None
    return difference / deviation


def as_markdown(table: Table) -> str:
    """Write the table in GitHub's Markdown."""
    marks = ["---" if n < table.texts else "---:" for n in range(len(table.heads))]
    lines = [[escape_markdown(head) for head in table.heads], marks]
    for row in table.rows:
        texts = [escape_markdown(cell.text) for cell in row]
        lines.append([f"**{t}**" if c.is_best else t for t, c in zip(texts, row, strict=True)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_latex(table: Table) -> str:
    """Write the table as a LaTeX `tabular`, which needs no package."""
    columns = "l" * table.texts + "r" * (len(table.heads) - table.texts)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\hline"]
    lines += [_latex_line([escape_latex(head) for head in table.heads]), r"\hline"]
    for row in table.rows:
        texts = [escape_latex(cell.text) for cell in row]
        marked = [rf"\textbf{{{t}}}" if c.is_best else t for t, c in zip(texts, row, strict=True)]
        lines.append(_latex_line(marked))
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": as_markdown, "latex": as_latex}


def escape_markdown(text: str) -> str:
    """Spell a text so that Markdown shows it as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def escape_latex(text: str) -> str:
    """Spell a text so that LaTeX sets it as it is, on one line."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return _SIGNED.sub(r"$\1$", escaped)


def _latex_line(cells: Sequence[str]) -> str:
    # In front of "[" LaTeX would read an option of the line break before.
    first = f"{{}}{cells[0]}" if cells[0].startswith(("[", "*")) else cells[0]
    return " & ".join([first, *cells[1:]]) + r" \\"
