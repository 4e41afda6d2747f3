"""Draws what `growth` measured."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from misc.benchmarks.growth_measures import EvaluationFigures, StepFigures
from utils.files import replacing

_SIZE, _DPI = (9.0, 3.8), 110
_OURS, _OTHER, _GUIDE = "#1f5a96", "#b3541e", "#888888"

mpl.rcParams.update({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3})


def draw_evaluation(rows: list[EvaluationFigures], path: Path) -> None:
    """Draw time and memory over the number of videos."""
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    time, memory = figure.subplots(1, 2)
    videos = [row.videos for row in rows]
    for is_whole, fill, label in ((True, _OURS, "measured"), (False, "white", "extrapolated")):
        chosen = [row for row in rows if row.is_whole == is_whole]
        if not chosen:
            continue
        time.plot(
            [row.videos for row in chosen],
            [row.seconds for row in chosen],
            "o",
            color=_OURS,
            markerfacecolor=fill,
            label=f"{label} ({'all pairs' if is_whole else 'from a part of the captions'})",
            zorder=3,
        )
    whole = [row for row in rows if row.is_whole] or rows
    last = whole[-1]
    guide = [last.seconds * (count / last.videos) ** 2 for count in videos]
    time.plot(videos, guide, "--", color=_GUIDE, label="linear in pairs")
    time.set(xscale="log", yscale="log", xlabel="videos (1 caption each)", ylabel="cpu-seconds")
    time.set_title("Evaluation: time from embeddings to ranks, both ways")
    time.legend()
    sizes = [row.embedding_bytes / 1e9 for row in rows]
    memory.plot(videos, sizes, "s--", color=_OTHER, label="the videos' embeddings (288 numbers)")
    added = [row.added_bytes / 1e9 for row in rows]
    memory.plot(videos, added, "o-", color=_OURS, label="all other memory while ranking")
    matrix = [4 * count**2 / 1e9 for count in videos]
    memory.plot(videos, matrix, ":", color=_GUIDE, label="the similarity matrix, never held")
    memory.set(xscale="log", xlabel="videos (1 caption each)", ylabel="GB")
    memory.set_ylim(0, 1.25 * max(sizes + added))
    memory.set_title("Evaluation: memory")
    memory.legend()
    _save(figure, path)


def draw_step(rows: list[StepFigures], path: Path) -> None:
    """Draw time and memory of a training step over the number of experts."""
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    time, memory = figure.subplots(1, 2)
    experts = [row.experts for row in rows]
    time.plot(experts, [row.seconds for row in rows], "o-", color=_OURS)
    time.set(xlabel="experts", ylabel="cpu-seconds", ylim=(0, None))
    time.set_title("Training step of CE, batch 64: time")
    memory.plot(experts, [row.peak_bytes / 1e9 for row in rows], "o-", color=_OURS, label="process")
    # Five numbers a parameter: itself, its gradient, two moments, Lookahead's slow weight.
    state = [20 * row.parameters / 1e9 for row in rows]
    memory.plot(
        experts, state, "--", color=_GUIDE, label="weights, gradients and the optimiser's state"
    )
    memory.set(xlabel="experts", ylabel="GB", ylim=(0, None))
    memory.set_title("Training step of CE, batch 64: memory")
    memory.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as handle:
        figure.savefig(handle, format="png", metadata={"Software": None})
