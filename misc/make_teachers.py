"""Make a teacher of a trained model: its embeddings of all training videos and captions.

python3 -m misc.make_teachers --resume data/saved/models/demo-train-full-ce

Name the file under `distil_params.teachers` of a student's config (what it holds stands in
`data_loader.teachers.teacher`). Student and teacher may use different experts and text features;
what counts is that the data set has the same training videos with the same captions.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

from logger.log_file import open_log
from misc.make_data_set import make_data_set
from misc.teachtext import SUFFIX, TEACHERS_FOLDER
from misc.tools import tool_parser
from utils.command_line import Parser, run_main, select_device
from utils.config import Config


def main(arguments: list[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from misc.teachtext.teachers import make_teacher
    from trainer.runs.finding import config_of_checkpoint, find_checkpoint

    with open_log(None):
        checkpoint_path = find_checkpoint(Path(args.resume))
        if args.config:
            config = Config.from_file(args.config, args.custom_args)
        else:
            config = config_of_checkpoint(checkpoint_path, args.custom_args)
        # A teacher knows all training captions, whichever of them its own training left out.
        config = config.merged({"caption_masks": None, "training_file": None})
        make_data_set(config.values)
        device = select_device(args.device)
        output = make_teacher(
            config, checkpoint_path, device, args.output, args.float16, args.published_format
        )
    print(f"Made from {checkpoint_path}.")
    print(f"The teacher is {output} ({output.stat().st_size / 1e6:.1f} MB).")
    print(f'Name it in a student\'s config: "distil_params": {{"teachers": ["{output}"]}}.')


def _parser() -> Parser:
    parser = tool_parser("make_teachers")
    parser.add_argument(
        "--resume",
        metavar="PATH",
        required=True,
        help="the trained model, its run's folder, or an experiment's: the newest that is finished",
    )
    parser.add_argument(
        "--config", metavar="PATH", help="config file; without it, that beside --resume"
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help=f"the file (default: {TEACHERS_FOLDER}/<experiment>{SUFFIX} in the data set's folder)",
    )
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    parser.add_argument(
        "--custom_args", metavar="KEY@VALUE+...", help="values to replace in the config"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--float16", action="store_true", help="store half precision: half the size"
    )
    precision.add_argument(
        "--published_format",
        action="store_true",
        help="write the pickle that the published system reads; not exact where experts are "
        "missing",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
