"""The videos beside a page: which file belongs to an id, and how the page reaches it."""

import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from utils.errors import UserError, short
from utils.files import make_folder, reason, replacing, temporary_name

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

LINK = "videos"
_PLAYABLE = (".mp4", ".webm")
_NOT_PLAYABLE = (".avi", ".mkv")
PICTURES = (".jpg", ".png", ".webp")
# What of a folder of videos a page may ask for.
VIDEOS = _PLAYABLE + _NOT_PLAYABLE
SHOWN_SUFFIXES = VIDEOS + PICTURES
# What a video may be, by its content: a playlist in its place could name other files.
_OPTIONS = {
    "format_whitelist": "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,asf,flv,ogg",
    "protocol_whitelist": "file",
}


@dataclass(frozen=True)
class Video:
    """Where a video is, as a page sees it; `url` is None where there is no file.

    `thumbnail` is the URL of a picture of it, where one lies beside the video.
    """

    url: str | None = None
    suffix: str = ""
    thumbnail: str | None = None

    @property
    def playable(self) -> bool:
        return self.suffix in _PLAYABLE


@dataclass
class VideoFiles:
    """Finds the files of video ids in `folder`, never outside it, and brings them to a page.

    Without a folder, or where it does not exist, no id has a file.
    """

    folder: Path | None
    _looked_up: dict[str, tuple[list[str], Video]] = field(default_factory=dict)
    _shown: dict[str, None] = field(default_factory=dict)  # in order

    def __post_init__(self) -> None:
        if self.folder is not None and not Path(self.folder).is_dir():
            _log.warning("No videos on the rankings page: %s is not a folder.", self.folder)
            self.folder = None
        self.folder = None if self.folder is None else Path(self.folder).resolve()

    def find(self, video_id: str) -> Video:
        """Return the video of an id that the page shows, its URL relative to the page."""
        self._shown[video_id] = None
        return self.look_up(video_id)

    def look_up(self, video_id: str) -> Video:
        """Return the video of an id that the page may show; it is there where links are."""
        if video_id not in self._looked_up:
            self._looked_up[video_id] = self._paths_of(video_id)
        return self._looked_up[video_id][1]

    def paths_of(self, video_id: str) -> list[Path]:
        """Return the files of an id: the video, and a picture of it where there is one."""
        self.look_up(video_id)
        return [self.folder / path for path in self._looked_up[video_id][0]] if self.folder else []

    def _paths_of(self, video_id: str) -> tuple[list[str], Video]:
        """The files of an id, and where the page finds them."""
        # An id is data: "../../etc/passwd" or "/etc/passwd" must not name a file elsewhere.
        if self.folder is None or {"", ".", ".."} & set(re.split(r"[/\\]", video_id)):
            return [], Video()
        suffix = _first_of(self.folder, video_id, _PLAYABLE + _NOT_PLAYABLE)
        if suffix is None:
            return [], Video()
        picture = _first_of(self.folder, video_id, PICTURES)
        paths = [video_id + end for end in (suffix, picture) if end]
        urls = [f"{LINK}/{quote(os.fsencode(path))}" for path in paths]
        return paths, Video(urls[0], suffix, urls[1] if picture else None)

    def bring_to(self, page_folder: Path) -> None:
        """Link the folder as `videos` into the page's; where links are impossible, copy.

        Only the files of ids that the page shows at first (`find`) are copied. A folder `videos`
        that already lies there is kept and completed; an older link is replaced.

        Raises:
            UserError: a file named `videos` is in the way, or a video cannot be copied.
        """
        if self.folder is None:
            return
        link = page_folder / LINK
        if link.is_dir() and not link.is_symlink():
            if not link.samefile(self.folder):
                self._copy_to(link, self.folder)
        elif link.exists() and not link.is_symlink():
            raise UserError(f"Cannot link the videos at {link}: a file of that name is in the way.")
        else:
            try:
                _replace_link(link, self.folder)
            except OSError as error:
                _log.info("Copying videos to the page, they cannot be linked: %s.", reason(error))
                # Copies must never go through an old link, into whatever folder it names.
                link.unlink(missing_ok=True)
                self._copy_to(link, self.folder)

    def _copy_to(self, target: Path, folder: Path) -> None:
        for path in (path for shown in self._shown for path in self._looked_up[shown][0]):
            original, copy = folder / path, target / path
            make_folder(copy.parent)
            try:
                if is_file(copy) and copy.stat().st_mtime >= original.stat().st_mtime:
                    continue
                with original.open("rb") as reader, replacing(copy) as writer:
                    shutil.copyfileobj(reader, writer)
            except OSError as error:
                raise UserError(f"Cannot copy the video {original}: {reason(error)}.") from error


def frame_at(path: Path | str, second: float = 0.0) -> "Image":
    """Return the frame of a video that is shown at a second, or its last one.

    To be called behind the wall (`data_loader.formats.apart`).

    Raises:
        UserError: no frame can be read from the file.
    """
    import av  # here: who never needs it does not load it

    try:
        with av.open(str(path), options=_OPTIONS) as container:
            if second:
                container.seek(int(second * 1_000_000), backward=True)  # to the key frame before it
            found = None
            for found in container.decode(container.streams.video[0]):
                if (found.time or 0.0) >= second:
                    break
            if found is None:
                raise IndexError("no frame")
            return found.to_image()
    except (av.FFmpegError, IndexError, ValueError, MemoryError) as error:
        raise UserError(f"Cannot read {path}: no frame comes out ({short(error)}).") from error


def is_file(path: Path) -> bool:
    """Whether there is such a file, for any path that data may name."""
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system allows, a folder we may not enter
        return False


def _first_of(folder: Path, video_id: str, suffixes: tuple[str, ...]) -> str | None:
    """Find the first suffix with which there is a file of an id."""
    files = ((suffix, folder / f"{video_id}{suffix}") for suffix in suffixes)
    return next((suffix for suffix, path in files if is_file(path)), None)


def _replace_link(link: Path, target: Path) -> None:
    temporary = temporary_name(link)
    try:
        # Relative, so that a project folder that is moved or mounted elsewhere keeps its videos.
        relative = os.path.relpath(target, link.parent.resolve())
        temporary.symlink_to(relative, target_is_directory=True)
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)
