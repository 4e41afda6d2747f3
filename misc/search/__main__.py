"""Find the videos of an index that a sentence describes.

python3 -m misc.search data/index/demo-train-full-ce "a red balloon rises while a bell rings"
python3 -m misc.search data/index/demo-train-full-ce --video clip.mp4 --experts speech=0
python3 -m misc.search data/index/demo-train-full-ce --serve
python3 -m misc.search data/index/demo-train-full-ce --picture search.webp

Several sentences describe one video together. Each hit says why: the share of every expert in its
similarity, and what is said or to be read in it.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from logger.log_file import open_log
from misc.search.hits import Hit
from misc.tools import add_address_flags, tool_parser
from utils.command_line import Parser, run_main, select_device
from utils.errors import UserError, listed, printable, short

if TYPE_CHECKING:
    from misc.search.searcher import Searcher

_WORDS_SHOWN = 8
_K = 5
# What a question may hold besides sentences, and what of it the page can begin with.
_QUESTION = ("experts", "video", "image", "like", "among", "between", "threshold", "json")
_ON_PAGE = ("--not", "--like", "--experts", "-k")
NO_MATCH = "No confident match: what follows is only the nearest there is."


def main(arguments: list[str] | None = None) -> None:
    """Search an index and print what is found."""
    args = _parser().parse_args(arguments)
    _check(args)
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from misc.search.searcher import Searcher

    with open_log(None):
        device = select_device(args.device)
        searcher = Searcher.open(args.index, device, exact=args.exact, milvus=args.milvus)
        if args.serve:
            from logger.page.search import Asked
            from misc.search.page.serve import serve

            [query] = args.query or [""]
            without = ". ".join(args.without)
            asked = Asked(query, without, args.like or "", args.experts or {}, args.k)
            serve(searcher, args.host, args.port, asked, device)
            return
        if args.picture:
            from misc.search.page.picture import take_picture

            take_picture(searcher, args.picture, " ".join(args.query))
            print(f"The picture is {args.picture} ({args.picture.stat().st_size / 1e3:.0f} kB).")
            return
        hits = _found(searcher, args)
    if args.threshold is not None:
        hits = [hit for hit in hits if hit.score >= args.threshold]
    if args.json:
        print(json.dumps([hit.as_dict() for hit in hits], ensure_ascii=False, indent=2))
    else:
        print(_told(hits, args))


def _check(args: argparse.Namespace) -> None:
    if args.serve or args.picture:
        _check_page(args)
        return
    ways = [bool(args.query), *(v is not None for v in (args.video, args.image, args.like))]
    if sum(ways) != 1:
        what = "a sentence, or one of --video, --image and --like"
        raise UserError(
            f"Search for one thing: {what}, not for {sum(ways)} at once."
            if any(ways)
            else f"Say what to search for: {what}."
        )
    if args.without and not args.query:
        raise UserError("--not goes with a sentence: it says what should not be there.")


def _check_page(args: argparse.Namespace) -> None:
    """Insist that the page, or its picture, can begin with what is asked for."""
    if args.serve and args.picture:
        raise UserError("--serve and --picture are two tasks: give one of them.")
    flag, beside = ("--serve", _ON_PAGE) if args.serve else ("--picture", ())
    given = [f"--{name}" for name in _QUESTION if getattr(args, name) not in (None, False)]
    given += ["--not"] * bool(args.without) + ["-k"] * (args.k != _K)
    if others := [name for name in given if name not in beside]:
        also = f" and {', '.join(beside)}" if beside else ""
        raise UserError(f"{flag} takes a sentence{also} to begin with, not {listed(others)}.")
    if len(args.query) > 1:
        raise UserError(f"{flag} takes one sentence, not {len(args.query)}: put it in quotes.")
    if args.query and args.like is not None:
        raise UserError("Search for one thing: a sentence or --like, not for 2 at once.")


def _found(searcher: "Searcher", args: argparse.Namespace) -> list[Hit]:
    among = None if args.among is None else _ids(args.among)
    options = {"weights": args.experts, "among": among, "between": args.between}
    if args.query:
        return searcher.search(args.query, args.k, without=args.without, **options)
    if args.like is not None:
        return searcher.more_like(args.like, args.k, **options)
    from misc.search.files import embed_file

    video = embed_file(searcher, args.video or args.image, select_device(args.device))
    return searcher.more_like(video, args.k, **options)


def _ids(path: Path) -> list[str]:
    from data_loader.formats.read import read_id_list

    return read_id_list(path)


# What is printed ---------------------------------------------------------------------------------


def _told(hits: Sequence[Hit], args: argparse.Namespace) -> str:
    if not hits:
        if args.threshold is not None:
            return "No video reaches the threshold."
        among = " among these" if args.among is not None else ""
        return f"No video{among}{' between these seconds' if args.between is not None else ''}."
    lines = []
    if hits[0].confident is False and args.threshold is None:
        lines.append(NO_MATCH)
    for place, hit in enumerate(hits, start=1):
        span = ""
        if hit.start is not None and hit.end is not None:
            span = f"  {_clock(hit.start)}-{_clock(hit.end)} of {hit.parent}"
        lines.append(f"{place:>3}. {hit.score:.3f}  {hit.video_id}{span}")
        if hit.path is not None:
            lines.append(f"     {hit.path}")
        shares = sorted(hit.experts.items(), key=lambda item: -item[1])
        if shares:
            lines.append("     why: " + "  ".join(f"{name} {value:.3f}" for name, value in shares))
        for expert, said in _words(hit).items():
            lines.append(f"     {expert}: {said}")
    return printable("\n".join(lines), keep="\n")


def _words(hit: Hit) -> dict[str, str]:
    told: dict[str, list[str]] = {}
    for word in hit.words:
        at = "" if word.start is None else f" ({_clock(word.start)})"
        told.setdefault(word.expert, []).append(f"{short(word.text)}{at}")
    return {
        expert: ", ".join(words[:_WORDS_SHOWN]) + (" ..." if len(words) > _WORDS_SHOWN else "")
        for expert, words in told.items()
    }


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


# The command line --------------------------------------------------------------------------------


def _weights(text: str) -> dict[str, float]:
    found = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        try:
            factor = float(value)
        except ValueError:
            factor = math.nan
        if not equals or not 0 <= factor < math.inf:
            raise argparse.ArgumentTypeError(
                f'"{short(part)}" is no weight of an expert such as speech=2 or ocr=0'
            )
        found[name.strip()] = factor
    return found


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f'"{short(text)}" is no score such as 0.2')
    return value


def _range(text: str) -> tuple[float, float]:
    start, _, end = text.partition("-")
    try:
        found = float(start), float(end)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f'"{short(text)}" is no range of seconds such as 10-60'
        ) from error
    return found


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text[:9]) >= 1 or len(text) > 9:
        raise argparse.ArgumentTypeError(f'"{short(text)}" is no number of 1 or more')
    return int(text)


def _parser() -> Parser:
    parser = tool_parser("search")
    parser.add_argument("index", metavar="INDEX", type=Path, help="folder of misc.build_index")
    parser.add_argument("query", metavar="SENTENCE", nargs="*", help="what the video shows")
    parser.add_argument("-k", metavar="N", type=_count, default=_K, help="how many (default: 5)")
    parser.add_argument(
        "--not",
        dest="without",
        metavar="SENTENCE",
        action="append",
        default=[],
        help="what it should not show; may be given several times",
    )
    parser.add_argument(
        "--experts",
        metavar="NAME=FACTOR,...",
        type=_weights,
        help="count experts more or less than the sentence asks for: speech=2,ocr=0",
    )
    parser.add_argument("--video", metavar="FILE", type=Path, help="search for what is like it")
    parser.add_argument("--image", metavar="FILE", type=Path, help="search for what looks like it")
    parser.add_argument("--like", metavar="ID", help="search for what is like a video of the index")
    parser.add_argument("--among", metavar="FILE", type=Path, help="search these videos alone: ids")
    parser.add_argument(
        "--between", metavar="START-END", type=_range, help="search segments of these seconds alone"
    )
    parser.add_argument(
        "--threshold", metavar="SCORE", type=_score, help="leave out what scores less"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="serve a page to search on, begun with SENTENCE",
    )
    add_address_flags(parser)
    parser.add_argument(
        "--picture",
        metavar="FILE.webp",
        type=Path,
        help="take an animated picture of the page, where the sentence (or an example) is typed "
        "(needs playwright and Chromium)",
    )
    parser.add_argument("--exact", action="store_true", help="use no approximate index")
    parser.add_argument("--milvus", metavar="URI", help="let the Milvus at this address search")
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
