"""The search as a page: what a request asks, and the page or the file that answers it."""

import hashlib
import re
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from logger.page.page import TEMPLATES
from logger.page.search import (
    LONGEST,
    MOST_WEIGHT,
    SCRIPTS,
    SHOWN,
    STEPS,
    STYLES,
    WEIGHT,
    Asked,
    Found,
    SearchPage,
    Share,
    Spoken,
    search_html,
)
from logger.page.videos import PICTURES, VIDEOS, Video, is_file
from misc.page_server import PageServer, file_response
from misc.search.files import experts_of_file
from misc.search.hits import Hit, Word
from misc.search.page.stills import SUFFIXES, still
from misc.tools import DEFAULT_PORT
from utils.errors import UserError, did_you_mean, listed, short

if TYPE_CHECKING:
    from misc.search.searcher import Searcher
    from model.similarity import VideoEmbeddings

_ARGUMENTS = ("q", "not", "like", "file", "k")  # of an address, besides weights
MOST_WORDS = 3  # of a hit that are shown
LARGEST_FILE = 2**25  # bytes of one that is sent
FILES_KEPT, SECONDS_WAITED = 64, 2
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; media-src 'self'; img-src 'self' "
    "data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def serve(
    searcher: "Searcher",
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    asked: Asked | None = None,
    device: str = "cpu",
) -> None:
    """Serve the page of an index until Ctrl-C.

    Args:
        searcher: of the index.
        host, port: where to listen.
        asked: what the address that is printed asks for.
        device: where experts of files that are sent are extracted.

    Raises:
        UserError: the address cannot be used, or cannot ask for this.
    """
    question = "" if asked is None else asked.address().removesuffix("?")
    refusal = SearchSite(searcher, device).page(dict(parse_qsl(question[1:]))).refusal
    if refusal:
        raise UserError(refusal)
    server = make_search_server(searcher, host, port, device)
    print(f"The search is at {server.address}{question} (stop with Ctrl-C).", flush=True)
    server.serve_forever()


def make_search_server(
    searcher: "Searcher", host: str, port: int, device: str = "cpu"
) -> PageServer:
    """Listen at an address, ready for `serve_forever`.

    Raises:
        UserError: the address cannot be used.
    """
    largest = LARGEST_FILE if searcher.info.takes_files else 0
    return PageServer(SearchSite(searcher, device).answer, host, port, largest)


