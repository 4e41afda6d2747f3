"""Predict a phase of the challenge with the trained baselines, and collect what they say.

python3 -m misc.cvpr2020_challenge.test_baselines --phase public_server_test --device 0

Models are those of `train_baselines`; what they have predicted already is not made again.
"""

import sys

from misc.cvpr2020_challenge.baselines import (
    INTERRUPTED,
    baselines_parser,
    collect,
    training_jobs,
)
from misc.cvpr2020_challenge.sets import TEST, add_phase_flag, phase_config
from misc.results.studies import state_of
from utils.command_line import run_main


def main(arguments: list[str] | None = None) -> None:
    parser = baselines_parser("test_baselines")
    add_phase_flag(parser, default=TEST)
    args = parser.parse_args(arguments)
    jobs = training_jobs(args)
    for job in jobs:
        phase_config(args.configs, job.label, args.phase, args.custom_args)
    if args.dry_run:
        for job in jobs:
            run = state_of(job).done
            found = run and run.predictions_on(args.phase)
            state = f"done: {found}" if found else "to be predicted" if run else "not trained"
            print(f"{job.label}, {args.phase}: {state}")
        return
    collect(jobs, args.phase, args, failed={})


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], INTERRUPTED))
