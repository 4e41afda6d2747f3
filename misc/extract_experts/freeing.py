"""Features that are on the disk once: journals let go of those that the data set's files have.

What they let go of they know by its checksum. A file that was changed or removed since then has
nothing any more, and the expert looks at the videos again.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from misc.extract_experts.assemble import item_ids
from misc.extract_experts.feature_file import FeatureFile, checksum
from misc.extract_experts.journal import Done, Place, let_go, read_rows

Lost = frozenset[tuple[str, str]]
"""Videos and experts whose features were in a file of the data set, and are there no more."""


def lost_features(folder: Path, done: Mapping[str, Done], segments: str) -> Lost:
    """Compare the files of a data set with what the journals know of them."""
    files: dict[str, FeatureFile] = {}
    lost = set()
    for video, one in done.items():
        items = item_ids(video, one, segments)
        for expert, place in one.experts.items():
            if place.is_kept:
                file = files.get(expert) or files.setdefault(expert, FeatureFile(folder, expert))
                if not _has(file, items, place):
                    lost.add((video, expert))
    return frozenset(lost)


def without(done: Mapping[str, Done], lost: Lost) -> dict[str, Done]:
    """Return what is known of all videos but for the features that are lost."""
    return {
        video: replace(
            one,
            experts={
                expert: place
                for expert, place in one.experts.items()
                if not (place.is_kept and (video, expert) in lost)
            },
        )
        for video, one in done.items()
    }


def free(work: Path, name: str, folder: Path, done: Mapping[str, Done], segments: str) -> None:
    """Let the journals leave features to the files of the data set, if these have all of them.

    Args:
        work: folder of the journals.
        name: of the journal that remains.
        folder: of the data set, whose files are written.
        done: what is known of all videos.
        segments: as `items_of` takes it.

    Raises:
        UserError: the journal cannot be written.
    """
    if all(place.is_kept for one in done.values() for place in one.experts.values()):
        return
    files: dict[str, FeatureFile] = {}
    kept = {}
    for video, one in done.items():
        items, places = item_ids(video, one, segments), {}
        for expert, place in one.experts.items():
            file = files.get(expert) or files.setdefault(expert, FeatureFile(folder, expert))
            check = place.check if place.is_kept else checksum(read_rows(place))
            places[expert] = replace(place, journal=None, start=0, check=check)
            if not _has(file, items, places[expert]):
                return
        kept[video] = replace(one, experts=places)
    let_go(work, name, kept)


def _has(file: FeatureFile, items: list[str], place: Place) -> bool:
    """Tell whether a file has the features of a video as they were."""
    counts = tuple(file.counts.get(item, 0) for item in items)
    return counts == place.rows and file.check(items) == place.check
