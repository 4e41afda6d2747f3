"""Pictures of a few rankings for trackers: each query with thumbnails of what it retrieves.

A video's thumbnail is the picture beside it that the rankings page shows too, or its first frame.
"""

import importlib
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from data_loader.formats.apart import Refused, apart
from logger.page.data import Ranking
from logger.page.videos import PICTURES, VideoFiles, frame_at

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

_TILE = (96, 72)  # pixels
_GAP, _LINE, _FRAME = 8, 17, 3
_LETTERS, _SMALL_LETTERS = 13, 10
_INK, _GREY, _EMPTY, _TRUE = "#222222", "#666666", "#dddddd", "#1a9850"
_QUALITY = 60
_MOST_KEPT = 2000  # thumbnails, of 20 KB each
_PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")


class Thumbnails:
    """Draws rankings with the thumbnails of their videos, each of which is read once.

    Args:
        folder: of the videos, see `logger.page.videos`; None or not there: nothing is drawn.
    """

    def __init__(self, folder: Path | None) -> None:
        self._files = VideoFiles(folder) if folder and folder.is_dir() else None
        self._pixels: dict[str, bytes] = {}  # of video ids; empty where there is no thumbnail

    def draw(self, rankings: Sequence[Ranking]) -> bytes | None:
        """Draw each ranking as a row: its caption, and the retrieved videos, best first.

        The true video has a frame, and stands behind the others where it is not among them. A
        video without a thumbnail is a plain tile with its id.

        Returns:
            A JPEG; None where there are no rankings, no videos or no Pillow.
        """
        if not rankings or self._files is None:
            return None
        try:
            importlib.import_module("PIL.ImageFont")
        except ImportError:
            return None
        ids = {i: None for r in rankings for i in (r.video_id, *(f.video_id for f in r.retrieved))}
        self._read(self._files, ids)
        data = io.BytesIO()
        _drawn(rankings, self._pixels).save(data, "jpeg", quality=_QUALITY)
        while len(self._pixels) > _MOST_KEPT:
            del self._pixels[next(iter(self._pixels))]
        return data.getvalue()

    def _read(self, files: VideoFiles, video_ids: Iterable[str]) -> None:
        """Read the thumbnails that have not been read yet."""
        paths = {i: files.paths_of(i) for i in video_ids if i not in self._pixels}
        self._pixels |= dict.fromkeys(paths, b"")
        sources = {i: found[-1] for i, found in paths.items() if found}
        if not sources:
            return
        has_videos = any(path.suffix not in PICTURES for path in sources.values())
        # What cannot be read stays a plain tile: a picture is worth no more.
        with suppress(ImportError, Refused, OSError, RuntimeError):
            for module in ("PIL.ImageOps", "PIL.JpegImagePlugin", *(["av"] if has_videos else [])):
                importlib.import_module(module)  # here, once: what the child loads goes with it
            self._pixels |= apart(sources.values(), lambda: _pixels_of(sources))


# Behind the wall ---------------------------------------------------------------------------------


def _pixels_of(sources: Mapping[str, Path]) -> dict[str, bytes]:
    """Read the thumbnails of video ids from pictures or videos, without those that are damaged."""
    from PIL import Image

    pixels = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for video_id, path in sources.items():
            with suppress(Exception):
                pixels[video_id] = _thumbnail(path)
    return pixels


def _thumbnail(path: Path) -> bytes:
    from PIL import Image, ImageOps

    if path.suffix in PICTURES:
        with Image.open(path, formats=_PICTURE_FORMATS) as image:
            image.draft("RGB", _TILE)
            return ImageOps.fit(image.convert("RGB"), _TILE).tobytes()
    return ImageOps.fit(frame_at(path), _TILE).tobytes()


# Drawing -----------------------------------------------------------------------------------------


def _drawn(rankings: Sequence[Ranking], pixels: Mapping[str, bytes]) -> "Image":
    from PIL import Image, ImageDraw, ImageFont

    across = max(len(ranking.retrieved) for ranking in rankings) + 1
    step = _TILE[0] + _GAP
    row = _LINE + _TILE[1] + _LINE + _GAP
    picture = Image.new("RGB", (across * step + 2 * _GAP, len(rankings) * row + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    letters, small = (ImageFont.load_default(size) for size in (_LETTERS, _SMALL_LETTERS))
    for number, ranking in enumerate(rankings):
        top = number * row + _GAP
        caption = f"{' / '.join(ranking.captions)}  (rank {ranking.rank:g})"
        draw.text((_GAP, top), _fitting(caption, letters, across * step), _INK, letters)
        shown = [(found.video_id, found.similarity) for found in ranking.retrieved]
        if ranking.video_id not in dict(shown):
            shown.append((ranking.video_id, ranking.similarity))
        for place, (video_id, similarity) in enumerate(shown):
            # Behind the others, where it does not belong to them.
            left = _GAP + place * step + (_GAP if place == len(ranking.retrieved) else 0)
            corner = (left, top + _LINE)
            tile = (*corner, left + _TILE[0] - 1, corner[1] + _TILE[1] - 1)
            name = _fitting(video_id, small, _TILE[0] - 2 * _FRAME)
            if pixels.get(video_id):
                picture.paste(Image.frombytes("RGB", _TILE, pixels[video_id]), corner)
            else:
                draw.rectangle(tile, _EMPTY)
                middle = (left + _TILE[0] // 2, corner[1] + _TILE[1] // 2)
                draw.text(middle, name, _INK, small, anchor="mm")
            if video_id == ranking.video_id:
                draw.rectangle(tile, outline=_TRUE, width=_FRAME)
            below = _fitting(f"{similarity:.3f}  {video_id}", small, _TILE[0])
            draw.text((left, tile[3] + 2), below, _GREY, small)
    return picture


def _fitting(text: str, font: "FreeTypeFont | ImageFont", width: int) -> str:
    """One line of a text, cut where it is longer than so many pixels."""
    line = " ".join(text.split())[:width]
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"
