"""Make a data set of videos: each is decoded once, and every expert looks at the same.

python3 -m misc.extract_experts --videos my_videos/ --output data/mine --captions captions.csv

The experts that need no weights are used unless --experts or --preset names others; --list shows
all of them. Videos come as folders, files, a .txt with a path a line, or a .csv of id and path.

The same command goes on where it was stopped, and adds what is missing later: more videos, a
further expert. Without captions the data set can be searched, but not trained on.
"""

import argparse
import logging
import re
import shlex
import sys
from pathlib import Path

from logger.log_file import open_log
from misc.extract_experts.decoding.cutting import CUTS
from misc.extract_experts.experts.table import PRESETS, ROWS
from misc.extract_experts.job import Asked, run
from misc.import_data_set.config import PROTOCOLS
from misc.import_data_set.fields import role_of
from misc.results.sbatch import Limits
from misc.tools import tool_parser
from utils.command_line import Parser, run_main
from utils.errors import printable
from utils.files import is_there


def main(arguments: list[str] | None = None) -> None:
    """Extract, and say what was done."""
    args = _parser().parse_args(arguments)
    if args.list:
        print("\n".join(_table()))
        return
    args.segments = args.segments or ""
    asked = Asked(**{key: value for key, value in vars(args).items() if key != "list"})
    with open_log(None, logging.INFO):
        for line in run(asked, sys.argv[1:] if arguments is None else arguments):
            print(printable(line))


def _parser() -> Parser:
    parser = tool_parser("extract_experts")
    parser.add_argument("--videos", nargs="+", type=Path, default=[], metavar="PATH")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="the data set's folder")
    parser.add_argument("--list", action="store_true", help="list experts and presets, and stop")
    which = parser.add_argument_group("experts")
    which.add_argument(
        "--experts",
        nargs="+",
        default=[],
        metavar="[NAME=]EXPERT[:MODEL]",
        help="image=timm:resnet50.a1_in1k; those of earlier commands stay",
    )
    which.add_argument("--preset", choices=[*PRESETS], help="several experts under one name")
    which.add_argument("--device", metavar="0", help="GPU of the networks (default: CPU)")
    which.add_argument(
        "--precision",
        choices=("half", "full"),
        help="of the networks (default: half on a GPU, full on the CPU)",
    )
    which.add_argument(
        "--segments",
        type=_segments,
        metavar=f"10|{CUTS}",
        help="make each segment of so many seconds, or each shot, an item of its own",
    )
    which.add_argument(
        "--workers", type=_count, metavar="N", help="processes that decode (default: by the cores)"
    )
    which.add_argument(
        "--strict", action="store_true", help="stop at a broken video instead of leaving it out"
    )
    text = parser.add_argument_group("captions (as misc.import_data_set takes them)")
    text.add_argument("--captions", nargs="+", type=_with_role, default=[], metavar="[ROLE=]PATH")
    text.add_argument(
        "--split-files", nargs="+", type=_with_role, default=[], metavar="[ROLE=]PATH"
    )
    text.add_argument("--text-encoder", metavar="FOLDER|NAME|FILE")
    text.add_argument("--captions-as", choices=[*PROTOCOLS], default="each")
    jobs = parser.add_argument_group("several machines")
    jobs.add_argument(
        "--shard", type=_shard, metavar="3/40", help="look at this part of the videos alone"
    )
    jobs.add_argument(
        "--sbatch",
        type=Path,
        metavar="FOLDER",
        help="do nothing here, but write a SLURM job array of shards into this folder",
    )
    jobs.add_argument("--shards", type=_count, default=10, metavar="N", help="of --sbatch")
    jobs.add_argument("--sbatch_time", metavar="TIME", default=Limits.time)
    jobs.add_argument("--sbatch_memory", metavar="SIZE", default=Limits.memory)
    jobs.add_argument("--sbatch_option", metavar="OPTION", action="append", default=[])
    return parser


def _segments(text: str) -> str:
    if text == CUTS or (re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", text) and float(text) >= 0.5):
        return text
    raise argparse.ArgumentTypeError(f'seconds from 0.5, or "{CUTS}", not "{text}"')


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not int(text):
        raise argparse.ArgumentTypeError(f'a whole number from 1 to 9999, not "{text}"')
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f'a part such as 3/40, from 1/40 to 40/40, not "{text}"')
    return int(match[1]), int(match[2])


def _with_role(text: str) -> tuple[str, str]:
    word, equals, path = text.partition("=")
    role = role_of(word) if equals and not is_there(Path(text)) else None
    return (role, path) if role else ("", text)


def _table() -> list[str]:
    width = max(map(len, ROWS))
    lines = [
        f"{row.name:{width}}  {row.what}; {row.licence}; weights: {row.weights}"
        for row in ROWS.values()
    ]
    presets = [f"--preset {name}: {shlex.join(specs)}" for name, specs in PRESETS.items()]
    return [*lines, "", *presets]


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "the same command goes on where this one stopped"))
