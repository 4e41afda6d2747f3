"""Make the demo set, continue making it, or do nothing when it is complete.

python3 -m misc.demo_set --folder data/demo
"""

import sys
from pathlib import Path

from misc.demo_set.make import make_demo_set
from misc.tools import tool_parser
from utils.command_line import run_main


def main(arguments: list[str] | None = None) -> None:
    """Make the demo set and say what was made."""
    parser = tool_parser("demo_set")
    parser.add_argument("--folder", type=Path, default=Path("data/demo"), help="where to make it")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world")
    parser.add_argument("--num_train", type=int, default=1500, help="training clips")
    parser.add_argument("--num_val", type=int, default=250, help="validation clips")
    parser.add_argument("--num_test", type=int, default=500, help="test clips")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument("--train_videos", action="store_true", help="keep training videos too")
    options = vars(parser.parse_args(arguments))
    make_demo_set(**options)
    size = sum(path.stat().st_size for path in options["folder"].rglob("*") if path.is_file())
    print(
        f"The demo set in {options['folder']} is complete: {options['num_train']} training, "
        f"{options['num_val']} validation and {options['num_test']} test clips, "
        f"{size / 1e6:.1f} MB."
    )


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "the same command continues where it stopped"))
