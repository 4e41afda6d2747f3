"""Measure what this software does, beside plain formulations of the same or another checkout.

python3 -m misc.benchmarks
python3 -m misc.benchmarks --only metrics validation --threads 2
python3 -m misc.benchmarks --beside ../before

Each workload is measured in a process of its own, so that ratios and shares hold on any machine;
with --beside FOLDER the code of this checkout and that of FOLDER take turns at the same work. The
table goes to standard output.
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from logger.progress import progress
from misc.benchmarks.measure import ROOT, Figures, WorkError, measure
from misc.benchmarks.workloads import WORKLOADS, Workload
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError, did_you_mean

HEADS = "workload", "plain", "ours", "ratio", "published", "products", "plain, GB", "ours, GB"
BESIDE_HEADS = "workload", "there", "here", "share", "there, GB", "here, GB"
LEGEND = """
Threads: {threads}, at {sizes}. Times are seconds of processor time of all threads, the median of
several runs after a first one that is not counted. GB: most that was resident in the process while
it worked, in parentheses how much more than before (libraries, inputs, model)."""
OWN_LEGEND = """
Plain: a formulation of our own, in loops over words, clusters and pairs (of loading: Python's
unpickler; of importing: all libraries). It is not the published code. Published: the time of that
code, not measured here but elsewhere, in one thread on one core of an AMD EPYC with AVX512.
Products: the workload's matrix products alone, at their own sizes and each by the faster of MKL's
and oneDNN's kernels, and their share of our time, which is 100 % at the reachable peak."""
BESIDE_LEGEND = """
There: {folder}. Share: here / there, the median over runs that took turns."""


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("benchmarks")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="measure these workloads alone")
    parser.add_argument("--threads", type=int, default=1, help="threads of each (default: 1)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="part of the real sizes, for a quick try"
    )
    parser.add_argument(
        "--beside", metavar="FOLDER", type=Path, help="compare with the code of this checkout"
    )
    parser.add_argument("--list", action="store_true", help="name the workloads and stop")
    options = parser.parse_args(arguments)
    chosen = choose(options.only)
    if options.list:
        width = max(map(len, WORKLOADS))
        for name, workload in WORKLOADS.items():
            when = " (only when it is named)" if workload.is_long else ""
            print(f"{name:{width}}  {workload.title}{when}")
        return
    if options.threads < 1 or not 0 < options.scale <= 1:
        raise UserError("--threads takes a number from 1, --scale one above 0 and up to 1.")
    beside = options.beside.resolve() if options.beside else None
    if beside and not (beside / "misc" / "benchmarks").is_dir():
        raise UserError(f"--beside takes the folder of another checkout, not {options.beside}.")
    from trainer.step import has_bfloat16  # loads torch: --help and slips are answered at once

    rows, notes = [], []
    for workload in progress(chosen, description="measuring"):
        if workload.is_bf16 and not has_bfloat16():
            notes.append(f"- {workload.title}: this processor has no instructions for it.")
        elif beside:
            rows.append(row_beside(workload, beside, options.scale, options.threads, notes))
        else:
            rows.append(row(workload, options.scale, options.threads))
    print(table(BESIDE_HEADS if beside else HEADS, rows))
    sizes = "the real sizes" if options.scale == 1 else f"scale {options.scale:g}"
    print(LEGEND.format(threads=options.threads, sizes=sizes))
    print(BESIDE_LEGEND.format(folder=beside) if beside else OWN_LEGEND, *notes, sep="\n")


def choose(names: list[str] | None) -> list[Workload]:
    """Return the workloads of these names; without names all but the longest.

    Raises:
        UserError: a name is not known.
    """
    for name in names or ():
        if name not in WORKLOADS:
            raise UserError(
                f'There is no workload "{name}"{did_you_mean(name, WORKLOADS)}; known: '
                f"{', '.join(WORKLOADS)}."
            )
    return [WORKLOADS[name] for name in names or WORKLOADS if names or not WORKLOADS[name].is_long]


def row(workload: Workload, scale: float, threads: int) -> list[str]:
    """Measure a workload and its plain formulation.

    Raises:
        UserError: a process came to an end without a result.
    """
    sides: list[Figures | None] = []
    for more in (workload.plain, {}):
        found = None if more is None else _measure(workload, scale, threads, more)[0]
        if isinstance(found, WorkError):
            raise UserError(f"The workload {workload.title} cannot be measured: {found}")
        sides.append(found)
    plain, ours = sides
    assert ours
    ratio = f"{plain.cpu_seconds / ours.cpu_seconds:.1f}" if plain else "-"
    products = "-"
    if ours.products is not None:
        products = f"{_short(ours.products)} ({100 * ours.products / ours.cpu_seconds:.0f} %)"
    times = (_seconds(plain, threads), _seconds(ours, threads))
    figures = (*times, ratio, workload.published, products, _memory(plain), _memory(ours))
    return [workload.title, *figures]


def row_beside(
    workload: Workload, folder: Path, scale: float, threads: int, notes: list[str]
) -> list[str]:
    """Measure a workload with the code of both checkouts; what one lacks is noted."""
    sides: list[Figures | None] = []
    for found, who in zip(
        _measure(workload, scale, threads, {}, (folder, ROOT)), ("there", "here"), strict=True
    ):
        if isinstance(found, WorkError):
            notes.append(f"- {workload.title}, {who}: {found}")
        sides.append(None if isinstance(found, WorkError) else found)
    there, here = sides
    share = "-"
    if there and here:
        pairs = zip(here.runs, there.runs, strict=True)
        share = f"{statistics.median(own / other for own, other in pairs):.2f}"
    times = (_seconds(there, threads), _seconds(here, threads))
    return [workload.title, *times, share, _memory(there), _memory(here)]


def _measure(
    workload: Workload,
    scale: float,
    threads: int,
    more: dict[str, Any],
    folders: Sequence[Path] = (ROOT,),
) -> list[Figures | WorkError]:
    settings = workload.settings | more | {"scale": scale}
    return measure(f"workloads.{workload.prepare.__name__}", settings, folders, threads)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; all columns but the first are figures."""
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _seconds(figures: Figures | None, threads: int) -> str:
    if not figures:
        return "-"
    passed = f" ({_short(figures.seconds)} s)" if threads > 1 else ""
    return f"{_short(figures.cpu_seconds)}{passed}"


def _short(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _memory(figures: Figures | None) -> str:
    if not figures:
        return "-"
    added = figures.peak_bytes - figures.held_bytes
    text = f"{figures.peak_bytes / 1e9:.2f}"
    return f"{text} (+{added / 1e9:.2f})" if figures.held_bytes else text


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
