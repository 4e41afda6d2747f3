"""Reading a rankings page back, and writing small ones: shared by the tests of the page."""

import json
from html.parser import HTMLParser
from pathlib import Path

from logger.page import data
from logger.page.data import (
    Everything,
    OwnCaption,
    Ranking,
    Retrieved,
    RetrievedCaption,
    Speakers,
    VideoRanking,
)
from logger.page.page import write_rankings_page

SPEAKERS = Speakers([0.5, None, -0.25], [0.8, 0.0, 0.2])

VOID = {"meta", "link", "input", "rect", "img", "br", "line", "polyline"}


class Page(HTMLParser):
    """The elements of a page: tag, attributes, and the text within each."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict] = []
        self._open: list[dict] = []
        with path.open(encoding="utf-8", newline="") as handle:
            self.feed(handle.read())
        self.close()
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "attrs": dict(attrs), "text": ""})

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def texts(self, tag: str, of_class: str | None = None) -> list[str]:
        return [
            element["text"]
            for element in self.elements
            if element["tag"] == tag
            and (of_class is None or of_class in element["attrs"].get("class", "").split())
        ]

    def words(self, tag: str, of_class: str | None = None) -> list[str]:
        return [" ".join(text.split()) for text in self.texts(tag, of_class)]

    def skeleton(self) -> list[tuple]:
        return [(element["tag"], tuple(element["attrs"])) for element in self.elements]

    def urls(self) -> list[str]:
        """What the videos of the page link to."""
        found = [e["attrs"]["href"] for e in self.elements if e["tag"] == "a"]
        return [url for url in found if not url.startswith(("#", "?"))]


def ranking(**changes) -> Ranking:
    values = {
        "query_id": "q",
        "captions": ["a red ball"],
        "video_id": "v0",
        "rank": 2.0,
        "similarity": 0.4,
        "retrieved": [Retrieved("v1", 0.5), Retrieved("v0", 0.4), Retrieved("v2", -0.1)],
    }
    return Ranking(**(values | changes))


def video_ranking(**changes) -> VideoRanking:
    values = {
        "video_id": "v0",
        "rank": 2.0,
        "similarity": 0.4,
        "own": [OwnCaption("a red ball", 2.0, 0.4), OwnCaption("a ball", 30.0, -0.1)],
        "retrieved": [
            RetrievedCaption("a dog", "v1", 0.5, SPEAKERS),
            RetrievedCaption("a red ball", "v0", 0.4, SPEAKERS),
        ],
    }
    return VideoRanking(**(values | changes))


def write(
    folder: Path, rankings: list[Ranking], video_folder: Path | None = None, **changes
) -> Path:
    values = {"title": "Demo", "metrics": {}, "num_videos": 500, "num_texts": 500}
    page = data.Page(**(values | {"rankings": rankings} | changes))
    return write_rankings_page(folder, page, video_folder)


def make_videos(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def read_scripts(folder: Path) -> dict:
    """What the scripts of all queries hold, by their names; of the one page that has any."""
    [data] = (folder / "data").iterdir()
    found = {}
    for path in sorted(data.iterdir()):
        start = f'(globalThis.rankingData ??= {{}})["{data.name}/{path.stem}"] = '
        content = path.read_text(encoding="ascii")
        assert content.startswith(start) and content.endswith(";\n")
        found[path.stem] = json.loads(content.removeprefix(start).removesuffix(";\n"))
    return found


def everything(rankings: list[Ranking], video_rankings: list[VideoRanking] = ()) -> Everything:
    """All queries of a set whose videos are those that they name."""
    ids = [r.video_id for r in video_rankings]
    ids += [match.video_id for r in rankings for match in (r, *r.retrieved)]
    return Everything(list(dict.fromkeys(ids)), iter(rankings), iter(video_rankings))
