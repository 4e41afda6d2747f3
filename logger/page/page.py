"""The rankings page: what a model retrieves for sampled queries, as static HTML with videos.

The page knows no model. It takes plain data and writes `index.html` with its style sheet and
scripts into one folder, with the videos linked beside them, ready for any static server.
"""

import json
import math
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import numpy as np
from markupsafe import Markup

from logger.page.charts import curve_charts, histogram, place_of, recall_chart
from logger.page.data import Page, Ranking, VideoRanking
from logger.page.every import DATA, Every, collect, experts_text, remove_older, write_scripts
from logger.page.list import PageEntry, add_to_page_list
from logger.page.scripts import as_text
from logger.page.videos import VideoFiles
from utils.errors import UserError
from utils.files import make_folder, replacing

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).resolve().parent / "templates"
SCRIPTS = (
    *("near.js", "every.js", "cards.js", "filters.js", "find.js", "videos.js", "experts.js"),
    *("keyboard.js", "summary.js"),
)
STYLES = ("style.css", "top.css", "tools.css", "cards.css", "matches.css")
METRIC_LABELS = {
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
# What the tiles at the top show.
_KEY_FIGURES = ("R1", "R5", "R10", "MedR")


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
    every = collect(page, files)
    html = _rendered(page, files, every)
    copy_templates(folder, (*STYLES, *SCRIPTS))
    files.bring_to(folder)
    if every:
        write_scripts(folder, every)
    with replacing(folder / page.file_name, "w", encoding="utf-8", newline="\n") as handle:
        handle.write(html)
    name = every.folder if every else ""
    remove_older(folder, page.file_name, name)
    entry = PageEntry(page.file_name, page.name, _figures(page), page.order, name)
    add_to_page_list(folder, entry)
    return folder / page.file_name


def copy_templates(folder: Path, names: tuple[str, ...]) -> None:
    """Put style sheets and scripts into a folder."""
    for name in names:
        with replacing(folder / name) as handle:
            handle.write((TEMPLATES / name).read_bytes())


def _rendered(page: Page, files: VideoFiles, every: Every | None) -> str:
    candidates = {"t2v": page.num_videos, "v2t": page.num_texts}
    ranks = {way: values for way, values in page.ranks.items() if len(values)}
    highest = _highest_similarity(page)
    return (
        environment()
        .get_template("rankings.html")
        .render(
            page=page,
            tiles=_tiles(page),
            table=_metric_table(page.metrics),
            histograms=[
                (way, _DIRECTION_LABELS[way], histogram(values, candidates[way]))
                for way, values in ranks.items()
            ],
            chart=recall_chart(ranks, candidates),
            curves=curve_charts(page.curves),
            every=every,
            failures=every.failures if every else None,
            data=f"{DATA}/{every.folder}" if every else "",
            experts=json.dumps(list(page.experts)),
            video_of=files.find,
            highest=highest,
            percent=partial(_percent, highest),
            filters=_address,
            styles=STYLES,
            scripts=SCRIPTS,
        )
    )


# What the template shows ------------------------------------------------------------------------


def _metric_table(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, list]:
    """Rows are directions, columns the metrics' names in the order in which they first appear."""
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = [
        (
            _DIRECTION_LABELS.get(direction, direction),
            [
                number_text(values.get(name, math.nan), ".1f" if name in METRIC_LABELS else ".4g")
                for name in names
            ],
        )
        for direction, values in metrics.items()
    ]
    return {"columns": [METRIC_LABELS.get(name, name) for name in names], "rows": rows}


def _tiles(page: Page) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """The key figures of each direction: among how many candidates, labels and numbers."""
    candidates = {"t2v": f"{page.num_videos} videos", "v2t": f"{page.num_texts} captions"}
    tiles = []
    for direction, of in candidates.items():
        values = page.metrics.get(direction, {})
        figures = [
            (METRIC_LABELS[name], number_text(values[name], ".1f"))
            for name in _KEY_FIGURES
            if name in values
        ]
        if figures:
            tiles.append((_DIRECTION_LABELS[direction], of, figures))
    return tiles


def _figures(page: Page) -> str:
    """The two figures by which a page is told from the others of its list."""
    values = page.metrics.get("t2v", {})
    shown = [
        (label, values[label.replace("@", "")])
        for label in ("R@1", "MedR")
        if label.replace("@", "") in values
    ]
    return ", ".join(f"{label} {number_text(value, '.1f')}" for label, value in shown)


def _highest_similarity(page: Page) -> float:
    every: list[Ranking | VideoRanking] = [*page.rankings, *page.video_rankings]
    shown = [match.similarity for ranking in every for match in (ranking, *ranking.retrieved)]
    return max(filter(math.isfinite, shown), default=0.0)


def _percent(highest: float, similarity: float) -> float:
    """The length of a similarity's bar, relative to the highest of the page."""
    is_positive = similarity > 0 and highest > 0
    return round(100 * similarity / highest, 1) if is_positive else 0.0


def number_text(value: float, style: str) -> str:
    """A number as people read it: a true minus sign, a dash where there is none."""
    return format(value, style).replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "–"


def _rank(rank: float) -> str:
    return number_text(rank, ".0f" if float(rank).is_integer() else ".1f")


def _level(rank: float) -> str:
    place = place_of(rank)
    return "first" if place == 1 else "near" if place <= 10 else "far"


def _address(*filters: Mapping[str, str]) -> str:
    """Filters as the page's address spells them."""
    return urlencode({key: as_text(value) for part in filters for key, value in part.items()})


_FILTERS = {
    "number": number_text,
    "rank": _rank,
    "place": place_of,
    "level": _level,
    "experts": experts_text,
}


@cache
def environment() -> "jinja2.Environment":
    import jinja2  # only who draws a page waits for it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment


def _finalized(value: object) -> object:
    """Make texts what HTML can carry; what a macro returned (Markup) has been through here."""
    return as_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
