"""Train the challenge's baselines that are not trained yet, and collect their predictions.

python3 -m misc.cvpr2020_challenge.train_baselines --device 0

Each training ends with predictions for the phase `public_server_val`.
"""

import sys

from misc.cvpr2020_challenge.baselines import (
    INTERRUPTED,
    baselines_parser,
    collect,
    training_jobs,
)
from misc.cvpr2020_challenge.sets import VAL
from misc.results.studies import run_jobs
from misc.run_study import list_jobs
from utils.command_line import run_main


def main(arguments: list[str] | None = None) -> None:
    parser = baselines_parser("train_baselines")
    args = parser.parse_args(arguments)
    jobs = training_jobs(args)
    if args.dry_run:
        list_jobs(jobs)
        return
    collect(jobs, VAL, args, run_jobs(jobs))


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], INTERRUPTED))
