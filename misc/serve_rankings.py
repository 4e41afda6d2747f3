"""Serve the rankings pages of a run, with videos in which one can seek.

python3 -m misc.serve_rankings data/saved
python3 -m misc.serve_rankings data/saved/web/demo-train-full-ce/<timestamp>
python3 -m misc.serve_rankings data/saved --export pages
python3 -m misc.serve_rankings --picture rankings.png data/saved/web/demo-train-full-ce/<timestamp>

Given the folder of all runs it shows them in a table, opens each and compares any two, query by
query; --export writes the same pages for any static server.
"""

import argparse
import errno
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.serving import (
    BaseWSGIServer,
    WSGIRequestHandler,
    make_server,
    select_address_family,
)
from werkzeug.utils import redirect, send_file
from werkzeug.wrappers import Request, Response

from misc.run_pages.export import export
from misc.run_pages.places import find_pages, find_save_dir
from misc.run_pages.site import Site
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError
from utils.files import make_folder, reason, replacing

DEFAULT_PORT = 8000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run")
PICTURE_SIZE = {"width": 1100, "height": 840}
# Every link to a video in sight has become one, which shows its first frame.
ALL_SHOWN = """() => [...document.querySelectorAll("a.play, video")].every((shown) => {
  const box = shown.getBoundingClientRect();
  const inSight = box.height && box.top < innerHeight && box.bottom > 0;
  return !inSight || shown.readyState >= 2;
})"""
TYPES = {
    **{".html": "text/html", ".css": "text/css", ".js": "text/javascript"},
    **{".mp4": "video/mp4", ".webm": "video/webm"},
    **{".avi": "video/x-msvideo", ".mkv": "video/x-matroska"},
    **{".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"},
}


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("serve_rankings")
    parser.add_argument(
        "folder",
        type=Path,
        help="folder of all runs (data/saved), or of one under models, log, web",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine alone)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 for any that is free")
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
    print(f"The rankings are at {address_of(server)} (stop with Ctrl-C).", flush=True)
    server.serve_forever()


def take_picture(pages: Site, path: Path) -> None:
    """Take a picture of the top of a site's front page, as a browser shows it.

    Raises:
        UserError: it cannot be written, or there is no browser to take it with.
    """
    if path.suffix != ".png":
        raise UserError(f'--picture {path} must end in ".png".')
    make_folder(path.parent)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        raise UserError(
            "A picture needs playwright (pip install -r requirements/test-requirements.txt) and "
            f"a browser (one of {', '.join(BROWSERS)})."
        )
    server = make_page_server(pages, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=BROWSER_OPTIONS)
            page = browser.new_page(viewport=PICTURE_SIZE)
            page.goto(address_of(server))
            page.wait_for_function(ALL_SHOWN)
            picture = page.screenshot()
            browser.close()
    finally:
        server.shutdown()
        thread.join()
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


def make_page_server(site: Site, host: str, port: int) -> BaseWSGIServer:
    """Listen at an address, ready for `serve_forever`.

    Raises:
        UserError: the address cannot be used.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port takes a number from 0 to 65535, not {port}.")
    try:
        # Opened here, as werkzeug ends the whole program where it cannot open it.
        listener = socket.create_server((host, port), family=select_address_family(host, port))
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        why = "another program uses this port" if in_use else reason(error)
        raise UserError(
            f"Cannot listen on {host}, port {port}: {why}; choose another with --port or --host."
        ) from error
    with listener:
        return make_server(
            host,
            port,
            page_app(site),
            threaded=True,
            request_handler=QuietHandler,
            fd=listener.fileno(),
        )


def address_of(server: BaseWSGIServer) -> str:
    """Where a browser on this machine finds the pages."""
    host = "localhost" if server.host in ("0.0.0.0", "::") else server.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{server.port}/"


class QuietHandler(WSGIRequestHandler):
    """Answers without a line for each of the many requests of a page with videos."""

    def log(self, type: str, message: str, *args: object) -> None:
        """Nothing is logged."""


def page_app(site: Site) -> Callable[..., Iterable[bytes]]:
    """The WSGI application: the files of a site."""

    @Request.application
    def answer(request: Request) -> Response | HTTPException:
        try:
            response = _answer(site, request)
        except HTTPException as error:
            response = error.get_response(request.environ)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return answer


def _answer(site: Site, request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(["GET", "HEAD"])
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
    environ = {key: value for key, value in request.environ.items() if key != "HTTP_RANGE"}
    asked = plain_range(request.headers.get("Range"), path.stat().st_size)
    if asked and request.method == "GET":
        environ["HTTP_RANGE"] = asked
    return send_file(path, environ, mimetype=TYPES[path.suffix], conditional=True)


def plain_range(header: str | None, length: int) -> str | None:
    """Read a Range header as RFC 9110 (14.2) has it; what it does not define is ignored.

    Several ranges at once are ignored too, as a server may: the whole file answers them. A range
    beyond the end is left as it is, for an answer that it cannot be satisfied.
    """
    match = re.fullmatch(r"bytes=([0-9]{1,18})?-([0-9]{1,18})?", (header or "").replace(" ", ""))
    if not match or not any(match.groups()):
        return None
    first, last = (None if number is None else int(number) for number in match.groups())
    if first is None:
        return "bytes=0-" if last >= length else f"bytes=-{last}" if last else f"bytes={length}-"
    if last is not None and last < first:
        return None
    return f"bytes={first}-{'' if last is None else last}"


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
