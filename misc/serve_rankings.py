"""Serve the rankings pages of a run, with videos in which one can seek.

python3 -m misc.serve_rankings data/saved/web/demo-train-full-ce/<timestamp>
python3 -m misc.serve_rankings --picture rankings.png data/saved/web/demo-train-full-ce/<timestamp>
"""

import os
import re
import sys
from functools import partial
from pathlib import Path

from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from logger.page.videos import LINK, SHOWN_SUFFIXES, is_file
from misc.browser import browsing, find_browser
from misc.page_server import PageServer, file_response
from misc.tools import add_address_flags, tool_parser
from utils.command_line import run_main
from utils.errors import UserError
from utils.files import is_there, make_folder, replacing

PICTURE_SIZE = {"width": 1100, "height": 840}
CLOSE_CHARTS = "() => document.querySelectorAll('details').forEach((d) => { d.open = false })"
# Every link to a video in sight has become one, which shows its first frame.
ALL_SHOWN = """() => [...document.querySelectorAll("a.play, video")].every((shown) => {
  const box = shown.getBoundingClientRect();
  const inSight = box.height && box.top < innerHeight && box.bottom > 0;
  return !inSight || shown.readyState >= 2;
})"""
# What a folder of videos may hold besides is nobody's business; a page among it would be trouble.
PAGE_SUFFIXES = (".html", ".css", ".js")


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("serve_rankings")
    parser.add_argument("folder", type=Path, help="folder of a run under models, log or web")
    add_address_flags(parser)
    parser.add_argument(
        "--picture",
        metavar="FILE.png",
        type=Path,
        help="take a picture of the page and stop (needs playwright and Chromium)",
    )
    args = parser.parse_args(arguments)
    pages = find_pages(args.folder)
    if args.picture:
        take_picture(pages, args.picture)
        print(f"The picture is {args.picture} ({args.picture.stat().st_size / 1e3:.0f} kB).")
        return
    server = make_page_server(pages, args.host, args.port)
    print(f"The rankings are at {server.address} (stop with Ctrl-C).", flush=True)
    server.serve_forever()


def take_picture(pages: Path, path: Path) -> None:
    """Take a picture of the top of a folder's front page, as a browser shows it.

    Raises:
        UserError: it cannot be written, or there is no browser to take it with.
    """
    if path.suffix != ".png":
        raise UserError(f'--picture {path} must end in ".png".')
    find_browser()
    make_folder(path.parent)
    with browsing(make_page_server(pages, "127.0.0.1", 0), PICTURE_SIZE) as page:
        page.evaluate(CLOSE_CHARTS)  # so that there is room for videos
        page.wait_for_function(ALL_SHOWN)
        picture = page.screenshot()
    with replacing(path) as handle:
        handle.write(picture)


def find_pages(folder: Path) -> Path:
    """Find the folder of pages of a run, given any of the run's three folders.

    Raises:
        UserError: there is no such folder, or no page in it.
    """
    if not is_there(folder, Path.is_dir):
        raise UserError(f"There is no folder {folder}: give that of a run, as train.py names it.")
    folder = folder.resolve()
    places = [folder]
    for place in range(len(folder.parts)):
        if folder.parts[place] in ("models", "log"):
            places.append(Path(*folder.parts[:place], "web", *folder.parts[place + 1 :]))
    for place in places:
        if front_page(place):
            return place
    raise UserError(
        f"There is no rankings page in {folder}: give the folder of one run, such as "
        "data/saved/web/<experiment>/<timestamp>; test.py draws its page if the config has a "
        "visualizer."
    )


def front_page(folder: Path) -> str | None:
    """The page to begin with: that of the test, else that of the last epoch."""
    if (folder / "index.html").is_file():
        return "index.html"
    epochs = [
        (int(number[1]), path.name)
        for path in folder.glob("epoch-*.html")
        if (number := re.fullmatch(r"epoch-(\d+)\.html", path.name))
    ]
    return max(epochs)[1] if epochs else None


def make_page_server(folder: Path, host: str, port: int) -> PageServer:
    """Listen at an address, ready for `serve_forever`, with the files of one folder of pages.

    Raises:
        UserError: the address cannot be used.
    """
    return PageServer(partial(_answer, folder), host, port)


def _answer(folder: Path, request: Request) -> Response:
    # A name of any bytes, as the file system has it: WSGI hands bytes over as Latin-1.
    name = os.fsdecode(request.environ["PATH_INFO"].encode("latin-1")).removeprefix("/")
    if not name:
        front = front_page(folder)
        if front is None:
            raise NotFound()
        return redirect(front)
    path = find_file(folder, name)
    if path is None:
        raise NotFound()
    return file_response(request, path)


def find_file(folder: Path, name: str) -> Path | None:
    """Find what a request names in the folder of pages or among its videos; None for all else.

    A link among the videos may lead anywhere: who made the folder of videos has put it there. No
    name leads out of the folders by itself, and no link out of the folder of pages is followed
    but that of the videos.
    """
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in name:
        return None
    path = folder.joinpath(*parts)
    is_video = parts[0] == LINK and len(parts) > 1
    if path.suffix not in (SHOWN_SUFFIXES if is_video else PAGE_SUFFIXES) or not is_file(path):
        return None
    if not is_video and not path.resolve().is_relative_to(folder.resolve()):
        return None
    return path


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