class SearchSite:
    """Answers requests: the page, its own files, and the videos that the index names.

    No path is made of what a request says: its own files are looked up in a table, videos by their
    id in the index.
    """

    def __init__(self, searcher: "Searcher", device: str = "cpu") -> None:
        self._searcher, self._alone, self._device = searcher, threading.Lock(), device
        self._one_still, self._one_file = threading.Lock(), threading.Lock()
        self._files: dict[str, VideoEmbeddings] = {}  # the newest ones, by their hash

    def answer(self, request: Request) -> Response:
        """Answer one request; several may come at once."""
        place = request.path.removeprefix("/")
        if place in (*STYLES, *SCRIPTS):
            return file_response(request, TEMPLATES / place)
        if place in ("video", "still"):
            path = self._searcher.path_of(request.args.get("id", ""))
            if path is None or not is_file(path):
                raise NotFound()
            return self._video(request, path) if place == "video" else self._still(request, path)
        if place or (request.method == "POST" and not self._searcher.info.takes_files):
            raise NotFound()
        if request.method == "POST":
            try:
                return redirect("./?" + urlencode({"file": self._take_in(request)}), 303)
            except UserError as error:
                page = replace(self.page({}), refusal=str(error))
        else:
            page = self.page(request.args)
        response = Response(search_html(page), 400 if page.refusal else 200, mimetype="text/html")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-store"
        return response

    def _take_in(self, request: Request) -> str:
        """Embed a file that was sent; return what it is known by. It is not kept itself.

        Raises:
            UserError: there is none, or it cannot be used.
        """
        sent = request.files.get("file")
        data = sent.read() if sent else b""
        if not data:
            raise UserError("There is no file: a picture, a video or a sound was expected.")
        # Those who wait hold a thread each.
        if not self._one_file.acquire(timeout=SECONDS_WAITED):
            raise UserError("Another file is being looked at: send this one again.")
        try:
            with tempfile.NamedTemporaryFile() as file:
                file.write(data)
                file.flush()
                found = experts_of_file(self._searcher, Path(file.name), self._device)
        except UserError as error:
            raise UserError(str(error).replace(file.name, "the file")) from error
        finally:
            self._one_file.release()
        with self._alone:
            key = hashlib.sha256(data).hexdigest()[:16]
            self._files[key] = self._searcher.encode_video(*found)
            for old in [*self._files][:-FILES_KEPT]:
                del self._files[old]
        return key

    def _video(self, request: Request, path: Path) -> Response:
        if path.suffix.lower() not in VIDEOS:
            raise NotFound()
        return file_response(request, path)

    def _still(self, request: Request, path: Path) -> Response:
        beside = _picture_beside(path)
        if beside is not None:
            return file_response(request, beside)
        second = request.args.get("second", "0")
        is_number = re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", second)
        if not is_number or path.suffix.lower() not in SUFFIXES:
            raise NotFound()
        try:
            with self._one_still:
                picture = still(path, float(second))
        except UserError as error:
            raise NotFound() from error
        response = Response(picture, mimetype="image/jpeg")
        response.headers["Cache-Control"] = "private, max-age=3600"
        return response

    def page(self, arguments: Mapping[str, str]) -> SearchPage:
        """The page for the arguments of an address."""
        info = self._searcher.info
        experts = info.experts if info.has_weights else ()
        asked, found, refusal = Asked(), [], ""
        try:
            asked = read_asked(arguments, experts)
            if not asked.is_empty:
                found = self._search(asked)
        except UserError as error:
            refusal = str(error)
        doubt = bool(found) and found[0].confident is False
        return SearchPage(
            name=info.name,
            facts=self._facts,
            experts=experts,
            asked=asked,
            found=[_shown(hit, asked.query, info.experts) for hit in found],
            refusal=refusal,
            note="No confident match." if doubt else "",
            examples=info.examples if info.takes_text else (),
            starts=self._starts,
            takes_files=info.takes_files,
        )

    def _search(self, asked: Asked) -> list[Hit]:
        weights = dict(asked.weights)
        with self._alone:
            if asked.file:
                video = self._files.get(asked.file)
                if video is None:
                    raise UserError("The file that was sent is not known any more: send it again.")
                return self._searcher.more_like(video, asked.k, weights=weights)
            if asked.like:
                return self._searcher.more_like(asked.like, asked.k, weights=weights)
            without = [asked.without] if asked.without else []
            return self._searcher.search(asked.query, asked.k, weights=weights, without=without)

    @cached_property
    def _facts(self) -> str:
        info = self._searcher.info
        corrected = "" if info.correction == "none" else ", hubs corrected"
        videos = f"{info.num_videos:,} video{'s' * (info.num_videos != 1)}"
        return f"{videos} of {info.data_set}, found by {info.model}{corrected}"

    @cached_property
    def _starts(self) -> list[str]:
        """Some videos from all over the index, where it has no captions to begin with."""
        info, ids = self._searcher.info, self._searcher.video_ids
        if info.examples and info.takes_text:
            return []
        count = min(SHOWN, len(ids))
        return [ids[at * len(ids) // count] for at in range(count)]


def read_asked(arguments: Mapping[str, str], experts: tuple[str, ...]) -> Asked:
    """Read the arguments of an address.

    Raises:
        UserError: one of them cannot be meant.
    """
    for name in arguments:
        if name not in _ARGUMENTS and not name.startswith(WEIGHT):
            known = [*_ARGUMENTS, *(f"{WEIGHT}{expert}" for expert in experts)]
            raise UserError(
                f'The address says "{short(name)}"{did_you_mean(name, known)}, where this page '
                f"knows {listed(known, len(known))}."
            )
    texts = {name: arguments.get(name, "").strip() for name in ("q", "not", "like", "file")}
    for text in texts.values():
        if len(text) > LONGEST:
            raise UserError(
                f"A query may have up to {LONGEST} characters, and this one has {len(text)}."
            )
    weights = {
        name.removeprefix(WEIGHT): _factor(name.removeprefix(WEIGHT), value, experts)
        for name, value in arguments.items()
        if name.startswith(WEIGHT)
    }
    k = arguments.get("k") or str(SHOWN)
    if not re.fullmatch("[0-9]{1,9}", k, re.ASCII) or not 1 <= int(k) <= STEPS[-1]:
        raise UserError(f'The page shows 1 to {STEPS[-1]} videos, not "{short(k)}".')
    return Asked(
        texts["q"],
        texts["not"],
        texts["like"],
        {name: factor for name, factor in weights.items() if factor != 1},
        int(k),
        texts["file"],
    )


def _factor(expert: str, value: str, experts: tuple[str, ...]) -> float:
    if expert not in experts:
        raise UserError(
            f'The index has no expert "{short(expert)}" that can be weighted'
            f"{did_you_mean(expert, experts)}."
        )
    if not re.fullmatch(r"[0-9](\.[0-9]{1,9})?", value) or float(value) > MOST_WEIGHT:
        raise UserError(
            f"The weight of {short(expert)} is a number from 0 to {MOST_WEIGHT}, "
            f'not "{short(value)}".'
        )
    return float(value)


# What the page shows of a hit --------------------------------------------------------------------


def _picture_beside(path: Path) -> Path | None:
    """A picture of a video that lies beside it, by the same name."""
    pictures = (path.with_suffix(suffix) for suffix in PICTURES)
    return next(filter(is_file, pictures), None)


def _shown(hit: Hit, query: str, experts: tuple[str, ...]) -> Found:
    words = _fitting(hit.words, query)
    starts = [word.start for word in words if word.start is not None and _fits(word, query)]
    start = hit.start if hit.start is not None else min(starts, default=None)
    return Found(
        hit.video_id,
        hit.similarity,
        hit.score,
        [
            Share(name, value, hit.weights[name], hit.similarities[name])
            for name, value in sorted(hit.experts.items(), key=lambda item: experts.index(item[0]))
        ],
        _video(hit, start),
        "" if hit.path is None else str(hit.path),
        start,
        hit.end,
        [Spoken(word.expert, word.text, word.start) for word in words],
        hit.captions,
    )


def _video(hit: Hit, start: float | None) -> Video:
    if hit.path is None or not is_file(hit.path):
        return Video()
    suffix, query = hit.path.suffix.lower(), {"id": hit.video_id}
    video = f"video?{urlencode(query)}" if suffix in VIDEOS else None
    query |= {"second": f"{start:.2f}"} if start else {}
    return Video(video, suffix, f"still?{urlencode(query)}" if suffix in SUFFIXES else None)


def _terms(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.casefold()))


def _fits(word: Word, query: str) -> bool:
    return bool(_terms(word.text) & _terms(query))


def _fitting(words: tuple[Word, ...], query: str) -> list[Word]:
    """The words to show: those of the query first."""
    return sorted(words, key=lambda word: not _fits(word, query))[:MOST_WORDS]
