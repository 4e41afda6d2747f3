"""The runs of a folder as a table: what each measured, how far it came, where its page is."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from logger.page.list import read_page_list
from logger.page.runs import RunGroup, RunRow, RunTable, curve_points
from logger.results import COLUMNS
from misc.results.rows import rows_of_runs
from misc.results.runs import Run, experiment_name, readable_runs
from misc.run_pages.places import RUNS, front_page
from trainer.runs.folder import age_of

# Of the task "t2v_metrics"; the last one is of videos as queries.
_FIGURES = ("R1", "R5", "R10", "MedR", "geometric_mean_R1-R5-R10")
_TASK = "t2v_metrics"
_MONITORED = "val_t2v_metrics_geometric_mean_R1-R5-R10"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d(_\d+)?")


def gather(save_dir: Path) -> RunTable:
    """Read all runs under `save_dir/log`; one that cannot be read is a note."""
    log = save_dir / "log"
    runs, notes = readable_runs(log)
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        name = experiment_name(run, default=log.name)
        groups.setdefault((name, run.final_split), []).append(run)
    # Trainings that have not come to their test stand beside those of their experiment that have.
    for (name, split), members in [*groups.items()]:
        others = [s for n, s in groups if n == name and s]
        if not split and others:
            groups[name, others[-1]] += members
            del groups[name, split]
    tables = []
    for (name, split), members in groups.items():
        rows = rows_of_runs([r for r in members if r.is_finished], name) if split else []
        counted = [row for row in rows if row.split == split]
        notes += [note for row in counted for note in row.notes if not note.endswith("counts.")]
        metrics = [values.get(_TASK, {}) for row in counted for values in row.metrics]
        columns = [[m[figure] for m in metrics if figure in m] for figure in _FIGURES]
        members.sort(key=lambda run: age_of(run.log), reverse=True)
        tables.append(
            RunGroup(
                experiment=name,
                split=split,
                seeds=len(metrics),
                means=[float(np.mean(values)) if values else None for values in columns],
                spreads=[
                    float(np.std(values, ddof=1)) if len(values) > 1 else None for values in columns
                ],
                runs=[_row(run, save_dir) for run in members],
            )
        )
    tables.sort(key=lambda group: group.newest, reverse=True)
    heads = [COLUMNS[figure].replace("Geom", "geometric mean") for figure in _FIGURES]
    here = Path.cwd()
    shown = save_dir.relative_to(here) if save_dir.is_relative_to(here) else save_dir
    return RunTable(f"Runs in {shown}", heads, tables, notes=list(dict.fromkeys(notes)))


def _row(run: Run, save_dir: Path) -> RunRow:
    place = run.log.resolve().relative_to((save_dir / "log").resolve())
    web = save_dir / "web" / place
    page, data = front_page(web), ""
    if page:
        [data] = [e.data for e in read_page_list(web) if e.file == page] or [""]
    base = f"{RUNS}/{quote(place.as_posix())}/"
    epochs = run.metrics.get("epochs", [])
    return RunRow(
        name="/".join(place.parts[1:]) or place.name,
        seed="" if run.seed is None else str(run.seed),
        date=_date(place.name),
        status=_status(run, epochs),
        figures=_figures(run, epochs),
        curve=curve_points(_points(epochs)),
        page=f"{base}{quote(page)}" if page else "",
        base=base,
        data=data if page and data and (web / "data" / data / "index.js").is_file() else "",
    )


def _date(name: str) -> str:
    found = _TIME.fullmatch(name)
    return f"{found[1]} {found[2]}:{found[3]}" if found else name


def _status(run: Run, epochs: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    if run.is_quick_try:
        parts.append("quick try")
    if not run.is_finished:
        parts.append(f"validation after epoch {epochs[-1].get('epoch')}" if epochs else "no test")
    elif run.seed is None:
        parts.append("test alone")
    if "test" not in run.metrics and "predictions" in run.metrics:
        parts.append("predictions for a challenge")
    return ", ".join(parts)


def _figures(run: Run, epochs: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Of the final test or, where there is none yet, of the last validation."""
    if run.is_finished:
        metrics = run.test_on(run.final_split) or {}
        values = dict(metrics.get(_TASK, {}))
    else:
        last = epochs[-1] if epochs else {}
        values = {figure: last.get(f"val_{_TASK}_{figure}") for figure in _FIGURES}
    found = [values.get(figure) for figure in _FIGURES]
    return [v if isinstance(v, int | float) and math.isfinite(v) else None for v in found]


def _points(epochs: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    pairs = [(record.get("epoch"), record.get(_MONITORED)) for record in epochs]
    return [
        (epoch, value)
        for epoch, value in pairs
        if isinstance(epoch, int) and isinstance(value, int | float) and math.isfinite(value)
    ]
