"""Turns runs into a table: mean and standard deviation over seeds, from the metrics in run folders.

python3 -m misc.results_table data/saved/log/demo-train-full-*
"""

import argparse
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_loader.errors import UserError
from data_loader.files import read_json
from utils.command_line import run_main

DIRECTIONS = {"t2v_metrics": "t2v", "v2t_metrics": "v2t"}
COLUMNS = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MedR": "MedR"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make a Markdown table of tested runs.")
    parser.add_argument(
        "folders", nargs="+", type=Path, help="log folders of experiments, one row each"
    )
    args = parser.parse_args(arguments)
    rows = [(folder.name, newest_runs(folder)) for folder in args.folders]
    print(markdown_table(rows))


def newest_runs(experiment: Path) -> list[dict[str, Any]]:
    """The newest tested run of each seed of an experiment.

    Raises:
        UserError: there is none.
    """
    by_seed = {}
    paths = sorted(experiment.rglob("metrics.json"), key=lambda path: path.parent.name)
    for path in paths:
        metrics = read_json(path, "metrics file")
        if "test" in metrics:
            by_seed[metrics.get("seed")] = metrics
    if not by_seed:
        raise UserError(
            f"There is no tested run in {experiment}: give the log folder of an experiment "
            "(<save_dir>/log/<experiment>) that train.py has finished."
        )
    return list(by_seed.values())


def markdown_table(rows: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> str:
    """One row per experiment, `mean (std)` over its runs; one run has no standard deviation."""
    heads = ["experiment", "parameters", "seeds"]
    heads += [f"{short} {column}" for short in DIRECTIONS.values() for column in COLUMNS.values()]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for name, runs in rows:
        cells = [name, f"{runs[0]['parameters'] / 1e6:.2f}M", str(len(runs))]
        for direction in DIRECTIONS:
            for key in COLUMNS:
                cells.append(mean_and_std([run["test"][direction][key] for run in runs]))
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def mean_and_std(values: Sequence[float]) -> str:
    """`12.3 (0.4)`: mean and standard deviation of a sample (n - 1)."""
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ({statistics.stdev(values):.1f})" if len(values) > 1 else mean


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
