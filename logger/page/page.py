"""The rankings page: what a model retrieves for sampled queries, as static HTML with videos.

The page knows no model. It takes plain data and writes `index.html` with its style sheet and
scripts into one folder, with the videos linked beside them, ready for any static server.
"""

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from logger.page.charts import histogram, place_of, recall_chart
from logger.page.data import Page, Ranking, Speakers, VideoRanking
from logger.page.videos import VideoFiles
from utils.errors import UserError
from utils.files import make_folder, replacing

if TYPE_CHECKING:
    import jinja2

_log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).resolve().parent / "templates"
SCRIPTS = ("near.js", "find.js", "videos.js", "experts.js", "keyboard.js", "summary.js")
STYLES = ("style.css", "top.css", "tools.css", "cards.css", "matches.css")
_METRIC_LABELS = {
    **{f"R{k}": f"R@{k}" for k in (1, 5, 10, 50)},
    "MedR": "MedR",
    "MeanR": "MeanR",
    "geometric_mean_R1-R5-R10": "geometric mean",
}
_DIRECTION_LABELS = {
    "t2v": "text to video",
    "v2t": "video to text",
    "t2v_corrected": "text to video, hubs corrected",
    "v2t_corrected": "video to text, hubs corrected",
}
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


def write_rankings_page(folder: Path, page: Page, video_folder: Path | None = None) -> Path:
    """Write a page with everything it needs into `folder` and return the path of the page.

    Args:
        folder: made if needed; `videos` in it becomes a link to `video_folder` (where the file
            system has no links, the videos shown are copied).
        page: what it shows.
        video_folder: holds `<video id>.mp4` or `.webm`; ids without a file get a note instead. A
            picture `<video id>.jpg`, `.png` or `.webp` there is the video's thumbnail.

    Raises:
        UserError: the folder cannot be written, or a file named `videos` is in the way.
    """
    folder = make_folder(folder)
    files = VideoFiles(video_folder)
    candidates = {"t2v": page.num_videos, "v2t": page.num_texts}
    ranks = {way: values for way, values in page.ranks.items() if len(values)}
    html = (
        environment()
        .get_template("rankings.html")
        .render(
            page=page,
            table=_metric_table(page.metrics),
            histograms={
                _DIRECTION_LABELS[way]: histogram(values, candidates[way])
                for way, values in ranks.items()
            },
            chart=recall_chart(ranks, candidates),
            experts=json.dumps(list(page.experts)),
            video_of=files.find,
            percent=partial(_percent, _highest_similarity(page)),
            styles=STYLES,
            scripts=SCRIPTS,
        )
    )
    for file in (*STYLES, *SCRIPTS):
        with replacing(folder / file) as handle:
            handle.write((TEMPLATES / file).read_bytes())
    files.bring_to(folder)
    with replacing(folder / page.file_name, "w", encoding="utf-8", newline="\n") as handle:
        handle.write(html)
    add_to_page_list(folder, PageEntry(page.file_name, page.name, _figures(page), page.order))
    return folder / page.file_name


# What the template shows ------------------------------------------------------------------------


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


def _figures(page: Page) -> str:
    """The two figures by which a page is told from the others of its list."""
    values = page.metrics.get("t2v", {})
    shown = [
        (label, values[label.replace("@", "")])
        for label in ("R@1", "MedR")
        if label.replace("@", "") in values
    ]
    return ", ".join(f"{label} {_number(value, '.1f')}" for label, value in shown)


def _highest_similarity(page: Page) -> float:
    every: list[Ranking | VideoRanking] = [*page.rankings, *page.video_rankings]
    shown = [match.similarity for ranking in every for match in (ranking, *ranking.retrieved)]
    return max(filter(math.isfinite, shown), default=0.0)


def _percent(highest: float, similarity: float) -> float:
    """The length of a similarity's bar, relative to the highest of the page."""
    is_positive = similarity > 0 and highest > 0
    return round(100 * similarity / highest, 1) if is_positive else 0.0


def _number(value: float, style: str) -> str:
    """A number as people read it: a true minus sign, a dash where there is none."""
    return format(value, style).replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "–"


def _rank(rank: float) -> str:
    return _number(rank, ".0f" if float(rank).is_integer() else ".1f")


def _level(rank: float) -> str:
    place = place_of(rank)
    return "first" if place == 1 else "near" if place <= 10 else "far"


def _experts(speakers: Speakers) -> str:
    """The experts of a match in one attribute, for the page's script: "0.25:0.81 0:-".

    Each is weight:similarity; a model without weights leaves them out (":0.81"), "-" is missing.
    """
    weights: Sequence[float | None] = speakers.weights or [None] * len(speakers.similarities)
    return " ".join(
        f"{_short(weight)}:{_short(similarity) or '-'}"
        for weight, similarity in zip(weights, speakers.similarities, strict=True)
    )


def _short(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.3g}"


_FILTERS = {
    "number": _number,
    "rank": _rank,
    "place": place_of,
    "level": _level,
    "experts": _experts,
}


@cache
def environment() -> "jinja2.Environment":
    import jinja2  # only who draws a page waits for it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment


def _as_text(value: object) -> object:
    """Replace what is no text by U+FFFD; what a macro returned (Markup) has been through here."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", value)
    return value


# The list of a folder's pages -----------------------------------------------------------------

# It is a script, as pages opened from the file system may read no other file; its whole content is
# one assignment of JSON.
PAGE_LIST = "pages.js"
_START, _END = "globalThis.rankingPages = ", ";\n"


@dataclass(frozen=True)
class PageEntry:
    """One page of the list: its file, what it is called and the figures beside that."""

    file: str
    name: str
    figures: str
    order: int = 0  # see `Page.order`


def add_to_page_list(folder: Path, entry: PageEntry) -> list[PageEntry]:
    """Put a page into its folder's list, in the place of an older one of the same file.

    Pages that are no longer there leave the list; a list that cannot be read is begun anew.

    Raises:
        UserError: the list cannot be written.
    """
    kept = [e for e in _read_list(folder) if e.file != entry.file and (folder / e.file).is_file()]
    entries = sorted([*kept, entry], key=lambda e: (e.order, e.file))
    # JSON in ASCII is a script that means the same, whatever the names hold.
    content = _START + json.dumps([asdict(e) for e in entries], allow_nan=False) + _END
    with replacing(folder / PAGE_LIST, "w", encoding="ascii", newline="\n") as handle:
        handle.write(content)
    return entries


def _read_list(folder: Path) -> list[PageEntry]:
    path = folder / PAGE_LIST
    try:
        content = path.read_text(encoding="ascii")
        entries = json.loads(content.removeprefix(_START).removesuffix(_END))
        return [
            PageEntry(**entry) for entry in entries if Path(entry["file"]).name == entry["file"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("The list of pages %s is begun anew, it cannot be read: %s.", path, error)
        return []
