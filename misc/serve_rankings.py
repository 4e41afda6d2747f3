"""Serve the rankings pages of a run, or those of all runs with a table and comparisons.

python3 -m misc.serve_rankings data/saved
python3 -m misc.serve_rankings data/saved/web/demo-train-full-ce/<timestamp>
python3 -m misc.serve_rankings data/saved --export pages
python3 -m misc.serve_rankings --picture rankings.png data/saved/web/demo-train-full-ce/<timestamp>

Given the folder of all runs it shows them in a table, opens each and compares any two, query by
query; --export writes the same pages for any static server.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from misc.browser import browsing, find_browser
from misc.page_server import TYPES, PageServer, file_response
from misc.run_pages.export import export
from misc.run_pages.places import find_pages, find_save_dir
from misc.run_pages.site import Site
from misc.tools import add_address_flags, tool_parser
from utils.command_line import run_main
from utils.errors import UserError
from utils.files import make_folder, replacing

PICTURE_SIZE = {"width": 1100, "height": 840}
# Every link to a video in sight has become one, which shows its first frame.
ALL_SHOWN = """() => [...document.querySelectorAll("a.play, video")].every((shown) => {
  const box = shown.getBoundingClientRect();
  const inSight = box.height && box.top < innerHeight && box.bottom > 0;
  return !inSight || shown.readyState >= 2;
})"""


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("serve_rankings")
    parser.add_argument(
        "folder",
        type=Path,
        help="folder of all runs (data/saved), or of one under models, log, web",
    )
    add_address_flags(parser)
    parser.add_argument(
        "--picture",
        metavar="FILE.png",
        type=Path,
        help="take a picture of the page and stop (needs playwright and Chromium)",
    )
    parser.add_argument(
        "--export", metavar="FOLDER", type=Path, help="write the pages of all runs there and stop"
    )
    parser.add_argument(
        "--copy_videos", action="store_true", help="with --export: copy videos, do not link them"
    )
    parser.add_argument(
        "--search", metavar="URL", type=_address, help="link a search that is served"
    )
    args = parser.parse_args(arguments)
    if args.copy_videos and not args.export:
        raise UserError("--copy_videos belongs to --export: give both, or neither.")
    pages = find_site(args.folder, args.search or "")
    if args.export:
        if pages.save_dir is None:
            raise UserError("--export takes the folder of all runs (data/saved).")
        count = export(pages.save_dir, args.export, args.search or "", args.copy_videos)
        print(f"The pages of {count} runs are in {args.export} (open index.html).")
        return
    if args.picture:
        take_picture(pages, args.picture)
        print(f"The picture is {args.picture} ({args.picture.stat().st_size / 1e3:.0f} kB).")
        return
    server = make_page_server(pages, args.host, args.port)
    print(f"The rankings are at {server.address} (stop with Ctrl-C).", flush=True)
    server.serve_forever()


def take_picture(pages: Site, path: Path) -> None:
    """Take a picture of the top of a site's front page, as a browser shows it.

    Raises:
        UserError: it cannot be written, or there is no browser to take it with.
    """
    if path.suffix != ".png":
        raise UserError(f'--picture {path} must end in ".png".')
    find_browser()
    make_folder(path.parent)
    with browsing(make_page_server(pages, "127.0.0.1", 0), PICTURE_SIZE) as page:
        page.wait_for_function(ALL_SHOWN)
        picture = page.screenshot()
    with replacing(path) as handle:
        handle.write(picture)


def find_site(folder: Path, search: str = "") -> Site:
    """Find what a folder is of: one run, or all runs.

    Raises:
        UserError: there is no such folder, or no page in it.
    """
    if pages := find_pages(folder):
        return Site(pages, search=search)
    if save_dir := find_save_dir(folder):
        return Site(save_dir=save_dir, search=search)
    raise UserError(
        f"There is no rankings page in {folder.resolve()}: give the folder of all runs "
        "(data/saved), or that of one run, such as data/saved/web/<experiment>/<timestamp>; "
        "test.py draws its page if the config has a visualizer."
    )


def _address(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https"):
        raise argparse.ArgumentTypeError(
            f'"{text}" is no address that begins with http:// or https://'
        )
    return text


def make_page_server(site: Site, host: str, port: int) -> PageServer:
    """Listen at an address, ready for `serve_forever`, with the files of a site.

    Raises:
        UserError: the address cannot be used.
    """
    return PageServer(partial(_answer, site), host, port)


def _answer(site: Site, request: Request) -> Response:
    # A name of any bytes, as the file system has it: WSGI hands bytes over as Latin-1.
    name = os.fsdecode(request.environ["PATH_INFO"].encode("latin-1")).removeprefix("/")
    if not name:
        front = site.front()
        if front is None:
            raise NotFound()
        asked = request.query_string.decode("latin-1")  # what the page's filters are
        return redirect(f"{front}?{asked}" if asked else front)
    path = site.find(name)
    if path is None:
        raise NotFound()
    if isinstance(path, str):
        return Response(path, mimetype=TYPES[Path(name).suffix])
    return file_response(request, path)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
