"""A small file server on this machine that can be told to misbehave."""

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler"], bool]


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path, with ranges.

    Attributes:
        files: path -> content.
        etag, last_modified: what it names every file's version, empty for nothing.
        obeys_if_range: whether it looks at If-Range.
        faults: what to do instead of answering the next requests, one for each; None: answer.
        requests: (path, headers) of what was asked for.
        released: set when the test is over: what stalls ends then.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.etag, self.last_modified = '"v1"', "Wed, 01 Jan 2020 00:00:00 GMT"
        self.obeys_if_range = True
        self.faults: deque[Fault | None] = deque()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        fault = self.server.faults.popleft() if self.server.faults else None
        if fault is None or not fault(self):
            self.answer()

    @property
    def content(self) -> bytes:
        return self.server.files[self.path]

    def wanted(self) -> int | None:
        """The first byte asked for, None for the whole file."""
        given = self.headers.get("Range")
        known = (None, self.server.etag or None, self.server.last_modified or None)
        if not given or (self.server.obeys_if_range and self.headers.get("If-Range") not in known):
            return None
        return int(given.removeprefix("bytes=").removesuffix("-"))

    def answer(self, **changes: str) -> None:
        """Answer as a good server does, but for changed headers (an empty one is left out)."""
        if self.path not in self.server.files:
            self.send(404, b"")
            return
        start, total = self.wanted(), len(self.content)
        if start is None:
            self.send(200, self.content, **changes)
        elif start >= total:
            self.send(416, b"", **{"Content-Range": f"bytes */{total}", **changes})
        else:
            piece = f"bytes {start}-{total - 1}/{total}"
            self.send(206, self.content[start:], **{"Content-Range": piece, **changes})

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.head(status, len(body), **headers)
        self.wfile.write(body)

    def head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        own = {
            "Content-Length": str(length),
            "ETag": self.server.etag,
            "Last-Modified": self.server.last_modified,
        }
        for name, value in {**own, **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def status(code: int, **headers: str) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.send(code, b"busy", **headers)
        return True

    return fault


def redirect(target: str) -> Fault:
    return status(302, Location=target)


def headers(**changes: str) -> Fault:
    """Answer with changed headers; in their names `_` stands for `-`."""

    def fault(handler: Handler) -> bool:
        handler.answer(**{name.replace("_", "-"): value for name, value in changes.items()})
        return True

    return fault


def whole(handler: Handler) -> bool:
    """Answer 200 with the whole file, whatever was asked for."""
    handler.send(200, handler.content)
    return True


def piece(number: int) -> Fault:
    """Promise all that was asked for, send so many bytes of it, and hang up."""

    def fault(handler: Handler) -> bool:
        _begin(handler, number)
        handler.close_connection = True
        return True

    return fault


def stall(number: int) -> Fault:
    """Promise all that was asked for, send so many bytes of it, and say no more."""

    def fault(handler: Handler) -> bool:
        _begin(handler, number)
        handler.server.released.wait()
        handler.close_connection = True
        return True

    return fault


def reset(number: int) -> Fault:
    """Send so many bytes, then break the connection the hard way."""

    def fault(handler: Handler) -> bool:
        _begin(handler, number)
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True
        return True

    return fault


def broken_headers(handler: Handler) -> bool:
    """Answer with a line among the headers that is none."""
    handler.wfile.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nnonsense\r\n\r\n")
    handler.close_connection = True
    return True


def without_length(handler: Handler) -> bool:
    """Answer as old servers do: the end of the connection is the end of the file."""
    handler.head(200, 0, **{"Content-Length": "", "Connection": "close"})
    handler.wfile.write(handler.content)
    handler.close_connection = True
    return True


def _begin(handler: Handler, number: int) -> None:
    start = handler.wanted() or 0
    rest, total = handler.content[start:], len(handler.content)
    if start:
        piece = f"bytes {start}-{total - 1}/{total}"
        handler.head(206, len(rest), **{"Content-Range": piece})
    else:
        handler.head(200, len(rest))
    handler.wfile.write(rest[:number])
