"""Serve the rankings pages of a run, with videos in which one can seek.

python3 -m misc.serve_rankings data/saved/web/demo-train-full-ce/<timestamp>
python3 -m misc.serve_rankings --picture rankings.png data/saved/web/demo-train-full-ce/<timestamp>
"""

import errno
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.serving import (
    BaseWSGIServer,
    WSGIRequestHandler,
    make_server,
    select_address_family,
)
from werkzeug.utils import redirect, send_file
from werkzeug.wrappers import Request, Response

from logger.page.videos import LINK, SHOWN_SUFFIXES, is_file
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError
from utils.files import is_there, make_folder, reason, replacing

DEFAULT_PORT = 8000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run")
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
TYPES = {
    **{".html": "text/html", ".css": "text/css", ".js": "text/javascript"},
    **{".mp4": "video/mp4", ".webm": "video/webm"},
    **{".avi": "video/x-msvideo", ".mkv": "video/x-matroska"},
    **{".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"},
}


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("serve_rankings")
    parser.add_argument("folder", type=Path, help="folder of a run under models, log or web")
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
    args = parser.parse_args(arguments)
    pages = find_pages(args.folder)
    if args.picture:
        take_picture(pages, args.picture)
        print(f"The picture is {args.picture} ({args.picture.stat().st_size / 1e3:.0f} kB).")
        return
    server = make_page_server(pages, args.host, args.port)
    print(f"The rankings are at {address_of(server)} (stop with Ctrl-C).", flush=True)
    server.serve_forever()


def take_picture(pages: Path, path: Path) -> None:
    """Take a picture of the top of a folder's front page, as a browser shows it.

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
            page.evaluate(CLOSE_CHARTS)  # so that there is room for videos
            page.wait_for_function(ALL_SHOWN)
            picture = page.screenshot()
            browser.close()
    finally:
        server.shutdown()
        thread.join()
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


def make_page_server(folder: Path, host: str, port: int) -> BaseWSGIServer:
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
            page_app(folder),
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


def page_app(folder: Path) -> Callable[..., Iterable[bytes]]:
    """The WSGI application: files of one folder of pages, and of the videos linked into it."""

    @Request.application
    def answer(request: Request) -> Response | HTTPException:
        try:
            response = _answer(folder, request)
        except HTTPException as error:
            response = error.get_response(request.environ)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return answer


def _answer(folder: Path, request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(["GET", "HEAD"])
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
    environ = {key: value for key, value in request.environ.items() if key != "HTTP_RANGE"}
    asked = plain_range(request.headers.get("Range"), path.stat().st_size)
    if asked and request.method == "GET":
        environ["HTTP_RANGE"] = asked
    return send_file(path, environ, mimetype=TYPES[path.suffix], conditional=True)


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
