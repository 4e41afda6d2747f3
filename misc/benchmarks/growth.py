"""Plot how evaluation grows with the number of videos, and a training step with experts.

python3 -m misc.benchmarks.growth --most_videos 1000000 --most_experts 16

Prints the figures as tables and draws them (needs requirements/benchmark-requirements.txt). Each
is measured in a process of its own with one thread; times are seconds of processor time.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from logger.progress import progress
from misc.benchmarks.growth_measures import EvaluationFigures, StepFigures, evaluation, step
from misc.benchmarks.measure import in_own_process
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError
from utils.files import make_folder

FOLDER = Path(__file__).resolve().parent / "plots"
FEWEST_VIDEOS, FEWEST_EXPERTS = 1000, 2


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("benchmarks.growth")
    parser.add_argument("--most_videos", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--most_experts", type=int, default=16, metavar="M")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the plots go")
    options = parser.parse_args(arguments)
    if options.most_videos < FEWEST_VIDEOS or options.most_experts < FEWEST_EXPERTS:
        raise UserError(f"At least {FEWEST_VIDEOS} videos and {FEWEST_EXPERTS} experts are needed.")
    try:
        from misc.benchmarks import growth_plots
    except ImportError as error:
        raise UserError(
            "The plots need matplotlib: pip install -r requirements/benchmark-requirements.txt"
        ) from error
    make_folder(options.folder)
    by_videos = _each(evaluation, video_counts(options.most_videos))
    growth_plots.draw_evaluation(by_videos, options.folder / "growth-evaluation.png")
    print(_evaluation_table(by_videos))
    by_experts = _each(step, range(FEWEST_EXPERTS, options.most_experts + 1, 2))
    growth_plots.draw_step(by_experts, options.folder / "growth-experts.png")
    print()
    print(_step_table(by_experts))


def video_counts(most: int) -> list[int]:
    """Return 1,000, then twice as many each time, and the most."""
    counts = []
    count = FEWEST_VIDEOS
    while count < most:
        counts.append(count)
        count *= 2
    return [*counts, most]


def _each(function: Callable, counts: Sequence[int]) -> list:
    return [in_own_process(function, n) for n in progress(counts, description=function.__name__)]


def _evaluation_table(rows: list[EvaluationFigures]) -> str:
    lines = [
        "| videos | cpu-s | ns a pair | embeddings, GB | memory besides, GB |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        mark = "" if row.is_whole else "≈ "
        lines.append(
            f"| {row.videos:,} | {mark}{row.seconds:,.3g} | {1e9 * row.seconds / row.videos**2:.1f}"
            f" | {row.embedding_bytes / 1e9:.3f} | {row.added_bytes / 1e9:.3f} |"
        )
    return "\n".join(lines)


def _step_table(rows: list[StepFigures]) -> str:
    lines = ["| experts | parameters | cpu-s | memory, GB |", "| ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row.experts} | {row.parameters / 1e6:.1f}M | {row.seconds:.3g} | "
        f"{row.peak_bytes / 1e9:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
