"""Make a data set of other people's files: captions, lists of videos and features of any layout.

python3 -m misc.import_data_set --output data/mine --captions captions.csv \
    --features clip=clip_frames/ audio=vggish.h5
python3 -m misc.import_data_set --output data/mine --captions MSRVTT_data.json \
    --split-files train=train_9k.csv test=MSRVTT_JSFUSION_test.csv --features clip=clip.pickle

It says what it took each file and field for, how many ids of captions, lists and experts meet, and
ends with a data set that misc.check_data_set passes, a config and the command that trains.

Lists of videos come from --split-files, from a column or key of the captions, or are drawn. The
same command again changes nothing; --add brings more videos into a data set that was imported.
"""

import argparse
import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from logger.log_file import open_log
from misc.import_data_set.asked import Making
from misc.import_data_set.config import PROTOCOLS
from misc.import_data_set.data_set import import_data_set
from misc.import_data_set.fields import role_of
from misc.import_data_set.gather import Request
from misc.import_data_set.ids import check_template
from misc.import_data_set.text import is_word_vectors
from misc.tools import tool_parser
from utils.command_line import LARGEST_SEED, Parser, run_main
from utils.errors import UserError, printable, short
from utils.files import is_there

_LONGEST_NAME = 100


def main(arguments: list[str] | None = None) -> None:
    """Import, and say what was found and made."""
    args = _parser().parse_args(arguments)
    if args.segment_ids:
        check_template(args.segment_ids)
    request = Request(
        captions=[_with_role(text) for text in args.captions],
        features=[_feature(text) for text in args.features],
        split_files=[_with_role(text) for text in args.split_files],
        id_column=args.id_column,
        caption_column=args.caption_column,
        split_column=args.split_column,
        segment_ids=args.segment_ids,
        draw=args.draw,
        seed=args.seed,
        leave_out=args.leave_out,
    )
    if not args.add and not (request.captions and request.features):
        missing = "--features" if request.captions else "--captions"
        raise UserError(f"{missing} is missing: captions and at least one expert are needed.")
    _refuse_repetition("--captions", request.captions)
    _refuse_repetition("--features", [text.split("=", 1) for text in request.features])
    _refuse_repetition("--split-files", request.split_files)
    if args.videos and not is_there(Path(args.videos), Path.is_dir):
        raise UserError(f"--videos {args.videos} is no folder.")
    encodes = args.text_encoder and not is_word_vectors(args.text_encoder)
    if args.device and not (encodes or args.add):
        raise UserError(
            "--device has no meaning where no model encodes the captions (--text-encoder)."
        )
    making = Making(args.name, args.captions_as, args.text_encoder, args.aggregate, args.videos)
    with open_log(None, logging.INFO):
        for line in import_data_set(args.output, request, making, args.add, args.device):
            print(printable(line))
    print(f"Train:\n  python3 train.py --config {shlex.quote(str(args.output / 'config.json'))}")


def _parser() -> Parser:
    parser = tool_parser("import_data_set")
    parser.add_argument("--output", type=_folder, required=True, metavar="FOLDER")
    parser.add_argument(
        "--captions",
        nargs="+",
        default=[],
        metavar="[ROLE=]PATH",
        help="files of captions, or a folder with a text for each video; ROLE (train, val, test) "
        "where neither the file nor its name says it",
    )
    parser.add_argument(
        "--features",
        nargs="+",
        default=[],
        metavar="EXPERT=PATH",
        help="a file or a folder of features for each expert",
    )
    parser.add_argument(
        "--split-files",
        nargs="+",
        default=[],
        metavar="[ROLE=]PATH",
        help="lists of training, validation and test videos; sentences in the list of test videos "
        "are its queries",
    )
    parser.add_argument("--id-column", metavar="NAME", help="the field that holds ids of videos")
    parser.add_argument("--caption-column", metavar="NAME", help="the field that holds captions")
    parser.add_argument("--split-column", metavar="NAME", help="the field that holds the split")
    parser.add_argument(
        "--segment-ids",
        metavar="TEMPLATE",
        help='ids of segments, such as "{video}_{number}" or "{video}_{start}_{end}"',
    )
    parser.add_argument(
        "--draw",
        type=_shares,
        default=(8, 1, 1),
        metavar="8,1,1",
        help="proportion of training, validation and test videos where they are drawn",
    )
    parser.add_argument("--seed", type=_seed, default=0, help="of the draw")
    parser.add_argument(
        "--leave-out", action="store_true", help="leave out listed videos that have no captions"
    )
    parser.add_argument(
        "--captions-as", choices=[*PROTOCOLS], default="each", help="what is a query of the test"
    )
    parser.add_argument(
        "--text-encoder",
        metavar="FOLDER|NAME|FILE",
        help="a Hugging Face model, or a file of word vectors (default: word vectors are made of "
        "the training captions)",
    )
    parser.add_argument("--device", metavar="0", help="GPU to encode captions on (default: CPU)")
    parser.add_argument(
        "--aggregate", choices=("avg", "max"), help="one vector for each video, of those it has"
    )
    parser.add_argument("--videos", metavar="FOLDER", help="the videos, for the rankings page")
    parser.add_argument("--name", help="name of the data set (default: that of its folder)")
    parser.add_argument(
        "--add", action="store_true", help="add these sources to a data set imported before"
    )
    return parser


def _refuse_repetition(flag: str, sources: Sequence[Sequence[str]]) -> None:
    """Refuse a source that is given twice: its captions would count twice."""
    seen = set()
    for name, path in sources:
        place = (name, os.path.realpath(path))
        if place in seen:
            raise UserError(f"{flag} names {path} twice.")
        seen.add(place)


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a folder was expected, not an empty name")
    return Path(text)


def _with_role(text: str) -> tuple[str, str]:
    """Split `train=FILE` into role and path."""
    word, equals, path = text.partition("=")
    role = role_of(word) if equals and not is_there(Path(text)) else None
    return (role, path) if role else ("", text)


def _feature(text: str) -> str:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UserError(f'--features takes EXPERT=PATH, as in clip=clip_frames/, not "{text}".')
    if name == "text" or len(name) > _LONGEST_NAME:
        raise UserError(
            f'"{short(name)}" cannot be the name of an expert: at most {_LONGEST_NAME} letters '
            'were expected, and not "text", as which configs know the captions.'
        )
    return text


def _shares(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]{1,6},[0-9]{1,6},[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(
            f'three numbers such as "8,1,1" were expected, not "{text}"'
        )
    shares = tuple(map(int, text.split(",")))
    if 0 in shares:
        raise argparse.ArgumentTypeError(f'each list needs a share, not "{text}"')
    return shares


def _seed(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f'a whole number up to {LARGEST_SEED}, not "{text}"')
    return int(text)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "the same command starts again"))
