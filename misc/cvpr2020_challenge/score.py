"""Score a submission against ground truth, as the challenge's server did.

python3 -m misc.cvpr2020_challenge.score submission.zip --ground_truth truth.json

For each data set R@1, R@5 and R@10 (percent of queries) and their geometric mean; the score is the
mean of the five. A prediction has no ties: what is equally similar counts as it stands in the row,
where the metrics of this project take the mean of the tied places.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from logger.log_file import open_log
from misc.cvpr2020_challenge.ground_truth import GroundTruth, read_truth, truth_of_data
from misc.cvpr2020_challenge.sets import SETS, add_data_flags, add_phase_flag, read_sets
from misc.cvpr2020_challenge.submission import check_is_there, phase_of, read_submission
from misc.results.tables import FORMATS, Cell, Table
from misc.tools import tool_parser
from utils.command_line import Parser, run_main
from utils.errors import UserError

GEOMETRIC_MEAN = "geometric_mean_R1-R5-R10"
COLUMNS = {"R1": "R@1", "R5": "R@5", "R10": "R@10", GEOMETRIC_MEAN: "Geom"}

Recalls = Mapping[str, float]


def main(arguments: list[str] | None = None) -> None:
    args = score_parser().parse_args(arguments)
    check_is_there(args.submission)
    truth = chosen_truth(args)
    rows = score(args.submission, truth)
    print(f"{args.submission}, {truth.phase}:\n")
    print(FORMATS[args.format](table_of(rows, truth)))
    missing = [name for name in SETS if name not in rows]
    if missing:
        print(
            f"note: the challenge's score is a mean of five; {', '.join(missing)} left out, of "
            "which there is no ground truth.",
            file=sys.stderr,
        )


def score_parser() -> Parser:
    parser = tool_parser("cvpr2020_challenge.score")
    parser.add_argument("submission", type=Path, help="the zip")
    parser.add_argument(
        "--ground_truth",
        metavar="PATH",
        type=Path,
        help="file of ground_truth.py (default: from the data sets that the configs name)",
    )
    add_phase_flag(parser, otherwise="that in the submission's name")
    add_data_flags(parser)
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="of the table")
    return parser


def chosen_truth(args: Namespace) -> GroundTruth:
    """Return the ground truth that the command line names, or make it of the data sets.

    Raises:
        UserError: the submission's phase is not known or another one, or there is no such file.
    """
    named = phase_of(args.submission)
    phase = args.phase or named
    if args.ground_truth:
        truth = read_truth(args.ground_truth)
        if phase not in (None, truth.phase):
            raise UserError(
                f"The ground truth {args.ground_truth} is of {truth.phase}, the submission of "
                f"{phase}."
            )
        return truth
    if phase is None:
        raise UserError(f"The name of {args.submission} tells no phase: give --phase.")
    datasets = read_sets(args.datasets)
    with open_log(None):
        return truth_of_data(phase, datasets, args.configs, args.custom_args)


def score(submission: Path, truth: GroundTruth) -> dict[str, Recalls]:
    """Measure a submission: data set -> R1, R5, R10 and their geometric mean, in percent.

    Raises:
        UserError: the submission cannot be used, or does not fit the ground truth.
    """
    predictions = read_submission(submission, truth.counts)
    return {
        name: recalls(predictions[name], entry.video_of_query) for name, entry in truth.sets.items()
    }


def recalls(predictions: np.ndarray, own: np.ndarray) -> Recalls:
    """Measure predictions (queries, 10) against each query's own video (queries,)."""
    # Only now what takes its time to load: a slip on the command line is answered at once.
    import torch

    from model.metric import rank_metrics

    is_own = predictions == own[:, None]
    # What is not among the ten has some rank beyond them.
    ranks = np.where(is_own.any(axis=1), is_own.argmax(axis=1) + 1.0, np.inf)
    metrics = rank_metrics(torch.from_numpy(ranks))
    return {name: metrics[name] for name in COLUMNS}


def mean_score(rows: Mapping[str, Recalls]) -> float:
    """Return the challenge's score: the mean over data sets of the geometric means."""
    return float(np.mean([row[GEOMETRIC_MEAN] for row in rows.values()]))


def table_of(rows: Mapping[str, Recalls], truth: GroundTruth) -> Table:
    heads = ["data set", "videos", "queries", *COLUMNS.values()]
    lines = []
    for name, row in rows.items():
        counts = truth.sets[name].counts
        cells = [name, str(counts.videos), str(counts.queries)]
        lines.append([*cells, *(f"{row[column]:.2f}" for column in COLUMNS)])
    blank = [""] * (len(heads) - 2)
    lines.append([f"score, mean of {len(rows)}", *blank, f"{mean_score(rows):.2f}"])
    return Table(heads, [[Cell(text) for text in line] for line in lines])


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "nothing was written"))
