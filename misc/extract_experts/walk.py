"""Which videos are meant, and what each of them is called."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from misc.import_data_set.ids import FORMS
from utils.errors import UserError, is_writable, listed, short
from utils.files import PATH_ERRORS, is_there, reason

# What counts as a video in a folder; a file that is named by itself may have any ending.
ENDINGS = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".mpg"),
        *(".mpeg", ".ts", ".mts", ".m2ts", ".vob", ".3gp", ".3g2", ".ogv", ".ogg", ".rm"),
        *(".rmvb", ".dv", ".mxf", ".nut", ".gif", ".apng", ".webp", ".png", ".jpg", ".jpeg"),
        *(".bmp", ".tif", ".tiff", ".mp3", ".wav", ".flac", ".aac", ".m4a", ".oga", ".opus"),
        *(".wma", ".aiff", ".aif", ".au", ".caf", ".ac3", ".amr"),
    )
)
_TABLES, _LISTS = {".csv": ",", ".tsv": "\t"}, (".txt", ".lst", ".list")
_SHORTEST = FORMS["folders and endings"]
_ID_NAMES = ("id", "video", "video_id", "videoid", "name", "clip", "clip_id")
_PATH_NAMES = ("path", "file", "filename", "file_name", "video_path", "filepath")


@dataclass(frozen=True)
class Video:
    """A file to look at.

    Attributes:
        id: its name in the data set.
        path: where it lies.
    """

    id: str
    path: Path


@dataclass(frozen=True)
class Found:
    """What there is to look at.

    Attributes:
        videos: sorted by id.
        said: what else the user should know.
    """

    videos: list[Video]
    said: list[str]


def find_videos(sources: Sequence[Path], known: Mapping[Path, str]) -> Found:
    """Return the videos of folders, lists, tables and single files.

    Args:
        sources: folders, `.txt` (a path a line), `.csv` or `.tsv` (id and path), or videos.
        known: file -> id of videos that have one already, which they keep.

    Raises:
        UserError: a source cannot be used, two videos have one id, or there is no video.
    """
    named: dict[Path, str] = {}
    passed = _Passed()
    for source in sources:
        for path, name in _files_of(source, passed):
            path = path.parent.resolve() / path.name
            if name and named.get(path, name) != name:
                raise UserError(f'The file {path} has two ids: "{named[path]}" and "{name}".')
            named[path] = name or named.get(path, "")
    if not named:
        raise UserError(f"There is no video in {listed(map(str, sources))}.")
    videos = _with_ids(named, sources, known)
    return Found(sorted(videos, key=lambda video: video.id), [*passed.told()])


@dataclass
class _Passed:
    """What lies in the folders of videos, and is passed over."""

    endings: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def told(self) -> Iterator[str]:
        if self.endings:
            kinds = listed(sorted(kind or "none" for kind in self.endings))
            count = self.endings.total()
            yield f"{count} files with other endings ({kinds}) are passed over"
        if self.links:
            shown = listed(map(short, self.links), 3)
            yield f"links to folders are not followed, name these with --videos: {shown}"
        if self.closed:
            yield f"folders that cannot be read are passed over: {listed(self.closed, 3)}"


def _files_of(source: Path, passed: _Passed) -> Iterator[tuple[Path, str]]:
    """Give files and the ids that a table has for them."""
    if not is_there(source):
        raise UserError(f"There are no videos at {source}: it does not exist.")
    if source.is_dir():
        for path in _below(source, passed):
            if path.suffix.lower() in ENDINGS:
                yield path, ""
            else:
                passed.endings[path.suffix] += 1
    elif source.suffix.lower() in (*_TABLES, *_LISTS):
        yield from _listed_files(source)
    else:
        yield source, ""


def _below(source: Path, passed: _Passed) -> Iterator[Path]:
    """Give all that is in a folder and is not hidden, also what will turn out to be no file."""

    def refused(error: OSError) -> None:
        passed.closed.append(f"{short(error.filename)} ({reason(error)})")

    for place, folders, names in os.walk(source, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(place, name) for name in folders]
        passed.links += [str(path) for path in paths if path.is_symlink()]
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _listed_files(source: Path) -> Iterator[tuple[Path, str]]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"The list of videos {source} is not UTF-8 text.") from error
    except PATH_ERRORS as error:
        raise UserError(f"Cannot read the list of videos {source}: {reason(error)}.") from error
    if source.suffix.lower() in _LISTS:
        rows = [["", line.strip()] for line in lines]
    else:
        try:
            rows = list(csv.reader(lines, delimiter=_TABLES[source.suffix.lower()], strict=True))
        except csv.Error as error:
            raise UserError(f"The list of videos {source} is damaged: {error}.") from error
        rows = _columns(source, [row for row in rows if row])
    for name, path in rows:
        if path:
            full = source.parent / path
            if not is_there(full):
                raise UserError(f'The list {source} names "{short(path)}", which does not exist.')
            yield full, name


def _columns(source: Path, rows: list[list[str]]) -> list[list[str]]:
    """Return id and path of each row; a first row of names says which columns they are."""
    if not rows:
        return []
    head = [cell.strip().lower() for cell in rows[0]]
    ids = [place for place, cell in enumerate(head) if cell in _ID_NAMES]
    paths = [place for place, cell in enumerate(head) if cell in _PATH_NAMES]
    if ids and paths:
        id_place, path_place, rows = ids[0], paths[0], rows[1:]
    else:
        id_place, path_place = 0, 1
    width = max(id_place, path_place) + 1
    for number, row in enumerate(rows, 1):
        if len(row) < width:
            raise UserError(
                f"The list of videos {source} has {len(row)} columns in row {number}: an id and a "
                "path were expected."
            )
    return [[row[id_place].strip(), row[path_place].strip()] for row in rows]


def _with_ids(
    named: Mapping[Path, str], sources: Sequence[Path], known: Mapping[Path, str]
) -> list[Video]:
    """Name each file: as a table or an earlier run does, or as short as keeps them apart."""
    taken: dict[str, Path] = {name: path for path, name in known.items()}
    inside = {path: _seen_from(path, sources) for path in named}
    short_names = Counter(_SHORTEST(inside[path]) for path in named if not named[path])
    videos = []
    for path in sorted(named, key=os.fsencode):
        name = known.get(path, "")
        if named[path] and name and name != named[path]:
            raise UserError(f'{path} was called "{short(name)}" before: it keeps that id.')
        if not (name or named[path]):
            forms = [form(inside[path]) for form in FORMS.values()]
            # Of two files with one name none is called by that alone.
            wanted = forms[1:] if short_names[forms[0]] > 1 else forms
            name = next((name for name in wanted if name and name not in taken), str(path))
        name = name or named[path]
        if not is_writable(name, in_one_line=True):
            raise UserError(
                f'The video "{short(name)}" has a name that no file can hold: rename it.'
            )
        if taken.get(name, path) != path:
            raise UserError(f'Two videos have the id "{short(name)}": {taken[name]} and {path}.')
        taken[name] = path
        videos.append(Video(name, path))
    return videos


def _seen_from(path: Path, sources: Sequence[Path]) -> str:
    """Return a path as seen from the folder that was named, a file's name where none was."""
    for source in sources:
        if source.is_dir() and path.is_relative_to(source.resolve()):
            return path.relative_to(source.resolve()).as_posix()
    return path.name
