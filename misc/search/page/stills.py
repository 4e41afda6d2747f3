"""Still pictures of videos that browsers cannot play."""

import io
from pathlib import Path

from data_loader.formats.apart import behind_wall
from logger.page.videos import frame_at

LARGEST = (480, 360)
# Files that are looked into.
SUFFIXES = (
    *(".avi", ".mkv", ".mp4", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)


@behind_wall
def still(path: str | Path, second: float = 0.0) -> bytes:
    """Take the frame of a video that is shown at a second, or its last one, as a JPEG.

    Raises:
        UserError: no frame can be read from the file.
    """
    image = frame_at(path, second)
    image.thumbnail(LARGEST)
    data = io.BytesIO()
    image.save(data, "jpeg")
    return data.getvalue()
