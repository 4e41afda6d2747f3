"""Turn raw captions into a file of text features that the data loader reads.

python3 -m misc.prepare_text_embeddings --encoder FOLDER --captions captions.json --output text.npz

The same command goes on where a run was interrupted.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

import argparse
import re

from logger.log_file import open_log
from misc.text_embeddings.known_encoders import KNOWN, POOLINGS, SPECIAL_TOKENS
from misc.tools import tool_parser
from utils.command_line import Parser, run_main, select_device
from utils.errors import UserError

TYPES = ("float32", "float16")
INTERRUPTED = "the same command goes on where it stopped"


def main(arguments: list[str] | None = None) -> None:
    """Turn raw captions into a file of text features, or go on with one that was begun."""
    args = _parser().parse_args(arguments)
    if args.output.suffix != ".npz":
        raise UserError(f'--output {args.output} must end in ".npz".')
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from misc.text_embeddings.captions import captions_of_dataset, read_all
    from misc.text_embeddings.encoding import make_features
    from misc.text_embeddings.job import Settings
    from misc.text_embeddings.output import check_name, record_path

    settings = Settings(**{name: getattr(args, name) for name in Settings.__dataclass_fields__})
    check_name(record_path(args.output))
    with open_log(None):
        device = select_device(args.device)
        source = args.captions or captions_of_dataset(
            args.dataset, args.data_dir, args.root_feat_folder
        )
        captions = read_all(source)
        print(make_features(args.output, captions, settings, device, args.dtype, args.batch_tokens))


def _parser() -> Parser:
    parser = tool_parser("prepare_text_embeddings", f"Known encoders: {', '.join(KNOWN)}.")
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="NAME|PATH",
        help="a known encoder, a folder of a Hugging Face model, its name on the hub, or a file "
        "of word vectors",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--captions", type=Path, metavar="FILE", help="raw captions (.json or a published .pkl)"
    )
    source.add_argument(
        "--dataset", metavar="NAME|FOLDER", help="data set whose captions are taken instead"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--data_dir", type=Path, help="folder of a published data set")
    parser.add_argument(
        "--root_feat_folder",
        default="",
        metavar="NAME",
        help="its folder of features, as in configs",
    )
    parser.add_argument("--weights", type=Path, metavar="PATH", help="weights of a known encoder")
    parser.add_argument("--dictionary", type=Path, metavar="FILE", help="the words of MIL-NCE")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the hub")
    parser.add_argument(
        "--pooling",
        help=f"a vector for each token, or one for each caption: {', '.join(POOLINGS)} "
        '(default: tokens; "max" for MIL-NCE)',
    )
    parser.add_argument(
        "--layer", type=int, help="hidden states to take: 0 the embeddings, -1 the last (default)"
    )
    parser.add_argument(
        "--special_tokens",
        choices=SPECIAL_TOKENS,
        help="whether the tokens that a model adds ([CLS], </s>) count as words (default: keep)",
    )
    parser.add_argument(
        "--max_length", type=_positive, metavar="N", help="tokens of a caption that are read"
    )
    parser.add_argument("--dtype", choices=TYPES, default="float32", help="type of the values")
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    parser.add_argument(
        "--batch_tokens", type=_positive, default=8192, metavar="N", help="tokens of a batch"
    )
    return parser


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a whole number of at least 1 was expected, not "{text}"')
    return int(text)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], INTERRUPTED))
