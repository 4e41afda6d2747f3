"""Test a trained checkpoint on the retrieval set of a config.

python3 test.py --config <config.json> --resume <trained_model.pth> --eval_from_training_config
"""

import logging
import sys
from argparse import Namespace
from pathlib import Path

from data_loader.errors import UserError
from logger.log_file import open_log
from logger.report import describe_run
from misc.make_data_set import make_data_set
from utils.command_line import run_main, select_device, test_parser
from utils.config import Config

_log = logging.getLogger("test")


def main(arguments: list[str] | None = None) -> None:
    args = test_parser().parse_args(arguments)
    if not args.resume:
        raise UserError("Say what to test: --resume <checkpoint>.")
    checkpoint = Path(args.resume)
    config = read_config(args)
    if args.eval_from_training_config:
        config = config.eval_config()
    device = select_device(args.device)
    with open_log(None):
        make_data_set(config.values)

    # Only now what takes its time to load: a slip on the command line is answered at once.
    from trainer.run_folder import RunFolder
    from trainer.session import run_test

    save_dir = Path(config.values["trainer"]["save_dir"])
    folder = RunFolder.of_checkpoint(checkpoint) or RunFolder.create(save_dir, config.name)
    with open_log(folder.log):
        result = run_test(config, checkpoint, folder, device)
        _log.info(
            describe_run(
                result.metrics,
                split=result.split,
                checkpoint=checkpoint,
                log=folder.log,
                page=result.page,
                predictions=result.predictions,
            )
        )


def read_config(args: Namespace) -> Config:
    """The config named on the command line, or that of the checkpoint."""
    if args.config:
        return Config.from_file(args.config, args.custom_args)
    from trainer.session import config_of_checkpoint

    return config_of_checkpoint(Path(args.resume), args.custom_args)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
