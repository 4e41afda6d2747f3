"""Command line: ``python3 -m misc.demo_set --folder data/demo``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from data_loader.errors import UserError
from misc.demo_set.make import make_demo_set


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong, as all tools here do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[0].upper()}{message[1:]} (--help lists what may be given).\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the demo set and say what was made; returns the exit code."""
    parser = _Parser(
        prog="python3 -m misc.demo_set",
        description="Make the demo set, continue making it, or do nothing when it is complete.",
    )
    parser.add_argument("--folder", type=Path, default=Path("data/demo"), help="where to make it")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world")
    parser.add_argument("--num_train", type=int, default=1500, help="training clips")
    parser.add_argument("--num_val", type=int, default=250, help="validation clips")
    parser.add_argument("--num_test", type=int, default=500, help="test clips")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument("--train_videos", action="store_true", help="keep training videos too")
    options = vars(parser.parse_args(arguments))
    try:
        make_demo_set(**options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: the same command continues where it stopped.", file=sys.stderr)
        return 130
    size = sum(path.stat().st_size for path in options["folder"].rglob("*") if path.is_file())
    print(
        f"The demo set in {options['folder']} is complete: {options['num_train']} training, "
        f"{options['num_val']} validation and {options['num_test']} test clips, "
        f"{size / 1e6:.1f} MB."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
