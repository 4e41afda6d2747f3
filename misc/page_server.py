"""The server of the pages: any number of slow clients cost sockets, but no threads.

werkzeug reads requests and makes answers; waitress (a server without dependencies) talks to the
clients. One loop waits for all of them at once, so that a half-sent request, a kept connection and
a video that is read slowly hold no thread; a few threads work on requests that have arrived whole.
"""

import errno
import ipaddress
import logging
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from waitress import create_server, wasyncore
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, MethodNotAllowed
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from utils.errors import UserError, short
from utils.files import reason

THREADS = 8
MOST_CONNECTIONS = 600  # more wait until one ends; half of the files that may be open if fewer
SECONDS_IDLE = 10  # without a byte sent or received, after which a connection is closed
LARGEST_HEAD = 2**16  # bytes of a request's lines, so of its address as well
LARGEST_BODY = 2**10  # bytes of a request's body besides the file in it
SEND_BUFFER = 2**20  # bytes of an answer that may wait in memory before its thread does

TYPES = {
    **{".html": "text/html", ".css": "text/css", ".js": "text/javascript"},
    **{".mp4": "video/mp4", ".webm": "video/webm"},
    **{".avi": "video/x-msvideo", ".mkv": "video/x-matroska"},
    **{".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"},
}

_THIS_MACHINE = re.compile(r"(localhost|127(\.[0-9]+){3}|\[::1\])(:[0-9]+)?", re.IGNORECASE)
_REFUSED_HOST = (
    "This page answers to the names of this machine alone; start it with --host to let others in."
)

Answer = Callable[[Request], Response]


class PageServer:
    """Listens at an address from the start, and answers once `serve_forever` runs.

    Args:
        answer: makes the answer to one request; may raise werkzeug's HTTP exceptions. It is called
            from several threads at once.
        host: address to listen on. On one that only this machine reaches, requests for another
            name are refused: a web page elsewhere cannot pose as a name of this machine.
        port: 0 for any that is free.
        largest_upload: bytes of a file that may be sent; 0: none may.

    Raises:
        UserError: the address cannot be used.
    """

    def __init__(self, answer: Answer, host: str, port: int, largest_upload: int = 0) -> None:
        listener = _listen(host, port)
        self.host, self.port = host, listener.getsockname()[1]
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # waiting is no fault
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._sockets: dict[int, Any] = {}
        self._server = create_server(
            application(answer, not _is_this_machine(host), takes_files=largest_upload > 0),
            map=self._sockets,
            sockets=[listener],
            threads=THREADS,
            connection_limit=min(MOST_CONNECTIONS, most),
            max_request_header_size=LARGEST_HEAD,
            max_request_body_size=LARGEST_BODY + largest_upload,
            outbuf_high_watermark=SEND_BUFFER,
            asyncore_use_poll=True,
            ident=None,
        )
        self._is_over = threading.Event()

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the pages."""
        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def serve_forever(self) -> None:
        """Answer until `shutdown`, or until an exception (Ctrl-C) ends it."""
        try:
            closing = 0.0
            while not self._is_over.is_set():
                wasyncore.loop(timeout=1, use_poll=True, map=self._sockets, count=1)
                if time.time() > closing + SECONDS_IDLE / 4:
                    closing = time.time()
                    self._close_idle(closing)
        finally:
            self._server.task_dispatcher.shutdown(timeout=1)
            wasyncore.close_all(self._sockets)

    def _close_idle(self, now: float) -> None:
        # waitress marks idle connections, and closes those that it can write to: who has asked for
        # a video and never reads it would keep his for ever.
        for channel in [*self._server.active_channels.values()]:
            if not channel.requests and channel.last_activity < now - SECONDS_IDLE:
                channel.handle_close()

    def shutdown(self) -> None:
        """Let `serve_forever` return, which runs in another thread."""
        self._is_over.set()
        self._server.pull_trigger()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve in another thread meanwhile; gives the address."""
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        try:
            yield self.address
        finally:
            self.shutdown()
            thread.join()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UserError(f"--port takes a number from 0 to 65535, not {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError, TypeError) as error:  # the latter two: no name of a machine
        if not isinstance(error, OSError) or (error.errno or 0) <= 0:  # a resolver's own number
            why = "there is no such address"
        elif error.errno == errno.EADDRINUSE:
            why = "another program uses this port"
        else:
            why = reason(error)
        raise UserError(
            f"Cannot listen on {short(host)}, port {port}: {why}; choose another with --port or "
            "--host."
        ) from error


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def application(
    answer: Answer, any_name: bool, takes_files: bool = False
) -> Callable[..., Iterable[bytes]]:
    """The WSGI application: requests that read or send a file, for this machine's or any name."""
    methods = ["GET", "HEAD", *["POST"] * takes_files]

    @Request.application
    def answered(request: Request) -> Response:
        try:
            if request.method not in methods:
                raise MethodNotAllowed(methods)
            host = request.headers.get("Host", "")
            if request.method == "POST" and urlsplit(request.origin or f"//{host}").netloc != host:
                raise Forbidden("Files are taken from this page alone, not from others.")
            if host and not any_name and not _THIS_MACHINE.fullmatch(host):
                raise BadRequest(_REFUSED_HOST)
            response = answer(request)
        except HTTPException as error:
            response = error.get_response(request.environ)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return answered


def file_response(request: Request, path: Path) -> Response:
    """Answer with a file, or with the part of it that the request asks for.

    Args:
        path: of a regular file of one of `TYPES`.

    Raises:
        HTTPException: the part lies beyond its end, or the file cannot be read.
    """
    environ = {key: value for key, value in request.environ.items() if key != "HTTP_RANGE"}
    asked = plain_range(request.headers.get("Range"), path.stat().st_size)
    if asked and request.method == "GET":
        environ["HTTP_RANGE"] = asked
    response = send_file(path, environ, mimetype=TYPES[path.suffix.lower()], conditional=True)
    if response.status_code == 206:
        # werkzeug's own way of cutting off the rest would keep a thread until all is sent; waitress
        # sends a file from where it stands, as many bytes as the answer's head says.
        file = response.response.iterable  # type: ignore[union-attr]
        file.seek(response.content_range.start)
        response.response = file
    return response


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
