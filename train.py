"""Train the model of a config, test it, and say where everything is.

python3 train.py --config configs/demo/train-full-ce.json
"""

import logging
import sys
from argparse import Namespace
from pathlib import Path

from data_loader.errors import UserError
from logger.log_file import open_log
from logger.report import describe_run
from logger.results import append_to_leaderboard, write_summary
from logger.tables import seeds_table
from misc.make_data_set import make_data_set
from utils.command_line import chosen_seeds, run_main, select_device, train_parser
from utils.config import Config

_log = logging.getLogger("train")


def main(arguments: list[str] | None = None) -> None:
    args = train_parser().parse_args(arguments)
    if args.resume and args.purge_exp_dir:
        raise UserError("--purge_exp_dir would remove the run that --resume continues: give one.")
    config = read_config(args)
    if args.leaderboard and config.eval_config().get("challenge_mode", False):
        raise UserError("--leaderboard collects metrics, which challenge_mode does not measure.")
    seeds = chosen_seeds(args, default=config.get("seed", 0))
    device = select_device(args.device)
    with open_log(None):
        make_data_set(config.values)

    # Only now what takes its time to load: a slip on the command line is answered at once.
    from trainer.run_folder import RunFolder, purge_experiment
    from trainer.session import Options, seed_of_run, train_run

    save_dir = Path(config["trainer.save_dir"])
    group_id = args.group_id or ""
    resume = Path(args.resume) if args.resume else None
    if resume:
        runs = {seed_of_run(resume): RunFolder.of_checkpoint(resume)}
    else:
        runs = dict.fromkeys(seeds)
    if args.purge_exp_dir:
        purge_experiment(save_dir, config.name)
    is_one_of_many = len(runs) > 1 or bool(group_id)

    options = Options(device, args.mini_train, args.train_single_epoch, resume)
    metrics = {}
    for seed, folder in runs.items():
        folder = folder or RunFolder.create(
            save_dir, config.name, seed if is_one_of_many else None, group_id
        )
        with folder.kept_if_used(), open_log(folder.log):
            result = train_run(config, seed, folder, options)
            _log.info(
                describe_run(
                    result.metrics,
                    split=result.split,
                    checkpoint=folder.best_checkpoint,
                    log=folder.log,
                    page=result.page,
                    tensorboard=options.use_tensorboard(config),
                    predictions=result.predictions,
                )
            )
            if not result.predictions:  # of a challenge, in place of metrics
                metrics[seed] = result.metrics
    if len(metrics) > 1:
        report_seeds(config.name, save_dir / "log" / config.name / group_id, metrics)
    if args.leaderboard:
        append_to_leaderboard(Path(args.leaderboard), config.name, metrics)


def report_seeds(name: str, folder: Path, metrics: dict[int, dict]) -> None:
    """Log and write the mean and standard deviation over the seeds of one experiment."""
    with open_log(folder):
        _log.info("%s, mean (std) over %d seeds:", name, len(metrics))
        _log.info(seeds_table(list(metrics.values())))
        write_summary(folder, metrics)


def read_config(args: Namespace) -> Config:
    """The config named on the command line, or that of the checkpoint to continue."""
    if args.config:
        return Config.from_file(args.config, args.custom_args)
    if not args.resume:
        raise UserError("Say what to train: --config <config.json>, or --resume <checkpoint>.")
    from trainer.session import config_of_checkpoint

    return config_of_checkpoint(Path(args.resume), args.custom_args)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
