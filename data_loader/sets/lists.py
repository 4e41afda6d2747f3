"""Lists of videos: which file, which of its entries, which video ids they stand for."""

from pathlib import Path

from data_loader.formats.read import read_id_list
from data_loader.formats.tables import unique
from data_loader.sets.description import DataDescription, ListEntry
from data_loader.sets.layout import FileFinder
from utils.errors import BadContent, UserError


def videos_of(entry: ListEntry, finder: FileFinder) -> list[str]:
    """Return the video ids of a list of a split.

    Raises:
        UserError: the file is missing or cannot be used, or the list is empty.
    """
    path = finder.find((entry.file,), "the list of videos")
    ids = read_videos(path, finder.description, entry.key)
    if not ids:
        raise UserError(f"The list of videos {path} is empty.")
    return ids


def read_videos(path: Path, description: DataDescription, key: str | None = None) -> list[str]:
    """Return the video ids of a list's file, or of the list under `key` of a JSON file.

    Raises:
        UserError: the file cannot be used, or names a video twice.
    """
    try:
        return unique(description.video_ids(read_id_list(path, key)))
    except BadContent as error:
        raise UserError(f"The list of videos {path} {str(error).removeprefix('it ')}.") from error
