"""What a server's answer means for a download that may have begun already."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    TimeoutError,
)

from misc.fetching.catalogue import CODE_SHOWN_AS
from misc.fetching.part import Part
from utils.errors import UserError

_PASSES = {408, 425, 429, 500, 502, 503, 504}  # worth another try
_GONE = {404, 410}
_FORBIDDEN = {401, 403}
# Of these one is worth no other try: the server, or the address, is what is wrong.
_HOPELESS = (
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.SSLError,
)


class Broken(Exception):
    """A try that failed in a way that may pass.

    Attributes:
        wait: seconds that the server asks to wait, None if it does not.
        offline: whether the server's name was not even found.
    """

    def __init__(self, problem: str, wait: float | None = None, offline: bool = False) -> None:
        super().__init__(problem)
        self.wait = wait
        self.offline = offline


@dataclass(frozen=True)
class Body:
    """What the body of an answer holds: the bytes from `start` on of a file of `size` bytes."""

    start: int
    size: int | None


def range_headers(part: Part) -> dict[str, str]:
    """Headers of a request for what is still missing."""
    # A server that compresses on the way would make other bytes, and other ranges, of the file.
    headers = {"Accept-Encoding": "identity"}
    if part.offset:
        headers["Range"] = f"bytes={part.offset}-"
        if part.validator:
            headers["If-Range"] = part.validator
    return headers


def read_answer(response: requests.Response, part: Part, shown: str) -> Body | None:
    """Say what the body holds, and prepare `part` for it; None where nothing is missing.

    Raises:
        Broken: the answer is of no use, but another try may be.
        UserError: no try will help.
    """
    status = response.status_code
    if status == 200:
        size = _length(response)
        part.begin(size, *_version(response))
        return Body(0, size)
    if status == 206:
        return _read_partial(response, part)
    if status == 416:
        total = re.fullmatch(r"bytes \*/([0-9]{1,18})", response.headers.get("Content-Range", ""))
        # What is there is the whole file, if the server still has the same one.
        if total and int(total[1]) == part.offset == part.size and _is_same(response, part):
            return None
        part.forget()
        raise Broken("the file on the server is another one now")
    if status in _PASSES:
        raise Broken(f"the server answers {_status(response)}", _wanted_wait(response))
    if status in _GONE:
        hint = ": check the access code" if CODE_SHOWN_AS in shown else ""
        raise UserError(f"Cannot fetch {shown}: the server has no such file ({status}){hint}.")
    if status in _FORBIDDEN:
        raise UserError(f"Cannot fetch {shown}: the server does not give it to us ({status}).")
    raise UserError(f"Cannot fetch {shown}: the server answers {_status(response)}.")


def _read_partial(response: requests.Response, part: Part) -> Body:
    given = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)",
        response.headers.get("Content-Range", ""),
    )
    size = int(given[3]) if given and given[3] != "*" else part.size
    fits = (
        given is not None
        and int(given[1]) == part.offset
        and part.size in (None, size)
        and _is_same(response, part)
    )
    if not fits:
        # Another file, or another piece of it: bytes of two files must not be joined.
        part.forget()
        raise Broken("the file on the server is another one now, or it sent another piece")
    return Body(part.offset, size)


def _is_same(response: requests.Response, part: Part) -> bool:
    etag, last_modified = _version(response)
    return (not etag or etag == part.etag) and (
        not last_modified or last_modified == part.last_modified
    )


def _version(response: requests.Response) -> tuple[str, str]:
    return response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _wanted_wait(response: requests.Response) -> float | None:
    wait = response.headers.get("Retry-After", "")
    return float(wait) if re.fullmatch(r"[0-9]{1,6}", wait) else None


def _status(response: requests.Response) -> str:
    reason = (response.reason or "").strip()
    return f"{response.status_code} {reason[:40]}" if reason.isprintable() else "an error"


def failure(error: requests.RequestException | HTTPError, shown: str) -> Broken:
    """Put into words why no answer came, or no more of it.

    Never quotes the error: its text holds the whole address.

    Raises:
        UserError: no other try will help.
    """
    request = getattr(error, "request", None)  # the last one, where there were redirects
    asked = request.url if request is not None and request.url else shown
    host = urlsplit(asked).netloc.rpartition("@")[2]
    if isinstance(error, requests.exceptions.SSLError):
        raise UserError(f"Cannot fetch {shown}: the certificate of {host} is not accepted.")
    if isinstance(error, _HOPELESS):
        raise UserError(
            f"Cannot fetch {shown}: {host} redirects in circles, or to what is no http(s) address."
        )
    cause = error.args[0] if error.args and isinstance(error.args[0], HTTPError) else error
    if isinstance(cause, MaxRetryError) and cause.reason is not None:
        cause = cause.reason
    if isinstance(error, requests.exceptions.ProxyError):
        return Broken("the proxy of this machine does not answer", offline=True)
    if isinstance(cause, NameResolutionError):
        return Broken(
            f"the address of {host} cannot be found (is this machine online?)", offline=True
        )
    if isinstance(cause, ReadTimeoutError | requests.exceptions.ReadTimeout):
        return Broken(f"{host} stopped sending")
    if isinstance(cause, NewConnectionError):
        return Broken(f"{host} cannot be reached")
    if isinstance(cause, TimeoutError):
        return Broken(f"{host} does not answer")
    return Broken("the connection broke")
