"""Pack the predictions for the five data sets into one zip, after a close look at each.

python3 -m misc.cvpr2020_challenge.prepare_submission --phase public_server_val
"""

import sys
from pathlib import Path

from data_loader.sets.description import Counts
from misc.cvpr2020_challenge.ground_truth import read_truth
from misc.cvpr2020_challenge.sets import OUTPUT, SETS, add_phase_flag, published_counts
from misc.cvpr2020_challenge.submission import read_folder, write_submission
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("cvpr2020_challenge.prepare_submission")
    add_phase_flag(parser)
    parser.add_argument(
        "--predictions",
        metavar="FOLDER",
        type=Path,
        help=f"folder with {', '.join(f'{name}.csv' for name in SETS)} (default: "
        f"{OUTPUT}/<phase>, where train_baselines and test_baselines leave them)",
    )
    parser.add_argument(
        "--output_dir",
        metavar="FOLDER",
        type=Path,
        default=OUTPUT,
        help=f"where the zip goes (default: {OUTPUT})",
    )
    parser.add_argument(
        "--ground_truth",
        metavar="PATH",
        type=Path,
        help="check the numbers of videos and queries against this file (of ground_truth.py), for "
        "data that are not the published ones",
    )
    args = parser.parse_args(arguments)
    folder = args.predictions or OUTPUT / args.phase
    counts = counts_to_expect(args.phase, args.ground_truth)
    predictions = read_folder(folder, counts)
    path = write_submission(args.output_dir, args.phase, predictions)
    for name, size in counts.items():
        print(f"{name}: {size}")
    print(f"The submission is {path}.")


def counts_to_expect(phase: str, ground_truth: Path | None) -> dict[str, Counts]:
    """Return the size of the retrieval set of each of the five: as published, or of a file.

    Raises:
        UserError: the file cannot be used, is of another phase, or lacks a set.
    """
    if ground_truth is None:
        return published_counts(phase)
    truth = read_truth(ground_truth)
    if truth.phase != phase:
        raise UserError(f"The ground truth {ground_truth} is of {truth.phase}, not of {phase}.")
    missing = [name for name in SETS if name not in truth.sets]
    if missing:
        raise UserError(f"The ground truth {ground_truth} lacks {', '.join(missing)}.")
    return truth.counts


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "nothing was written"))
