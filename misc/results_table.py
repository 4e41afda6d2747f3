"""Turn runs into a table: mean and standard deviation over seeds, from the metrics in run folders.

python3 -m misc.results_table data/saved/log/demo-train-full-*
python3 -m misc.results_table configs/demo/train-full-ce.json configs/demo/train-full-moee.json
python3 -m misc.results_table --study components --dataset demo --format latex
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from logger.results import COLUMNS
from misc.results.recipe import find_study
from misc.results.rows import Row, row_of_config, rows_of_folder
from misc.results.tables import FORMATS, LAYOUTS
from misc.tools import tool_parser
from utils.command_line import parse_seeds, run_main
from utils.errors import UserError, did_you_mean, printable
from utils.files import is_there

DEFAULT_COLUMNS = "R1,R5,R10,MedR"


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("results_table")
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUNS",
        help="log folders of experiments, or configs: a row each, of the newest run of each seed",
    )
    parser.add_argument("--study", metavar="NAME", help="the rows of a study (misc.run_study)")
    parser.add_argument("--dataset", metavar="NAME", help="the data set of the study")
    parser.add_argument("--split", metavar="NAME", help="only tests on this split")
    parser.add_argument(
        "--custom_args", metavar="KEY@VALUE+...", help="the configs' runs with these overrides"
    )
    parser.add_argument("--seeds", metavar="0,1,2", help="of configs and studies, only these")
    add_table_flags(parser)
    args = parser.parse_args(arguments)
    rows, first_head = chosen_rows(args)
    print_table(rows, args, first_head)


def add_table_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a table looks."""
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="of the table")
    parser.add_argument(
        "--rows",
        choices=LAYOUTS,
        default="experiments",
        help="a row for each experiment, or one for each task as in the published tables",
    )
    parser.add_argument(
        "--columns",
        metavar="R1,R5,...",
        type=read_columns,
        default=DEFAULT_COLUMNS,
        help=f"metrics to show (default: {DEFAULT_COLUMNS}; all: each of them)",
    )
    parser.add_argument(
        "--no_published", action="store_true", help="without the rows of published results"
    )


def read_columns(text: str) -> list[str]:
    """Read the value of --columns: names of metrics, as they are or as the table shows them."""
    if text == "all":
        return list(COLUMNS)
    names = {title: name for name, title in COLUMNS.items()} | {name: name for name in COLUMNS}
    columns = []
    for part in (part.strip() for part in text.split(",")):
        if part not in names:
            raise argparse.ArgumentTypeError(
                f'there is no column "{part}"{did_you_mean(part, names)}; there are '
                f"{', '.join(COLUMNS.values())}"
            )
        if names[part] not in columns:
            columns.append(names[part])
    return columns


def chosen_rows(args: argparse.Namespace) -> tuple[list[Row], str]:
    """Return the rows that the command line asks for, and the head of their first column."""
    if bool(args.study) != bool(args.dataset):
        raise UserError("--study and --dataset belong together: give both, or neither.")
    if not args.study and not args.runs:
        raise UserError(
            "Say what to show: log folders (data/saved/log/<experiment>), configs, or --study."
        )
    seeds = parse_seeds(args.seeds) if args.seeds else None
    rows: list[Row] = []
    head = "experiment"
    for name in args.runs:
        if name.endswith(".json") and not is_there(Path(name), Path.is_dir):
            rows.append(row_of_config(name, "", args.split, args.custom_args, seeds))
        else:
            rows += rows_of_folder(Path(name), args.split)
    if args.study:
        study = find_study(args.study, args.dataset)
        head = head if args.runs else study.row
        for label, config in study.configs.items():
            rows.append(row_of_config(config, label, args.split, args.custom_args, seeds))
    return rows, head


def print_table(rows: Sequence[Row], args: argparse.Namespace, first_head: str) -> None:
    """Print a table on stdout, and what it leaves out on stderr."""
    table = LAYOUTS[args.rows](rows, first_head, args.columns, not args.no_published)
    print(printable(FORMATS[args.format](table), keep="\n"))
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        print(f"note: {printable(note)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
