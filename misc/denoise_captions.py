"""Find the training captions that teachers cannot match to their own videos, and leave them out.

python3 -m misc.denoise_captions --config configs/demo/train-ce-intra-mte.json --top_k 100

A caption stays if its own video ranks within the top K of all training videos for the teachers
(Croitoru et al. 2021, section 4). What is written goes into a config as `caption_masks` (video ->
0/1 for each caption) and `training_file` (the videos that keep at least one caption).
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

from logger.log_file import open_log
from misc.make_data_set import make_data_set
from misc.teachtext import AGGREGATES, MASKS_FOLDER
from misc.tools import tool_parser
from utils.command_line import Parser, folder_name, run_main, select_device
from utils.config import Config
from utils.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    if args.top_k < 1:
        raise UserError(f"--top_k is {args.top_k}, a rank of at least 1 was expected.")
    # The masks are what is to be made; a config that names them already is welcome.
    config = Config.from_file(args.config, args.custom_args).merged(
        {"caption_masks": None, "training_file": None}
    )
    if config.get("data_loader.args.fuse_captions"):
        raise UserError(
            "This config joins all captions of a video to one (fuse_captions): there are no single "
            "captions to leave out."
        )
    if args.teachers:
        config = config.merged({"distil_params": {"base_path": "", "teachers": args.teachers}})
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from misc.teachtext.denoising import denoise

    with open_log(None):
        make_data_set(config.values)
        denoise(config, args, select_device(args.device))


def _parser() -> Parser:
    parser = tool_parser("denoise_captions")
    parser.add_argument(
        "--config",
        metavar="PATH",
        required=True,
        help="config of the data set; its distil_params name the teachers",
    )
    parser.add_argument(
        "--teachers", metavar="PATH", nargs="+", help="teacher files, in place of the config's"
    )
    parser.add_argument(
        "--top_k", metavar="K", type=int, required=True, help="rank within which captions stay"
    )
    parser.add_argument(
        "--aggregate", choices=AGGREGATES, default="mean", help="how teachers are joined"
    )
    parser.add_argument(
        "--output_dir",
        metavar="PATH",
        help=f"folder of what is written (default: {MASKS_FOLDER} in the data set's folder)",
    )
    parser.add_argument(
        "--name", metavar="NAME", type=folder_name, help="name of the files (denoise-less<K>)"
    )
    parser.add_argument(
        "--examples", metavar="N", type=int, default=10, help="captions to show (default: 10)"
    )
    parser.add_argument(
        "--kinds",
        metavar="PATH",
        help='file of video -> what each caption is ("true" or another word), to measure against',
    )
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    parser.add_argument(
        "--custom_args", metavar="KEY@VALUE+...", help="values to replace in the config"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
