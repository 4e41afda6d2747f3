"""All queries of an evaluation as scripts beside its page, which loads what is asked for.

One script is an index: what filters, sorting and comparing need of every query. The others hold
what the cards of `PART` queries show besides.
"""

import hashlib
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logger.page.data import Page, Ranking, Speakers, VideoRanking
from logger.page.failures import Failures, Query, find_failures, near_duplicates, num_words
from logger.page.scripts import as_json, as_text, number
from logger.page.videos import VideoFiles
from utils.files import make_folder, replacing

DATA = "data"  # folder beside the pages
PART = 200
MOST_TWINS = 5  # that a query names


@dataclass(frozen=True)
class Every:
    """All queries, ready to be written.

    Attributes:
        folder: name of the folder of the scripts.
        scripts: name of a script -> content.
        failures: what an analysis of them says.
        video_ids: of the whole set, as `failures` counts them.
        twins: number of a query -> ids of the videos of near-duplicates.
    """

    folder: str
    scripts: Mapping[str, str]
    failures: Failures
    video_ids: Sequence[str]
    twins: Mapping[int, Sequence[str]]


def collect(page: Page, files: VideoFiles) -> Every | None:
    """Walk all queries of a page once; None where it is told of none."""
    if page.every is None:
        return None
    videos = {video_id: place for place, video_id in enumerate(page.every.video_ids)}
    queries: list[Query] = []
    texts: list[str | list[str]] = []
    similarities: list[float | None] = []
    rows: list[list] = []
    for ranking in page.every.rankings:
        queries.append(_query(ranking, videos))
        captions = [as_text(text) for text in ranking.captions]
        texts.append(captions[0] if len(captions) == 1 else captions)
        similarities.append(number(ranking.similarity))
        rows.append(_row(ranking))
    if not queries:
        return None
    twins = near_duplicates(queries)
    video_ranks, video_similarities, video_rows = [], [], []
    for by_video in page.every.video_rankings:
        video_ranks.append(number(by_video.rank))
        video_similarities.append(number(by_video.similarity))
        video_rows.append(_video_row(by_video))
    index = {
        "part": PART,
        "experts": [as_text(name) for name in page.experts],
        "videos": [_video(video_id, files) for video_id in videos],
        "query": {
            "text": texts,
            "similarity": similarities,
            "video": [q.video for q in queries],
            "rank": [number(q.rank) for q in queries],
            "found": [list(q.found) for q in queries],
            "missing": [sum(1 << expert for expert in q.missing) for q in queries],
            "misled": [[q.misled[0], number(q.misled[1])] if q.misled else 0 for q in queries],
            "words": [num_words(q.captions) for q in queries],
            "twins": {place: others[:MOST_TWINS] for place, others in twins.items()},
        },
        "video": {"rank": video_ranks, "similarity": video_similarities},
    }
    values = {"index": index, **_parts("query", rows), **_parts("video", video_rows)}
    folder, scripts = _named(values, Path(page.file_name).stem)
    failures = find_failures(queries, page.experts, twins)
    return Every(folder, scripts, failures, list(videos), _ids_of_twins(twins, queries, videos))


def _query(ranking: Ranking, videos: Mapping[str, int]) -> Query:
    said = ranking.speakers.similarities if ranking.speakers else ()
    misled = ranking.misled
    return Query(
        ranking.captions,
        videos[ranking.video_id],
        ranking.rank,
        [videos[found.video_id] for found in ranking.retrieved],
        [place for place, value in enumerate(said) if value is None],
        (misled.expert, misled.rank) if misled else None,
    )


def _row(ranking: Ranking) -> list:
    """What a card shows besides: the experts of the true match, then of each found one."""
    found = [[number(f.similarity), experts_text(f.speakers)] for f in ranking.retrieved]
    return [experts_text(ranking.speakers), found]


def _video_row(ranking: VideoRanking) -> list:
    """A video's own captions and those found, by the numbers that they have as queries."""
    own = [[own.number, number(own.rank), number(own.similarity)] for own in ranking.own]
    found = [[f.number, number(f.similarity), experts_text(f.speakers)] for f in ranking.retrieved]
    return [own, found]


def _video(video_id: str, files: VideoFiles) -> list:
    """Id, address and thumbnail, without what is not there."""
    video = files.look_up(video_id)
    row = [as_text(video_id), video.url, video.thumbnail]
    while row[-1] is None:
        row.pop()
    return row


def experts_text(speakers: Speakers | None) -> str:
    """The experts of a match for the page's script: "0.25:0.81 0:-".

    Each is weight:similarity; a model without weights leaves them out (":0.81"), "-" is missing.
    """
    if speakers is None:
        return ""
    weights: Sequence[float | None] = speakers.weights or [None] * len(speakers.similarities)
    return " ".join(
        f"{_short(weight)}:{_short(similarity) or '-'}"
        for weight, similarity in zip(weights, speakers.similarities, strict=True)
    )


def _short(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _ids_of_twins(
    twins: Mapping[int, Sequence[int]], queries: Sequence[Query], videos: Mapping[str, int]
) -> dict[int, list[str]]:
    ids = list(videos)
    return {
        place + 1: [ids[queries[other].video] for other in others[:MOST_TWINS]]
        for place, others in twins.items()
    }


def _parts(kind: str, rows: list[list]) -> dict[str, list]:
    starts = range(0, len(rows), PART)
    return {f"{kind}-{place}": rows[start : start + PART] for place, start in enumerate(starts)}


def _named(values: Mapping[str, Any], stem: str) -> tuple[str, dict[str, str]]:
    """Spell scripts, and name their folder by what they hold: a page never meets those of another.

    Each puts its value into `rankingData` under the name of the folder and its own.
    """
    texts = {name: as_json(value) for name, value in values.items()}
    digest = hashlib.sha256("".join(texts.values()).encode("ascii")).hexdigest()[:8]
    folder = f"{stem}-{digest}"
    return folder, {
        f"{name}.js": f'(globalThis.rankingData ??= {{}})["{folder}/{name}"] = {text};\n'
        for name, text in texts.items()
    }


def write_scripts(folder: Path, every: Every) -> None:
    """Write the scripts into a folder's `data`; those of other pages stay.

    Raises:
        UserError: the folder cannot be written.
    """
    place = make_folder(folder / DATA / every.folder)
    for name, text in every.scripts.items():
        with replacing(place / name, "w", encoding="ascii", newline="\n") as handle:
            handle.write(text)


def remove_older(folder: Path, page: str, kept: str) -> None:
    """Remove what earlier pages of a file name left in a folder's `data`, all but `kept`."""
    named = re.compile(re.escape(Path(page).stem) + "-[0-9a-f]{8}")
    with suppress(OSError):
        for path in sorted((folder / DATA).iterdir()):
            if named.fullmatch(path.name) and path.name != kept and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
