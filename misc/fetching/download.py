"""Downloading a file: streamed, continued where it broke, verified."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from urllib3.exceptions import HTTPError

from logger.progress import progress
from misc.fetching.answers import Body, Broken, failure, range_headers, read_answer
from misc.fetching.catalogue import Source
from misc.fetching.part import Part
from misc.fetching.space import check_space, in_words
from utils.errors import UserError

_CHUNK = 1 << 16
_MAX_REDIRECTS = 5
# A try that brought less than this counts as failed, so that no server can keep us for ever.
_PROGRESS = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        connect: seconds until a connection must stand.
        read: seconds without a byte after which a connection counts as broken.
        tries: tries in a row that bring nothing.
        first_wait: seconds before the second try; each next wait is twice as long.
        longest_wait: no wait is longer, whatever the server asks for.
        sleep: waits.
    """

    connect: float = 20.0
    read: float = 60.0
    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int, wanted: float | None) -> None:
        """Wait after the n-th failed try in a row."""
        own = self.first_wait * 2 ** (failures - 1)
        self.sleep(min(max(own, wanted or 0.0), self.longest_wait))


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
    _fetch_rest(source, part, patience, room)
    if not _verify(source, part):
        part.forget()
        if not was_continued:
            raise UserError(
                f"What came from {source.shown} has another checksum than those published "
                f"({', '.join(source.sha1)}), so it was removed; run the same command again."
            )
        _log.warning("%s: the checksum is wrong; beginning anew.", path.name)
        return download(source, path, patience, room)
    return part


def _verify(source: Source, part: Part) -> bool:
    found = part.sum()
    if source.sha1 and found not in source.sha1:
        return False
    part.finish(found)
    return True


def _fetch_rest(source: Source, part: Part, patience: Patience, room: int) -> None:
    """Try until all bytes are there."""
    if part.has_all:
        return
    failures, answered = 0, False
    with requests.Session() as session:
        session.max_redirects = _MAX_REDIRECTS
        while True:
            before = part.offset
            try:
                _try(session, source, part, patience, room)
                return
            except Broken as problem:
                came = part.offset - before
                answered = answered or not problem.offline
                failures = 1 if came >= _PROGRESS else failures + 1
                if failures >= patience.tries or not answered:
                    raise UserError(_given_up(source, part, problem)) from problem
                _log.info("%s: %s; trying again.", source.shown, problem)
                patience.wait(failures, problem.wait)


def _given_up(source: Source, part: Part, problem: Broken) -> str:
    kept = f"; {in_words(part.offset)} have come and are kept" if part.offset else ""
    return f"Cannot fetch {source.shown}: {problem}{kept}; the same command tries again."


def _try(
    session: requests.Session, source: Source, part: Part, patience: Patience, room: int
) -> None:
    """Ask once for what is missing and take what comes."""
    try:
        with _ask(session, source.url, part, patience) as response:
            body = read_answer(response, part, source.shown)
            if body is None:
                return
            if body.size is not None:
                missing = body.size - body.start
                check_space(part.path.parent, missing + room * body.size, source.shown)
            _log.info("Fetching %s: %s", source.shown, _how_much(body))
            _take(response, part, body, source.name)
    except (requests.RequestException, HTTPError) as error:
        raise failure(error, source.shown) from error
    if body.size is not None and part.offset != body.size:
        raise _of_another_size(part, body.size)


def _ask(session: requests.Session, url: str, part: Part, patience: Patience) -> requests.Response:
    timeout = (patience.connect, patience.read)
    try:
        return session.get(url, headers=range_headers(part), stream=True, timeout=timeout)
    except ValueError as error:  # of a redirect to nonsense, which `requests` lets through
        if isinstance(error, requests.RequestException):
            raise
        raise requests.exceptions.InvalidURL from error


def _how_much(body: Body) -> str:
    size = "of unknown size" if body.size is None else in_words(body.size)
    return f"{size}, {in_words(body.start)} of it are here already" if body.start else size


def _take(response: requests.Response, part: Part, body: Body, name: str) -> None:
    """Write what comes to the file, as it comes."""
    with part.appending() as write, progress(None, body.size, name, unit="B") as bar:
        bar.update(body.start)
        # As it lies on the server: some call a .tar.gz an encoding, and `requests` would unpack it.
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            write(chunk)
            bar.update(len(chunk))


def _of_another_size(part: Part, size: int) -> Broken:
    came = part.offset
    if came > size:
        part.forget()
    return Broken(f"the connection ended after {in_words(came)} of {in_words(size)}")
