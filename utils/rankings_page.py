"""The rankings page: what a model retrieves for sampled queries, as static HTML with videos.

The page knows no model. It takes plain data and writes `index.html`, `style.css` and `page.js`
into one folder, with the videos linked beside them, ready for `python3 -m http.server`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from data_loader.errors import UserError
from data_loader.files import make_folder, replacing
from utils.page_videos import Video, VideoFiles

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_STATIC = ("style.css", "page.js")
_METRIC_LABELS = {
    **{f"R{k}": f"R@{k}" for k in (1, 5, 10, 50)},
    "MedR": "MedR",
    "MeanR": "MeanR",
    "geometric_mean_R1-R5-R10": "geometric mean",
}
_DIRECTION_LABELS = {"t2v": "text to video", "v2t": "video to text"}
# Neither HTML nor UTF-8 can carry these; a caption read from JSON may hold them all the same.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Retrieved:
    """One video that the model retrieved, with the similarity that it gave."""

    video_id: str
    similarity: float


@dataclass(frozen=True)
class Ranking:
    """One query, its true video and the best-ranked videos.

    `rank` is 1-based among all videos, ties count half a place each; `similarity` is that of the
    query and its true video; `retrieved` holds the top k, best first.
    """

    query_id: str
    captions: list[str]
    video_id: str
    rank: float
    similarity: float
    retrieved: list[Retrieved]


def sample_queries(num_queries: int, num_samples: int, seed: int) -> np.ndarray:
    """Draw which queries a page shows: sorted indices, each at most once, the same for a seed.

    Returns:
        int64 array of min(num_samples, num_queries) indices below `num_queries`.

    Raises:
        UserError: `num_samples` is negative.
    """
    if num_samples < 0:
        raise UserError(f"The rankings page needs num_samples of 0 or more, not {num_samples}.")
    drawn = np.random.default_rng([seed, num_queries]).choice(
        num_queries, size=min(num_samples, num_queries), replace=False
    )
    return np.sort(drawn.astype(np.int64))


def write_rankings_page(
    folder: Path,
    *,
    title: str,
    metrics: Mapping[str, Mapping[str, float]],
    rankings: Sequence[Ranking],
    video_folder: Path | None,
    num_videos: int,
    captions_of: Mapping[str, Sequence[str]] | None = None,
    file_name: str = "index.html",
) -> Path:
    """Write the page with everything it needs into `folder` and return the path of the page.

    Titles, ids and captions are data: they appear on the page as text, whatever they hold.

    Args:
        folder: made if needed; `videos` in it becomes a link to `video_folder` (where the file
            system has no links, the videos shown are copied).
        metrics: direction ("t2v", "v2t") -> name of the metric -> value, shown as a table.
        rankings: one card each, in this order.
        video_folder: holds `<video id>.mp4` or `.webm`; ids without a file get a note instead.
        num_videos: size of the retrieval set.
        captions_of: video id -> captions, shown below retrieved videos.

    Raises:
        UserError: the folder cannot be written, or a file named `videos` is in the way.
    """
    folder = make_folder(folder)
    files = VideoFiles(video_folder)
    page = _environment().get_template("rankings.html")
    html = page.render(
        title=title,
        table=_metric_table(metrics),
        cards=_cards(rankings, files, captions_of or {}),
        num_videos=num_videos,
    )
    for name in _STATIC:
        with replacing(folder / name) as handle:
            handle.write((_TEMPLATES / name).read_bytes())
    files.bring_to(folder)
    with replacing(folder / file_name, "w", encoding="utf-8", newline="\n") as handle:
        handle.write(html)
    return folder / file_name


# What the template shows ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tile:
    """One video of a card: the true one (`place` 0) or the retrieved one at a place from 1."""

    video_id: str
    video: Video
    similarity: str
    bar: float  # percent of the highest similarity on the page
    place: int
    is_true: bool
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class _Card:
    ranking: Ranking
    rank: str
    level: str  # "first" (rank 1), "near" (up to 10), "far"
    true: _Tile
    tiles: list[_Tile]


def _cards(
    rankings: Sequence[Ranking], files: VideoFiles, captions_of: Mapping[str, Sequence[str]]
) -> list[_Card]:
    shown = [r.similarity for r in rankings]
    shown += [found.similarity for r in rankings for found in r.retrieved]
    highest = max((value for value in shown if math.isfinite(value)), default=0.0)

    def tile(video_id: str, similarity: float, place: int, is_true: bool) -> _Tile:
        return _Tile(
            video_id,
            files.find(video_id),
            _number(similarity, ".3f"),
            round(100 * similarity / highest, 1) if similarity > 0 and highest > 0 else 0.0,
            place,
            is_true,
            captions_of.get(video_id, ()) if place else (),
        )

    return [
        _Card(
            ranking,
            _number(ranking.rank, ".0f" if float(ranking.rank).is_integer() else ".1f"),
            "first" if ranking.rank <= 1 else "near" if ranking.rank <= 10 else "far",
            tile(ranking.video_id, ranking.similarity, 0, True),
            [
                tile(found.video_id, found.similarity, place, found.video_id == ranking.video_id)
                for place, found in enumerate(ranking.retrieved, start=1)
            ],
        )
        for ranking in rankings
    ]


def _metric_table(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, list]:
    """Rows are directions, columns the metrics' names in the order in which they first appear."""
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = [
        (
            _DIRECTION_LABELS.get(direction, direction),
            [
                _number(values.get(name, math.nan), ".1f" if name in _METRIC_LABELS else ".4g")
                for name in names
            ],
        )
        for direction, values in metrics.items()
    ]
    return {"columns": [_METRIC_LABELS.get(name, name) for name in names], "rows": rows}


def _number(value: float, style: str) -> str:
    return format(value, style).replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "–"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _as_text(value: object) -> object:
    """Replace what is no text by U+FFFD; what a macro returned (Markup) has been through here."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", value)
    return value
