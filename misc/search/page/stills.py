"""Still pictures of videos that browsers cannot play."""

import io
from pathlib import Path

from data_loader.formats.apart import behind_wall
from utils.errors import UserError, short

LARGEST = (480, 360)
# What is looked into, by suffix and by content: a playlist in their place could name other files.
SUFFIXES = (
    *(".avi", ".mkv", ".mp4", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)
_OPTIONS = {
    "format_whitelist": "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,asf,flv,ogg",
    "protocol_whitelist": "file",
}


@behind_wall
def still(path: str | Path, second: float = 0.0) -> bytes:
    """Take the frame of a video that is shown at a second, or its last one, as a JPEG.

    Raises:
        UserError: no frame can be read from the file.
    """
    import av  # here: a server that never needs it does not load it

    try:
        with av.open(str(path), options=_OPTIONS) as container:
            stream = container.streams.video[0]
            if second:
                container.seek(int(second * 1_000_000), backward=True)  # to the key frame before it
            picture = None
            for frame in container.decode(stream):
                picture = frame
                if (frame.time or 0.0) >= second:
                    break
            if picture is None:
                raise IndexError("no frame")
            image = picture.to_image()
    except (av.FFmpegError, IndexError, ValueError, MemoryError) as error:
        raise UserError(f"Cannot read {path}: no frame comes out ({short(error)}).") from error
    image.thumbnail(LARGEST)
    data = io.BytesIO()
    image.save(data, "jpeg")
    return data.getvalue()
