"""Downloading a file: streamed, continued where it broke, verified."""

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3.exceptions as faults
from requests import Response
from requests.exceptions import (
    InvalidSchema,
    InvalidURL,
    MissingSchema,
    ProxyError,
    RequestException,
    SSLError,
    TooManyRedirects,
)
from urllib3 import Retry

from logger.progress import progress
from misc.fetching.catalogue import CODE_SHOWN_AS, Source
from misc.fetching.disk import Part, check_space, in_words
from utils.errors import UserError

_CHUNK = 1 << 16
_MAX_REDIRECTS = 5
_LONGEST_WAIT = 60  # seconds, whatever the server asks for
# Tries in a row that bring nothing; the waits between them double.
_TRIES = Retry(5, backoff_factor=1, backoff_max=_LONGEST_WAIT, retry_after_max=_LONGEST_WAIT)
# A try that brought less than this counts as failed, so that no server can keep us for ever.
_PROGRESS = 1 << 20

_PASSES = {408, 425, 429, 500, 502, 503, 504}  # worth another try
_GONE = {404, 410}
_FORBIDDEN = {401, 403}
# Of these one is worth no other try: the address is what is wrong.
_HOPELESS = (TooManyRedirects, InvalidSchema, InvalidURL, MissingSchema)
# Why no answer came, or no more of it; the first that fits.
_PROBLEMS = {
    faults.NameResolutionError: "the address of {} cannot be found (is this machine online?)",
    faults.ReadTimeoutError: "{} stopped sending",
    requests.exceptions.ReadTimeout: "{} stopped sending",
    faults.NewConnectionError: "{} cannot be reached",
    faults.TimeoutError: "{} does not answer",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        connect: seconds until a connection must stand.
        read: seconds without a byte after which a connection counts as broken.
        sleep: waits.
    """

    connect: float = 20.0
    read: float = 60.0
    sleep: Callable[[float], None] = time.sleep


class Broken(Exception):
    """A try that failed in a way that may pass.

    Attributes:
        response: what the server answered, if it did.
        offline: whether the server's name was not even found.
    """

    def __init__(
        self, problem: str, response: Response | None = None, offline: bool = False
    ) -> None:
        super().__init__(problem)
        self.response = response
        self.offline = offline


def download(source: Source, path: Path, patience: Patience, room: int = 0) -> Part:
    """Bring a file to `path`, complete and verified; go on with what is there already.

    Args:
        source: where the file lies.
        path: where it goes; a record of the download lies beside it.
        patience: how long to wait for the server.
        room: how many times its size must be free beside it, for what is made of it.

    Raises:
        UserError: the server has no such file or does not answer, the disk is full, or the
            checksum is wrong. What has come stays (but for a wrong checksum), and the same call
            goes on from there.
    """
    part = Part(path, source.shown)
    if part.sha1 and (not source.sha1 or part.sha1 in source.sha1):
        return part
    was_continued = part.offset > 0
    if not part.has_all:
        _fetch_rest(source, part, patience, room)
    found = part.sum()
    if not source.sha1 or found in source.sha1:
        part.finish(found)
        return part
    part.forget()
    if not was_continued:
        raise UserError(
            f"What came from {source.shown} has another checksum than those published "
            f"({', '.join(source.sha1)}), so it was removed; run the same command again."
        )
    _log.warning("%s: the checksum is wrong; beginning anew.", path.name)
    return download(source, path, patience, room)


def _fetch_rest(source: Source, part: Part, patience: Patience, room: int) -> None:
    """Try until all bytes are there."""
    left, answered = _TRIES, False
    with requests.Session() as session:
        session.max_redirects = _MAX_REDIRECTS
        while True:
            before = part.offset
            try:
                _try(session, source, part, patience, room)
                return
            except Broken as problem:
                answered = answered or not problem.offline
                if part.offset - before >= _PROGRESS:
                    left = _TRIES
                if not (left.total and answered):
                    raise UserError(_given_up(source, part, problem)) from problem
                left = left.increment(error=problem)
                _log.info("%s: %s; trying again.", source.shown, problem)
                patience.sleep(max(left.get_backoff_time(), _wanted_wait(left, problem)))


def _given_up(source: Source, part: Part, problem: Broken) -> str:
    kept = f"; {in_words(part.offset)} have come and are kept" if part.offset else ""
    return f"Cannot fetch {source.shown}: {problem}{kept}; the same command tries again."


def _wanted_wait(left: Retry, problem: Broken) -> float:
    """Seconds that the server asks to wait."""
    if problem.response is not None:
        with suppress(faults.InvalidHeader, ValueError, OverflowError):
            return left.get_retry_after(problem.response.raw) or 0
    return 0


def _try(
    session: requests.Session, source: Source, part: Part, patience: Patience, room: int
) -> None:
    """Ask once for what is missing and take what comes."""
    try:
        with _ask(session, source.url, part, patience) as response:
            if not _accept(response, part, source.shown):
                return
            start, size = part.offset, part.size
            if size is not None:
                check_space(part.path.parent, size - start + room * size, source.shown)
            words = "of unknown size" if size is None else in_words(size)
            here = f", {in_words(start)} of it are here already" if start else ""
            _log.info("Fetching %s: %s%s", source.shown, words, here)
            with part.appending() as write, progress(None, size, source.name, unit="B") as bar:
                bar.update(start)
                # As it lies on the server: some call a .tar.gz an encoding, and `requests` would
                # unpack it.
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    write(chunk)
                    bar.update(len(chunk))
    except (RequestException, faults.HTTPError) as error:
        raise _failure(error, source.shown) from error
    came = part.offset
    if size is not None and came != size:
        if came > size:
            part.forget()
        raise Broken(f"the connection ended after {in_words(came)} of {in_words(size)}")


def _ask(session: requests.Session, url: str, part: Part, patience: Patience) -> Response:
    # A server that compresses on the way would make other bytes, and other ranges, of the file.
    headers = {"Accept-Encoding": "identity"}
    if part.offset:
        headers["Range"] = f"bytes={part.offset}-"
        etag, date = part.version
        # If-Range takes a strong ETag only.
        if validator := etag if etag.startswith('"') else date:
            headers["If-Range"] = validator
    timeout = (patience.connect, patience.read)
    try:
        return session.get(url, headers=headers, stream=True, timeout=timeout)
    except ValueError as error:  # of a redirect to nonsense, which `requests` lets through
        if isinstance(error, RequestException):
            raise
        raise InvalidURL from error


def _accept(response: Response, part: Part, shown: str) -> bool:
    """Prepare `part` for the body of an answer; false where nothing is missing.

    Raises:
        Broken: the answer is of no use, but another try may be.
        UserError: no try will help.
    """
    status = response.status_code
    given = response.headers.get("Content-Range", "")
    if status == 200:
        length = response.headers.get("Content-Length", "")
        size = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        part.begin(size, _version(response))
        return True
    if status == 206:
        span = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", given)
        fits = span and int(span[1]) == part.offset and _is_same(response, part)
        size = int(span[2]) if span and span[2] != "*" else part.size
        if fits and part.size in (None, size):
            part.size = size
            return True
        # Another file, or another piece of it: bytes of two files must not be joined.
        part.forget()
        raise Broken("the file on the server is another one now, or it sent another piece")
    if status == 416:
        # What is there is the whole file, if the server still has the same one.
        if part.has_all and given == f"bytes */{part.size}" and _is_same(response, part):
            return False
        part.forget()
        raise Broken("the file on the server is another one now")
    said = (response.reason or "").strip()
    answer = f"{status} {said[:40]}" if said.isprintable() else "an error"
    if status in _PASSES:
        raise Broken(f"the server answers {answer}", response)
    problem = f"the server answers {answer}"
    if status in _GONE:
        hint = ": check the access code" if CODE_SHOWN_AS in shown else ""
        problem = f"the server has no such file ({status}){hint}"
    elif status in _FORBIDDEN:
        problem = f"the server does not give it to us ({status})"
    raise UserError(f"Cannot fetch {shown}: {problem}.")


def _version(response: Response) -> tuple[str, str]:
    return response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")


def _is_same(response: Response, part: Part) -> bool:
    pairs = zip(_version(response), part.version, strict=True)
    return all(not given or given == known for given, known in pairs)


def _failure(error: RequestException | faults.HTTPError, shown: str) -> Broken:
    """Put into words why no answer came, or no more of it.

    Never quotes the error: its text holds the whole address.

    Raises:
        UserError: no other try will help.
    """
    request = getattr(error, "request", None)  # the last one, where there were redirects
    asked = request.url if request is not None and request.url else shown
    host = urlsplit(asked).netloc.rpartition("@")[2]
    if isinstance(error, SSLError):
        raise UserError(f"Cannot fetch {shown}: the certificate of {host} is not accepted.")
    if isinstance(error, _HOPELESS):
        raise UserError(
            f"Cannot fetch {shown}: {host} redirects in circles, or to what is no http(s) address."
        )
    if isinstance(error, ProxyError):
        return Broken("the proxy of this machine does not answer", offline=True)
    cause = error.args[0] if error.args and isinstance(error.args[0], faults.HTTPError) else error
    if isinstance(cause, faults.MaxRetryError) and cause.reason is not None:
        cause = cause.reason
    for kind, problem in _PROBLEMS.items():
        if isinstance(cause, kind):
            offline = kind is faults.NameResolutionError
            return Broken(problem.format(host), offline=offline)
    return Broken("the connection broke")
