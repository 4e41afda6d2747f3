"""Train the configs of a study that are not done yet, and print their table.

python3 -m misc.run_study --study components --dataset demo --seeds 0,1,2
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from misc.results.recipe import NAME as RECIPE
from misc.results.recipe import find_study, validation_lines
from misc.results.rows import row_of_config
from misc.results.sbatch import Limits, from_here, write_job_array
from misc.results.studies import Job, Study, run_jobs, state_of, study_names
from misc.results_table import add_table_flags, print_table
from misc.tools import tool_parser
from utils.command_line import Parser, folder_name, parse_seeds, run_main
from utils.config import Config
from utils.errors import UserError

INTERRUPTED = "the same command goes on where this one stopped"


def main(arguments: list[str] | None = None) -> None:
    args = study_parser().parse_args(arguments)
    study = chosen_study(args)
    jobs = jobs_of(study, args)
    if args.dry_run:
        list_jobs(jobs)
        return
    if args.sbatch:
        write_script(study, jobs, args)
        return
    failed = run_jobs(jobs)
    rows = [
        row_of_config(path, label, custom_args=args.custom_args, seeds=args.seeds)
        for label, path in study.configs.items()
    ]
    print(f"\n{study.title} (seeds: {', '.join(map(str, args.seeds))}):\n")
    print_table(rows, args, study.row)
    if study.name == RECIPE:
        print("\n" + "\n".join(validation_lines(rows, study, args.custom_args)))
    if failed:
        which = ", ".join(f"{job.label} with seed {job.seed}" for job in failed)
        raise UserError(
            f"{len(failed)} of {len(jobs)} trainings failed ({which}): see above why. The same "
            "command runs these again, and no other."
        )


def study_parser() -> Parser:
    parser = tool_parser("run_study")
    parser.add_argument(
        "--study", metavar="NAME", help=f"which one: {', '.join([*study_names(), RECIPE])}"
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"folder below configs/ (demo, msrvtt); of {RECIPE} also a data set's own folder",
    )
    parser.add_argument(
        "--configs", nargs="+", metavar="PATH", help="configs of your own in place of a study"
    )
    parser.add_argument("--seeds", metavar="0,1,2", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    parser.add_argument(
        "--custom_args", metavar="KEY@VALUE+...", help="values to replace in each config"
    )
    parser.add_argument(
        "--group_id",
        metavar="ID",
        type=folder_name,
        help="name of the group under which new runs lie (default: the study's name)",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="only list what is done and what would run"
    )
    parser.add_argument(
        "--sbatch",
        metavar="FOLDER",
        type=Path,
        help="train nothing here, but write a SLURM job array into this folder",
    )
    parser.add_argument(
        "--sbatch_time",
        metavar="TIME",
        default=Limits.time,
        help=f"limit of each task, after which it is queued again (default: {Limits.time})",
    )
    parser.add_argument(
        "--sbatch_memory",
        metavar="SIZE",
        default=Limits.memory,
        help=f"memory of each task (default: {Limits.memory})",
    )
    parser.add_argument(
        "--sbatch_notice",
        metavar="SECONDS",
        type=int,
        default=Limits.notice,
        help=f"how long before its limit a task saves (default: {Limits.notice})",
    )
    parser.add_argument(
        "--sbatch_gpus",
        metavar="N",
        type=int,
        default=Limits.gpus,
        help="GPUs of each node that train together, a process for each (default: one process)",
    )
    parser.add_argument(
        "--sbatch_nodes",
        metavar="N",
        type=int,
        default=Limits.nodes,
        help="nodes that train together (default: 1)",
    )
    parser.add_argument(
        "--sbatch_option",
        metavar="OPTION",
        action="append",
        default=[],
        help='for the script: "--sbatch_option=--partition=gpu"; may be given several times',
    )
    add_table_flags(parser)
    return parser


def chosen_study(args: argparse.Namespace) -> Study:
    """Return the study that the command line names, or makes of configs."""
    args.seeds = parse_seeds(args.seeds)
    if args.configs:
        if args.study or args.dataset:
            raise UserError("--configs stands in place of --study and --dataset: give one.")
        names = {path: Config.from_file(path).name for path in args.configs}
        if len(set(names.values())) < len(args.configs):
            raise UserError("--configs names an experiment twice.")
        return Study("configs", "Configs", "experiment", {n: path for path, n in names.items()})
    if not (args.study and args.dataset):
        raise UserError(
            f"Say what to run: --study ({', '.join([*study_names(), RECIPE])}) with --dataset, or "
            "--configs."
        )
    return find_study(args.study, args.dataset)


def jobs_of(study: Study, args: argparse.Namespace) -> list[Job]:
    """List the trainings of a study, and refuse it where a config cannot be used."""
    jobs = [
        Job(label, path, seed, args.group_id or study.name, args.device, args.custom_args)
        for label, path in study.configs.items()
        for seed in args.seeds
    ]
    for job in jobs:
        _ = job.config["trainer.save_dir"]
    return jobs


def list_jobs(jobs: Sequence[Job]) -> None:
    """Print what is done and what would run."""
    states = [state_of(job) for job in jobs]
    for job, state in zip(jobs, states, strict=True):
        print(f"{job.config_path}, seed {job.seed}: {state.describe()}")
    done = sum(state.done is not None for state in states)
    print(f"{done} of {len(jobs)} trainings are done, {len(jobs) - done} would run.")


def write_script(study: Study, jobs: Sequence[Job], args: argparse.Namespace) -> None:
    """Write a job array of what is not done yet."""
    commands = [job.script for job in jobs if not state_of(job).done]
    if not commands:
        print("Everything is done: there is nothing to submit.")
        return
    name = "-".join(filter(None, (study.name, args.dataset)))
    if args.sbatch_gpus and args.device:
        raise UserError("--sbatch_gpus gives each process its GPU: leave --device out.")
    taken = (args.sbatch_time, args.sbatch_memory, args.sbatch_notice)
    limits = Limits(*taken, args.sbatch_gpus, args.sbatch_nodes)
    path = write_job_array(from_here(args.sbatch), name, commands, limits, args.sbatch_option)
    print(
        f"{len(commands)} of {len(jobs)} trainings are not done yet. "
        f"Submit them from this folder: {shlex.join(['sbatch', str(path)])}"
    )
    print("The same command without --sbatch then trains what failed, and prints the table.")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], INTERRUPTED))
