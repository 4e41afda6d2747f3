"""An animated picture of the search page: a sentence is typed, videos play, a slider moves."""

import io
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from PIL import Image

from misc.browser import browsing, find_browser
from misc.search.page.serve import make_search_server
from utils.errors import UserError
from utils.files import make_folder, replacing

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from misc.search.searcher import Searcher

SIZE = {"width": 1060, "height": 600}
FRAME = 100  # milliseconds
LETTERS = 2  # typed in a frame
WORDS = 3  # after which the typist waits for an answer
PLAYED, HELD = 15, 12  # frames before the slider moves, and after
FACTORS = [1 + step / 5 for step in range(11)]  # that the slider goes through
LARGEST = 2_000_000  # bytes
QUALITIES = (80, 60, 40, 20)

# One frame later. Videos and movements are led by hand: a picture of a slow machine is not slower.
STEP = """async (ms) => {
  for (const moving of document.getAnimations()) {
    moving.pause();
    moving.currentTime = Number(moving.currentTime ?? 0) + ms;
    if (moving.currentTime >= moving.effect.getComputedTiming().endTime) moving.finish();
  }
  const videos = [...document.querySelectorAll(".hit video")].filter((v) => v.duration);
  await Promise.all(videos.map((video) => new Promise((done) => {
    video.pause();
    video.addEventListener("seeked", done, { once: true });
    video.currentTime = (video.currentTime + ms / 1000) % video.duration;
  })));
}"""
SLIDE = """(slider, factor) => {
  slider.value = factor;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  slider.dispatchEvent(new Event("change", { bubbles: true }));
}"""
# The answer to what the form asks is there, with all its videos.
ANSWERED = """(part) => location.search.includes(part)
  && !document.body.hasAttribute("aria-busy") && document.querySelector(".hit")
  && [...document.querySelectorAll(".hit video")].every((v) => v.readyState >= 2 || v.error)"""


def take_picture(searcher: "Searcher", path: Path, query: str = "") -> None:
    """Write an animated picture (.webp or .gif) of how the page answers a query.

    Args:
        searcher: of the index.
        path: of the picture, at most 2 MB.
        query: what is typed; without it the example that finds its own video best.

    Raises:
        UserError: it cannot be written or taken, or the index has nothing to show.
    """
    if path.suffix not in (".webp", ".gif"):
        raise UserError(f'--picture {path} must end in ".webp" or ".gif".')
    find_browser()
    make_folder(path.parent)
    query = query or _example(searcher)
    with browsing(make_search_server(searcher, "127.0.0.1", 0), SIZE) as page:
        frames = _record(page, query, _livelier(searcher, query))
    with replacing(path) as handle:
        handle.write(animated(frames, path.suffix[1:]))


def _example(searcher: "Searcher") -> str:
    examples = searcher.info.examples
    if not examples:
        raise UserError("The index has no captions: give the sentence to type.")

    def worth(text: str) -> tuple[bool, float]:
        best = searcher.search(text, 1)[0]
        return text in best.captions, best.score

    return max(examples, key=worth)


def _livelier(searcher: "Searcher", query: str) -> str | None:
    """The expert whose slider moves the most hits."""

    def moved(expert: str) -> int:
        orders = [
            [hit.video_id for hit in searcher.search(query, 5, weights={expert: factor})]
            for factor in (FACTORS[0], FACTORS[-1])
        ]
        return sum(one != other for one, other in zip(*orders, strict=True))

    return max(searcher.info.experts, key=moved) if searcher.info.has_weights else None


def _record(page: "Page", query: str, expert: str | None) -> list[Image.Image]:
    frames = []

    def step(count: int = 1) -> None:
        for _ in range(count):
            page.evaluate(STEP, FRAME)
            frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))

    words = query.split()
    parts = [" ".join(words[start : start + WORDS]) for start in range(0, len(words), WORDS)]
    step(3)
    for place, part in enumerate(parts):
        for start in range(0, len(part), LETTERS):
            page.keyboard.type(part[start : start + LETTERS])
            step()
        page.wait_for_function(ANSWERED, arg=urlencode({"q": " ".join(parts[: place + 1])}))
        step(3)
        page.keyboard.type(" ")
    step(PLAYED)
    if expert is not None:
        slider = page.get_by_role("slider", name=expert, exact=True)
        slider.focus()
        for factor in FACTORS[1:]:
            slider.evaluate(SLIDE, factor)
            page.wait_for_function(ANSWERED, arg=urlencode({f"weight.{expert}": f"{factor:g}"}))
            step(2)
    step(HELD)
    return frames


def animated(frames: list[Image.Image], kind: str) -> bytes:
    """Encode frames, as well as the limit of size allows."""
    for quality in QUALITIES:
        data = io.BytesIO()
        options = {"quality": quality, "method": 4} if kind == "webp" else {"optimize": True}
        frames[0].save(
            data, kind, save_all=True, append_images=frames[1:], duration=FRAME, loop=0, **options
        )
        if data.tell() <= LARGEST:
            break
        if kind == "gif":
            frames = [
                frame.resize((3 * frame.width // 4, 3 * frame.height // 4)) for frame in frames
            ]
    return data.getvalue()
