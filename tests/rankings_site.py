"""Rankings pages to open in a browser: videos, and a server like the one that people use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from misc.run_pages.site import Site
from misc.serve_rankings import make_page_server


@contextmanager
def serving(web: Path | Site) -> Iterator[str]:
    """Serve a folder of pages (or a site) as `misc.serve_rankings` does; gives its address."""
    server = make_page_server(web if isinstance(web, Site) else Site(web), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


def shown(page) -> list[str]:
    """Ids of the visible cards, in order."""
    cards = page.locator(".cards:not([hidden]) .card:not([hidden]) h3 bdi")
    return cards.all_text_contents()


def write_video(path: Path) -> None:
    """One second of H.264 and AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for t in range(10):
            picture = np.full((48, 64, 3), 25 * t, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        tone = np.sin(np.arange(16000, dtype=np.float32) / 5)[None]
        for start in range(0, 16000, 1000):
            frame = av.AudioFrame.from_ndarray(tone[:, start : start + 1000], "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
