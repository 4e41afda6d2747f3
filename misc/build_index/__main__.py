"""Build an index of videos that `misc.search` searches by sentences, or change one.

python3 -m misc.build_index data/saved/models/demo-train-full-ce
python3 -m misc.build_index data/mine --zero_shot
python3 -m misc.build_index --add data/index/demo-train-full-ce --dataset data/more

The index holds all that a search needs: embeddings, the model, its text encoder.
"""

import sys
from pathlib import Path

from logger.log_file import open_log
from misc.tools import tool_parser
from utils.command_line import Parser, run_main, select_device
from utils.errors import UserError, listed

# Task -> flags that it would pass over.
_UNUSED = {
    "remove": (
        *("output", "dataset", "videos", "zero_shot", "video_dir", "encoder", "weights"),
        *("no_text", "no_correction", "approximate"),
    ),
    "add": ("output", "zero_shot", "encoder", "weights", "no_text", "no_correction", "approximate"),
    "zero_shot": ("dataset", "no_text", "no_correction"),
}
KILLED = "nothing has changed; the same command begins anew"


def main(arguments: list[str] | None = None) -> None:
    """Build an index, or change one, and say what there is then."""
    args = _parser().parse_args(arguments)
    if args.remove and (args.add or not args.source):
        raise UserError("Say from which index to remove: misc.build_index INDEX --remove ID ...")
    if not args.source and not args.add:
        raise UserError(
            "Say of what to build an index: a run or a checkpoint, such as "
            "data/saved/models/demo-train-full-ce."
        )
    task = next((name for name in _UNUSED if getattr(args, name)), "")
    unused = [f"--{name}" for name in _UNUSED.get(task, ()) if getattr(args, name)]
    if unused:
        raise UserError(f"--{task} has no use for {listed(unused)}: leave out what is not meant.")
    if args.weights is not None and args.encoder is None:
        raise UserError("--weights are those of an encoder: name it with --encoder.")
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from misc.build_index.build import Wishes, add, build, build_zero_shot, remove
    from misc.text_embeddings.job import Settings

    with open_log(None):
        encoder = Settings(args.encoder, weights=args.weights) if args.encoder else None
        wishes = Wishes(
            output=args.output,
            data_set=args.dataset,
            videos=args.videos,
            video_folder=args.video_dir,
            encoder=encoder,
            has_text=not args.no_text,
            corrects=not args.no_correction,
            approximate=args.approximate,
            device=select_device(args.device),
        )
        if args.remove:
            said = remove(Path(args.source), args.remove)
        elif args.add:
            said = add(Path(args.source) if args.source else None, args.add, wishes)
        else:
            make = build_zero_shot if args.zero_shot else build
            said = make(Path(args.source), wishes)
    print(said)


def _parser() -> Parser:
    parser = tool_parser("build_index")
    parser.add_argument(
        "source",
        metavar="RUN",
        nargs="?",
        help="a run's folder, an experiment's (its newest finished run), or a checkpoint; with "
        "--zero_shot a data set, with --remove an index",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="default: data/index/<experiment>"
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME|DIR",
        help="whose videos: a published set or a folder with a dataset.json (default: that of the "
        "training)",
    )
    parser.add_argument(
        "--videos",
        metavar="LIST",
        help="all, train, val, test, or a file of ids (default: test; all of another data set)",
    )
    parser.add_argument(
        "--zero_shot",
        action="store_true",
        help="search a data set without training, by the experts of dual encoders and, "
        "with --encoder, by what was heard and read",
    )
    parser.add_argument("--video_dir", metavar="DIR", type=Path, help="where the videos lie")
    parser.add_argument(
        "--add", metavar="INDEX", type=Path, help="add the videos to this index, by its own model"
    )
    parser.add_argument(
        "--remove", metavar="ID", nargs="+", help="remove these videos from an index"
    )
    parser.add_argument(
        "--encoder",
        metavar="ENCODER",
        help="what encodes a sentence, where the data set does not say: as "
        "prepare_text_embeddings takes it",
    )
    parser.add_argument("--weights", metavar="PATH", type=Path, help="its weights")
    parser.add_argument("--no_text", action="store_true", help="do not answer sentences")
    parser.add_argument("--no_correction", action="store_true", help="do not correct hubs")
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="add graphs (faiss) that search millions of videos faster and miss a few; how many is "
        "measured and printed",
    )
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], KILLED))
