"""All runs in one table, and two of them compared query by query: pages from plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from logger.page.page import TEMPLATES, environment
from logger.page.scripts import as_json, as_text

STYLES = ("style.css", "top.css", "tools.css", "cards.css", "matches.css", "runs.css")
TABLE_SCRIPTS = ("table.js",)
COMPARE_SCRIPTS = ("near.js", "every.js", "cards.js", "bootstrap.js", "compare.js", "videos.js")
RUN_LIST = "runs.js"
CURVE_SIZE = (100, 24)


@dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
        name: what tells it from the others of its experiment.
        seed: "" where it has none.
        date: of its beginning, as it sorts.
        status: "" for a training that has come to its test, else how far it came, or what it is.
        figures: its metrics, one for each column; None where it lacks one.
        curve: of the validation metric by epoch, as points of an SVG polyline.
        page: address of its rankings, relative to the table; "" where none were drawn.
        base: address of the folder of that page.
        data: folder of all its queries beside the page; "" where there is none.
    """

    name: str
    seed: str
    date: str
    status: str
    figures: Sequence[float | None]
    curve: str = ""
    page: str = ""
    base: str = ""
    data: str = ""


@dataclass(frozen=True)
class RunGroup:
    """The runs of an experiment that were tested on one split.

    Attributes:
        means, spreads: of each column over the seeds that count; None where there are none, or is
            but one.
        seeds: how many count.
        runs: all of them, newest first.
    """

    experiment: str
    split: str
    seeds: int
    means: Sequence[float | None]
    spreads: Sequence[float | None]
    runs: Sequence[RunRow]

    @property
    def newest(self) -> str:
        return max((run.date for run in self.runs), default="")


@dataclass(frozen=True)
class RunTable:
    """What a folder of runs holds.

    Attributes:
        title: of the pages.
        columns: heads of the figures; those in `smaller` are better when they are smaller.
        notes: what could not be read, or does not count, and why.
    """

    title: str
    columns: Sequence[str]
    groups: Sequence[RunGroup]
    smaller: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def runs_files(table: RunTable, search: str = "") -> dict[str, str]:
    """Make the pages of a folder of runs with all that they need: file name -> content.

    Args:
        table: the runs.
        search: address of a search that is served beside them.
    """
    rendered = {
        page: environment()
        .get_template(template)
        .render(table=table, styles=STYLES, scripts=scripts, search=search, size=CURVE_SIZE)
        for page, template, scripts in (
            ("index.html", "runs.html", TABLE_SCRIPTS),
            ("compare.html", "compare.html", (RUN_LIST, *COMPARE_SCRIPTS)),
        )
    }
    comparable = [
        {
            "name": as_text(f"{group.experiment}, {_called(run)}"),
            "id": as_text(run.base),
            "split": as_text(group.split),
            **{"base": run.base, "data": run.data, "page": run.page},
        }
        for group in table.groups
        for run in group.runs
        if run.data
    ]
    rendered[RUN_LIST] = f"globalThis.comparableRuns = {as_json(comparable)};\n"
    for name in dict.fromkeys((*STYLES, *TABLE_SCRIPTS, *COMPARE_SCRIPTS)):
        rendered[name] = (TEMPLATES / name).read_text(encoding="utf-8")
    return rendered


def _called(run: RunRow) -> str:
    return f"seed {run.seed}, {run.name}" if run.seed else run.name


def curve_points(values: Sequence[tuple[int, float]]) -> str:
    """A small curve in the coordinates of `CURVE_SIZE`; "" for less than two points."""
    if len(values) < 2:
        return ""
    width, height = CURVE_SIZE
    low, high = (pick(value for _, value in values) for pick in (min, max))
    first, last = values[0][0], values[-1][0]
    return " ".join(
        f"{width * (epoch - first) / ((last - first) or 1):.1f},"
        f"{height - 1 - (height - 2) * (value - low) / ((high - low) or 1):.1f}"
        for epoch, value in values
    )


def with_links(page_list: str, runs: str = "", search: str = "") -> str:
    """Tell the pages of a run, in the script that lists them, what lies beside them."""
    links: Mapping[str, str] = {"runsPage": runs, "searchPage": search}
    told = [f"globalThis.{name} = {as_json(link)};\n" for name, link in links.items() if link]
    return page_list + "".join(told)
