# PYTHON_ARGCOMPLETE_OK
"""Test a trained checkpoint on the retrieval set of a config.

python3 test.py --config <config.json> --resume <trained_model.pth> --eval_from_training_config
"""

from utils.stopping import quiet_while_loading

if __name__ == "__main__":
    quiet_while_loading()

import logging
import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

from logger.log_file import open_log
from logger.results import other_split
from misc.make_data_set import make_data_set
from trainer.processes.alone import Processes
from trainer.processes.starting import processes_of
from utils.command_line import log_device, log_place, run_main, select_device, test_parser
from utils.config import Config
from utils.errors import UserError

_log = logging.getLogger("test")


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    args = test_parser().parse_args(given)
    if not args.resume:
        raise UserError("Say what to test: --resume <checkpoint or run>.")
    with processes_of(args.device, [__file__], given) as processes:
        run_test(args, given, processes)


def run_test(args: Namespace, given: list[str], processes: Processes) -> None:
    """Test a checkpoint as the command line, as it was given, asks for."""
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from trainer.build import check_names
    from trainer.runs.finding import find_checkpoint
    from trainer.runs.folder import RunFolder

    with open_log(None) as log:
        log_place()
        found = find_checkpoint(Path(args.resume)) if processes.is_first else Path()
        checkpoint = processes.from_first(found)
        training_config = read_config(args, checkpoint)
        config = training_config
        if args.eval_from_training_config:
            config = training_config.eval_config()
        check_names(config)
        device = select_device(processes.own_device(args.device))
        processes.first_before_others(lambda: make_data_set(config.values))

        from trainer.testing import Test

        log_device(device, args.device, processes.count)
        test = Test.prepare(
            config, checkpoint, device, training=training_config, processes=processes
        )
        # What lies beside a published checkpoint, say, is not ours to change.
        own = RunFolder.of_checkpoint(checkpoint)
        place = Path(config["trainer.save_dir"]), config.name
        new = nullcontext(own) if own else processes.led(lambda: RunFolder.new(*place))
        with new as folder:
            if processes.is_first:
                log.into(folder.log)
            result = test.run(folder)
        key = "data_loader.args.split_name"
        splits = training_config.get(key, ""), training_config.eval_config().get(key, "")
        note = other_split(splits, given)
        _log.info(result.describe(checkpoint, folder.log, note=note))


def read_config(args: Namespace, checkpoint: Path) -> Config:
    """The config named on the command line, or that of the checkpoint."""
    if args.config:
        return Config.from_file(args.config, args.custom_args)
    from trainer.runs.finding import config_of_checkpoint

    return config_of_checkpoint(checkpoint, args.custom_args)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
