"""Trains the challenge's baselines that are not trained yet, and collects their predictions.

python3 -m misc.cvpr2020_challenge.train_baselines --device 0

Each training ends with predictions for the phase `public_server_val`.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie two folders up
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

from misc.cvpr2020_challenge.baselines import (
    INTERRUPTED,
    baselines_parser,
    collect,
    training_jobs,
)
from misc.cvpr2020_challenge.sets import VAL
from misc.results.jobs import run_jobs
from misc.run_study import list_jobs
from utils.command_line import run_main


def main(arguments: list[str] | None = None) -> None:
    parser = baselines_parser(
        "misc.cvpr2020_challenge.train_baselines",
        "Train a baseline for each data set of the challenge, and collect its predictions for "
        f"{VAL}.",
    )
    args = parser.parse_args(arguments)
    jobs = training_jobs(args)
    if args.dry_run:
        list_jobs(jobs)
        return
    collect(jobs, VAL, args, run_jobs(jobs))


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], INTERRUPTED))
