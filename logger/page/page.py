"""The rankings page: what a model retrieves for sampled queries, as static HTML with videos.

The page knows no model. It takes plain data and writes `index.html` with its style sheet and
scripts into one folder, with the videos linked beside them, ready for any static server.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from logger.page.cards import Cards, number
from logger.page.charts import histogram, recall_chart
from logger.page.data import Ranking, VideoRanking
from logger.page.list import PageEntry, add_to_page_list
from logger.page.videos import VideoFiles
from utils.errors import UserError
from utils.files import make_folder, replacing

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).resolve().parent / "templates"
SCRIPTS = ("near.js", "find.js", "videos.js", "experts.js", "keyboard.js", "summary.js")
STYLES = ("style.css", "top.css", "tools.css", "cards.css", "matches.css")
_METRIC_LABELS = {
    **{f"R{k}": f"R@{k}" for k in (1, 5, 10, 50)},
    "MedR": "MedR",
    "MeanR": "MeanR",
    "geometric_mean_R1-R5-R10": "geometric mean",
}
_DIRECTION_LABELS = {"t2v": "text to video", "v2t": "video to text"}
# Neither HTML nor UTF-8 can carry these; a caption read from JSON may hold them all the same.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


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
    video_rankings: Sequence[VideoRanking] = (),
    num_texts: int | None = None,
    ranks: Mapping[str, Sequence[float]] | None = None,
    experts: Sequence[str] = (),
    captions_of: Mapping[str, Sequence[str]] | None = None,
    file_name: str = "index.html",
    name: str = "test",
    order: int = 0,
) -> Path:
    """Write the page with everything it needs into `folder` and return the path of the page.

    Titles, ids and captions are data: they appear on the page as text, whatever they hold.

    Args:
        folder: made if needed; `videos` in it becomes a link to `video_folder` (where the file
            system has no links, the videos shown are copied).
        metrics: direction ("t2v", "v2t") -> name of the metric -> value, shown as a table.
        rankings: text to video, one card each, in this order.
        video_folder: holds `<video id>.mp4` or `.webm`; ids without a file get a note instead. A
            picture `<video id>.jpg`, `.png` or `.webp` there is the video's thumbnail.
        num_videos: size of the retrieval set.
        video_rankings: video to text, one card each, in this order.
        num_texts: number of texts that are ranked for a video; as many as videos by default.
        ranks: direction -> the ranks of all queries, shown as a histogram and a recall curve.
        experts: names of the experts that the rankings' `speakers` are about.
        captions_of: video id -> captions, shown below retrieved videos.
        name: what the page is called in the list of the folder's pages ("epoch 3").
        order: place in that list.

    Raises:
        UserError: the folder cannot be written, or a file named `videos` is in the way.
    """
    folder = make_folder(folder)
    files = VideoFiles(video_folder)
    num_texts = num_videos if num_texts is None else num_texts
    cards = Cards(rankings, video_rankings, files, captions_of or {})
    candidates = {"t2v": num_videos, "v2t": num_texts}
    ranks = {way: values for way, values in (ranks or {}).items() if len(values)}
    html = (
        _environment()
        .get_template("rankings.html")
        .render(
            title=title,
            table=_metric_table(metrics),
            histograms={
                _DIRECTION_LABELS[way]: histogram(values, candidates[way])
                for way, values in ranks.items()
            },
            chart=recall_chart(ranks, candidates),
            cards=cards.texts,
            video_cards=cards.videos,
            experts=json.dumps(list(experts)),
            num_videos=num_videos,
            num_texts=num_texts,
            styles=STYLES,
            scripts=SCRIPTS,
        )
    )
    for file in (*STYLES, *SCRIPTS):
        with replacing(folder / file) as handle:
            handle.write((_TEMPLATES / file).read_bytes())
    files.bring_to(folder)
    with replacing(folder / file_name, "w", encoding="utf-8", newline="\n") as handle:
        handle.write(html)
    add_to_page_list(folder, PageEntry(file_name, name, _figures(metrics), order))
    return folder / file_name


# What the template shows ------------------------------------------------------------------------


def _metric_table(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, list]:
    """Rows are directions, columns the metrics' names in the order in which they first appear."""
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = [
        (
            _DIRECTION_LABELS.get(direction, direction),
            [
                number(values.get(name, math.nan), ".1f" if name in _METRIC_LABELS else ".4g")
                for name in names
            ],
        )
        for direction, values in metrics.items()
    ]
    return {"columns": [_METRIC_LABELS.get(name, name) for name in names], "rows": rows}


def _figures(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The two figures by which a page is told from the others of its list."""
    values = metrics.get("t2v", {})
    shown = [
        (label, values[label.replace("@", "")])
        for label in ("R@1", "MedR")
        if label.replace("@", "") in values
    ]
    return ", ".join(f"{label} {number(value, '.1f')}" for label, value in shown)


@cache
def _environment() -> "jinja2.Environment":
    import jinja2  # only who draws a page waits for it

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
