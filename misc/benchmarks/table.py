"""The table of measurements, in Markdown."""

from dataclasses import dataclass

from misc.benchmarks.measure import Figures

HEADS = (
    "workload",
    "reference, cpu-s",
    "ours, cpu-s",
    "ratio",
    "reference, memory",
    "ours, memory",
    "share of peak",
)


@dataclass(frozen=True)
class Row:
    title: str
    reference: Figures | None
    ours: Figures


def markdown(rows: list[Row], threads: int, scale: float) -> str:
    """Return the table, with what its columns mean."""
    lines = [_line(HEADS), _line(["---"] + ["---:"] * (len(HEADS) - 1))]
    notes = []
    for row in rows:
        lines.append(_line(_cells(row, threads)))
        sides = (("reference", row.reference), ("ours", row.ours))
        notes += [f"- {row.title}, {who}: {f.note}" for who, f in sides if f and f.note]
    return "\n".join([*lines, "", _legend(rows, threads, scale), *notes])


def _cells(row: Row, threads: int) -> list[str]:
    ours, reference = row.ours, row.reference
    ratio = f"{reference.cpu_seconds / ours.cpu_seconds:.1f}" if reference else "-"
    share = "-"
    if ours.flops is not None:
        reached = ours.flops / ours.cpu_seconds / ours.machine_flops
        share = f"{100 * reached:.0f} % of {ours.flops / 1e9:,.0f} GFLOP"
    return [
        row.title,
        _seconds(reference, threads) if reference else "-",
        _seconds(ours, threads),
        ratio,
        _memory(reference) if reference else "-",
        _memory(ours),
        share,
    ]


def _seconds(figures: Figures, threads: int) -> str:
    mark = "≈ " if figures.part < 1 else ""
    passed = f" ({_short(figures.seconds)} s)" if threads > 1 else ""
    return f"{mark}{_short(figures.cpu_seconds)}{passed}"


def _short(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _memory(figures: Figures) -> str:
    if figures.needed is not None:
        return f"≈ {figures.needed / 1e9:.0f} GB"
    added = figures.peak_bytes - figures.held_bytes
    text = f"{figures.peak_bytes / 1e9:.2f} GB"
    return f"{text} (+{added / 1e9:.2f})" if figures.held_bytes else text


def _legend(rows: list[Row], threads: int, scale: float) -> str:
    speeds = [row.ours.machine_flops / 1e9 for row in rows]
    count = "one thread" if threads == 1 else f"{threads} threads"
    passed = " (in parentheses the seconds that passed)" if threads > 1 else ""
    sizes = "the real sizes" if scale == 1 else f"scale {scale:g} of the real sizes"
    return (
        f"Measured with {count} at {sizes}. cpu-s: seconds of processor time of all threads"
        f"{passed}, the median of several runs after a first one that is not counted; "
        "≈: extrapolated from a part of the work. Ratio: reference / ours. Memory: most that was "
        "resident in the process while it worked, in parentheses how much more than before "
        "(libraries, inputs, model). Share of peak: the operations of the workload's matrix "
        "products in a second of processor time, against a product of large matrices (float32) "
        "between the runs, which reached "
        f"{min(speeds):.0f} to {max(speeds):.0f} GFLOP/s."
    )


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
