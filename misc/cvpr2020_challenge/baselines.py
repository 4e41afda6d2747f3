"""What training and testing the baselines have in common: jobs, and predictions in one folder."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from misc.cvpr2020_challenge.sets import (
    BASELINE_SETS,
    BASELINES,
    OUTPUT,
    SETS,
    VAL,
    add_data_flags,
    config_path,
    phase_config,
    predictions_file,
    read_sets,
)
from misc.results.runs import Run
from misc.results.studies import Job, run_uninterrupted, state_of
from misc.tools import tool_parser
from utils.command_line import Parser, folder_name, parse_seeds
from utils.errors import UserError
from utils.files import make_folder, reason, replacing

TEST_PROGRAM = Path(__file__).resolve().parents[2] / "test.py"
GROUP = "challenge"
INTERRUPTED = "the same command goes on where this one stopped"


def baselines_parser(name: str) -> Parser:
    parser = tool_parser(f"cvpr2020_challenge.{name}")
    add_data_flags(parser, BASELINE_SETS)
    parser.add_argument("--seed", metavar="0", default="0", help="of the trainings (default: 0)")
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    parser.add_argument(
        "--group_id",
        metavar="ID",
        type=folder_name,
        default=GROUP,
        help=f"name of the group under which new runs lie (default: {GROUP})",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=OUTPUT,
        help=f"predictions are collected in <FOLDER>/<phase> (default: {OUTPUT})",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="only list what is done and what would run"
    )
    return parser


def training_jobs(args: argparse.Namespace) -> list[Job]:
    """List the trainings, one for each data set, and refuse where a config cannot be used."""
    seeds = parse_seeds(args.seed, "--seed")
    if len(seeds) > 1:
        raise UserError(f'--seed takes one seed, not "{args.seed}".')
    jobs = []
    for name in read_sets(args.datasets, BASELINE_SETS):
        phase_config(args.configs, name, VAL, args.custom_args)
        path = str(config_path(args.configs, name, VAL))
        jobs.append(Job(name, path, seeds[0], args.group_id, args.device, args.custom_args))
    return jobs


def collect(
    jobs: Sequence[Job], phase: str, args: argparse.Namespace, failed: Mapping[Job, int]
) -> None:
    """Predict what is not predicted yet, and bring the predictions of all sets together.

    What lies in the folder from before, of a set that has failed now, is removed: a submission
    must not be packed of this and that.

    Args:
        jobs: the trainings, of which some may not be done.
        phase: of the challenge.
        args: the command line.
        failed: trainings that failed just now.

    Raises:
        UserError: a set failed; the others are collected all the same.
    """
    folder = make_folder(args.output / phase)
    without = []
    for number, job in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {job.label}, {phase}: ", end="", flush=True)
        target = folder / predictions_file(job.label)
        try:
            if job in failed:
                raise UserError(f"its training failed with exit code {failed[job]}, see above")
            _copy(predictions_of(job, phase, args), target)
            print(target)
        except UserError as error:
            print(f"failed: {error}")
            without.append(job.label)
            _remove(target)
    if without:
        raise UserError(
            f"{len(without)} of {len(jobs)} data sets failed ({', '.join(without)}): see above "
            "why. The same command runs these again, and no other."
        )
    _tell_how_to_submit(jobs, phase, folder, args)


def predictions_of(job: Job, phase: str, args: argparse.Namespace) -> Path:
    """Return the predictions of a trained baseline, which are made where there are none yet.

    Raises:
        UserError: it is not trained, or the test failed.
    """
    run = finished_run(job)
    found = run.predictions_on(phase)
    if found is None:
        print("to be predicted", flush=True)
        code = run_uninterrupted(prediction_command(job, run, phase, args))
        found = finished_run(job).predictions_on(phase)
        if code or found is None:
            raise UserError(f"its test failed with exit code {code}, see above")
    return found


def finished_run(job: Job) -> Run:
    """Return the run of a training that is done.

    Raises:
        UserError: there is none.
    """
    state = state_of(job)
    if state.done is None:
        notes = "; ".join(["it is not trained", *state.notes])
        raise UserError(f"{notes}: misc.cvpr2020_challenge.train_baselines trains it")
    return state.done


def prediction_command(job: Job, run: Run, phase: str, args: argparse.Namespace) -> list[str]:
    """Return the command line that predicts a phase with the best model of a run."""
    config = Path(job.config_path).with_name(BASELINES[phase])
    flags = ["--config", str(config), "--resume", str(run.folder.best_checkpoint)]
    flags += ["--eval_from_training_config"]
    flags += ["--custom_args", args.custom_args] if args.custom_args else []
    flags += ["--device", args.device] if args.device else []
    return [sys.executable, str(TEST_PROGRAM), *flags]


def _copy(source: Path, target: Path) -> None:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {source}: {reason(error)}") from error
    with replacing(target) as handle:
        handle.write(content)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"Cannot remove {path}: {reason(error)}.") from error


def _tell_how_to_submit(
    jobs: Sequence[Job], phase: str, folder: Path, args: argparse.Namespace
) -> None:
    print(f"The predictions for {phase} are in {folder}.")
    if {job.label for job in jobs} >= set(SETS):
        flags = ["--phase", phase]
        if args.output != OUTPUT:
            flags += ["--predictions", str(folder), "--output_dir", str(args.output)]
        command = ["python3", "-m", "misc.cvpr2020_challenge.prepare_submission", *flags]
        print(f"Pack them: {shlex.join(command)}")
