# PYTHON_ARGCOMPLETE_OK
"""Train the model of a config, test it, and say where everything is.

python3 train.py --config configs/demo/train-full-ce.json
"""

from utils.stopping import Stopped, quiet_while_loading

if __name__ == "__main__":
    quiet_while_loading()

import logging
import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from logger.log_file import FILE_ALONE, open_log
from logger.results import append_to_leaderboard, seeds_table, write_summary
from misc.make_data_set import make_data_set
from trainer.processes.alone import Processes
from trainer.processes.starting import processes_of
from utils.command_line import (
    chosen_seeds,
    log_device,
    log_place,
    run_main,
    select_device,
    train_parser,
)
from utils.config import Config
from utils.config_schema import TRAINING_KEYS
from utils.errors import UserError
from utils.files import check_writable

if TYPE_CHECKING:
    from trainer.session import Options

_log = logging.getLogger("train")


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    args = train_parser().parse_args(given)
    with processes_of(args.device, [__file__], given) as processes:
        with open_log(None):
            log_place()
        train(args, processes)


def train(args: Namespace, processes: Processes) -> None:
    """Train and test with every seed that the command line asks for."""
    is_new = args.resume in (None, "auto")
    for flag, given in (
        ("--purge_exp_dir", args.purge_exp_dir and args.resume),
        ("--init_from", args.init_from and not is_new),
    ):
        if given:
            raise UserError(f"--resume continues a run, {flag} is for a new one: give one of them.")
    if not is_new:
        from trainer.runs.finding import find_checkpoint

        with open_log(None):
            path = Path(args.resume)
            found = find_checkpoint(path, "continue") if processes.is_first else path
            args.resume = processes.from_first(found)
    config = read_config(args)
    config.require(TRAINING_KEYS)
    if args.leaderboard and config.eval_config().get("challenge_mode", False):
        raise UserError("--leaderboard collects metrics, which challenge_mode does not measure.")
    for path in (config["trainer.save_dir"], args.leaderboard):
        check_writable(Path(path or ""))
    seeds = chosen_seeds(args, default=config.get("seed", 0))
    device = select_device(processes.own_device(args.device))

    # Only now what takes its time to load: a slip on the command line is answered at once.
    from trainer.build import check_names
    from trainer.runs.folder import purge_experiment
    from trainer.runs.resuming import run_to_continue
    from trainer.session import Options

    check_names(config)
    with open_log(None):
        processes.first_before_others(lambda: make_data_set(config.values))
    if not is_new:
        is_asked = args.seeds is not None or args.group_seed is not None
        run = run_to_continue(args.resume, seeds if is_asked else None, args.group_id)
        seeds = [run.facts.get("seed", 0)]
    if args.dry_run:
        with open_log(None):
            dry_run(config, seeds[0], Options(device, processes=processes), args.device)
        return
    if args.purge_exp_dir and processes.is_first:
        with open_log(None):
            purge_experiment(Path(config["trainer.save_dir"]), config.name)
    options = Options(device, args.mini_train, args.train_single_epoch, processes)
    is_one_of_many = len(seeds) > 1 or bool(args.group_id)
    try:
        metrics = {seed: train_seed(config, seed, is_one_of_many, args, options) for seed in seeds}
    except Stopped as stop:
        if len(seeds) > 1 and stop.saved:
            stop.saved += ", and with all seeds by the same command line and --resume auto"
        raise
    metrics = {seed: measured for seed, measured in metrics.items() if measured}
    if not processes.is_first:
        return
    if len(metrics) > 1:
        folder = Path(config["trainer.save_dir"], "log", config.name, args.group_id or "")
        report_seeds(config.name, folder, metrics)
    if args.leaderboard:
        append_to_leaderboard(Path(args.leaderboard), config.name, metrics)


def train_seed(
    config: Config, seed: int, is_one_of_many: bool, args: Namespace, options: "Options"
) -> dict[str, dict[str, float]]:
    """Train and test with one seed; returns the metrics, none of a challenge."""
    from trainer.runs.finding import Wanted
    from trainer.runs.resuming import earlier_run
    from trainer.session import Training

    wanted = Wanted(config, seed, args.group_id or "", is_one_of_many, options.is_quick_try)
    led = options.processes.led
    with open_log(None) as log, led(lambda: earlier_run(wanted, args.resume)) as run:
        if run and run.is_done:
            _log.info("Seed %d is done: %s", seed, run.folder.log)
            return run.folder.read_metrics().get("test", {})
        log_place(FILE_ALONE)
        log_device(options.device, args.device, options.processes.count)
        training = Training.prepare(config, seed, options, run and run.checkpoint)
        with nullcontext(run.folder) if run else led(wanted.new_run) as folder:
            if options.processes.is_first:
                log.into(folder.log)
            result = training.run(folder)
            with_curves = options.use_tensorboard(config)
            _log.info(result.describe(folder.best_checkpoint, folder.log, with_curves))
    return result.metrics


def dry_run(config: Config, seed: int, options: "Options", asked_device: str | None) -> None:
    """Log what is to be trained and what that takes."""
    from misc.describe import describe
    from trainer.dry_run import measured
    from trainer.session import Training

    log_device(options.device, asked_device, options.processes.count)
    training = Training.prepare(config, seed, options)
    for line in (*describe(config), "", *measured(training)):
        _log.info("%s", line)
    _log.info("Nothing was trained, and no run was made.")


def report_seeds(name: str, folder: Path, metrics: dict[int, dict]) -> None:
    """Log and write the mean and standard deviation over the seeds of one experiment."""
    with open_log(folder):
        _log.info("%s, mean (std) over %d seeds:", name, len(metrics))
        _log.info(seeds_table(list(metrics.values())))
        write_summary(folder, metrics)


def read_config(args: Namespace) -> Config:
    """The config named on the command line, or that of the run to continue."""
    overrides = {"init_from": args.init_from} if args.init_from else {}
    if args.config:
        return Config.from_file(args.config, args.custom_args).merged(overrides)
    if not args.resume or args.resume == "auto":
        raise UserError("Say what to train: --config <config.json>, or --resume <run>.")
    from trainer.runs.finding import config_of_checkpoint

    return config_of_checkpoint(args.resume, args.custom_args)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
