"""Where a data set's files lie, in the folders of several releases, and what its lists name."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loader.formats.read import read_id_list
from data_loader.formats.tables import unique
from data_loader.sets.declared import aggregated, declared_expert
from data_loader.sets.description import (
    DataDescription,
    ExpertEntry,
    ListEntry,
    SplitEntry,
    TextEntry,
)
from utils.errors import BadContent, UserError
from utils.files import exists

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpertSource:
    """One expert's files and what is declared about them.

    Attributes:
        name: the expert.
        files: one file, or several that are concatenated along the features.
        variable_length: whether a video has a varying number of vectors (tokens), None if the file
            decides.
        size: declared length of a vector, None if the file decides.
        binarise: whether present features are replaced by ones.
        average: whether a video's tokens are averaged to one vector.
        are_parts: whether several files hold different videos, not different features.
    """

    name: str
    files: tuple[Path, ...]
    variable_length: bool | None
    size: int | None
    binarise: bool = False
    average: bool = False
    are_parts: bool = False


@dataclass(frozen=True)
class TextSource:
    """Files of text features.

    Attributes:
        files: one file, or several that hold the videos together.
        key_mapping: file of video id -> the id that `files` use, None where they use video ids.
    """

    files: tuple[Path, ...]
    key_mapping: Path | None = None


# Releases of published features that are unpacked into a folder of their own name.
BY_HAND = "symlinked-feats"
RELEASES_WITH_A_FOLDER = ("challenge-release-1", "challenge-release-2")


class FileFinder:
    """Looks files up in the configured folder first, then in those of the other releases."""

    def __init__(self, description: DataDescription, feature_folder: str = "") -> None:
        self.description = description
        first = (feature_folder,) if feature_folder else ()
        # Where the published instructions tell people to place experts by hand.
        by_hand = (BY_HAND,) if description.published else ()
        names = dict.fromkeys((*first, *description.feature_folders, *by_hand, ""))
        self.folders = [description.root / name for name in names]

    def preferring(self, feature_folder: str) -> "FileFinder":
        """Return a finder that looks into another folder first, then where this one does."""
        other = FileFinder(self.description)
        folders = dict.fromkeys((self.description.root / feature_folder, *self.folders))
        other.folders = list(folders)
        return other

    def find(self, names: tuple[str, ...], what: str, remedy: str = "") -> Path:
        """Return the first existing file (or folder of files) among the known names and folders.

        Args:
            names: names of the file, relative to the folders.
            what: its role, for messages.
            remedy: what to do where it is missing; by default, what the data set advises.

        Raises:
            UserError: there is none; the message lists where it was looked for and what to run.
        """
        candidates = [folder / name for folder in self.folders for name in names]
        for path in candidates:
            if exists(path):
                if path != candidates[0]:
                    logger.info("%s: using %s (there is no %s)", what, path, candidates[0])
                return path
        raise self._missing(what, names, remedy)

    def find_expert(self, entry: ExpertEntry, name: str) -> tuple[Path, ...]:
        """Return the file of an expert, or all its parts."""
        what = f'the expert "{name}"'
        if entry.parts:
            return tuple(self.find((part,), what) for part in entry.parts)
        return (self.find(entry.files, what),)

    def find_given(self, name: str, what: str, remedy: str = "") -> Path:
        """Return a file that the user names: a path of its own, or one in the known folders."""
        path = Path(name)
        return path if exists(path) and path.is_file() else self.find((name,), what, remedy)

    def find_text(self, entry: TextEntry, what: str) -> TextSource:
        """Return text features: one file, or all parts of it, from the first folder that has them.

        Raises:
            UserError: there are none, or the mapping of the parts' ids is missing.
        """
        if not entry.parts:
            return TextSource((self.find(entry.files, what),))
        for folder in self.folders:
            if any(exists(folder / name) for name in entry.files):
                return TextSource((self.find(entry.files, what),))
            parts = tuple(folder / name for name in entry.parts)
            if all(exists(path) for path in parts):
                mapping = entry.parts_key_mapping
                keys = self.find((mapping,), f"the video ids of {what}") if mapping else None
                return TextSource(parts, keys)
        raise self._missing(what, (*entry.files, *entry.parts))

    def _missing(self, what: str, names: tuple[str, ...], remedy: str = "") -> UserError:
        looked = ", ".join(str(folder / name) for folder in self.folders for name in names)
        return UserError(
            f"The file of {what} of the data set {self.description.name} is missing: looked for "
            f"{looked}; {remedy or self.remedy()}."
        )

    def remedy(self) -> str:
        """Return what to do where a file of the data set is missing."""
        if self.description.published:
            command = f"python3 misc/sync_experts.py --dataset {self.description.name}"
            # The folder that is configured has the name of the release that fills it.
            release = self.folders[0].name
            if release in RELEASES_WITH_A_FOLDER:
                command += f" --release {release}"
            return f"run `{command}` to fetch it"
        return f"check the path in {self.description.source}"


def expert_source(
    name: str,
    finder: FileFinder,
    split: SplitEntry,
    aggregation: dict[str, Any],
    face_dim: int | None,
) -> ExpertSource:
    """Return where an expert's features lie and what is declared about them.

    Args:
        name: the expert.
        finder: looks the files up.
        split: the split in use, which may replace an expert's file.
        aggregation: the expert's entry of the config's `feat_aggregation`, empty if it has none.
        face_dim: size of the `face` expert, which published configs declare apart.

    Raises:
        UserError: the expert is unknown, its config is incomplete, or a file is missing.
    """
    description = finder.description
    description.check_expert(name, split)
    declared = declared_expert(name, description, split, aggregation, face_dim)
    entry = description.expert_entry(name, split)
    if entry:
        files = finder.find_expert(entry, name)
    else:
        files = tuple(
            finder.find((file,), f'the expert "{name}"') for file in aggregated(name, aggregation)
        )
    return ExpertSource(
        name=name,
        files=files,
        variable_length=declared.variable_length,
        size=declared.size,
        binarise=bool(aggregation.get("binarise", False)),
        are_parts=bool(entry and entry.parts),
        average=bool(
            entry and entry.variable_length is not False and aggregation.get("temporal") == "avg"
        ),
    )


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
