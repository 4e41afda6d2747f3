"""Pictures of rankings: thumbnails of the videos, the true one framed, tiles for the rest."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from logger.page.data import Ranking, Retrieved
from tests.made_videos import write_media
from trainer.rankings import thumbnails
from trainer.rankings.thumbnails import Thumbnails

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "yellow": (220, 220, 40)}
GREY, GREEN, WHITE = (221, 221, 221), (26, 152, 80), (255, 255, 255)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos with pictures, one without, one that is damaged, one whose picture is."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, ending in (("red", "png"), ("blue", "jpg")):
        Image.new("RGB", (320, 240), COLOURS[name]).save(folder / f"{name}.{ending}")
        (folder / f"{name}.mp4").touch()
    frame = np.full((120, 160, 3), COLOURS["yellow"], np.uint8)
    write_media(folder / "yellow.mp4", [frame] * 2)
    for name in ("damaged", "worse"):
        (folder / f"{name}.mp4").write_bytes(b"no video")
    (folder / "worse.webp").write_bytes(b"RIFF\x10\x00\x00\x00WEBP")
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile yellow.mp4\n")
    return folder


def ranking(true: str, *found: str, captions: tuple[str, ...] = ("a caption",)) -> Ranking:
    retrieved = [Retrieved(video_id, 0.5) for video_id in found]
    return Ranking("0", list(captions), true, 2, 0.25, retrieved)


def tiles(jpeg: bytes, row: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The mean colours of tiles: away from their middles, where a name may stand; and at the edge.

    The last one of a whole row lies a little further to the right.
    """
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)), dtype=float)
    width, height = thumbnails._TILE
    gap, line = thumbnails._GAP, thumbnails._LINE
    top = gap + row * (2 * line + height + gap) + line
    found = []
    for place in range(count):
        left = gap + place * (width + gap) + (gap if place == 5 else 0)
        inner = pixels[top + 10 : top + 20, left + 10 : left + width - 10]
        edge = pixels[top + 10 : top + height - 10, left : left + 2]
        found.append((inner.mean((0, 1)), edge.mean((0, 1))))
    return found


def close(colour: np.ndarray, expected: tuple[int, int, int]) -> bool:
    return bool(np.abs(colour - expected).max() < 25)


def test_a_row_shows_what_is_there_and_frames_the_true_video(videos: Path):
    found = ("red", "blue", "yellow", "damaged", "gone")
    rows = [ranking("blue", *found), ranking("yellow", "worse", "list", "../videos/red", "red", "")]
    jpeg = Thumbnails(videos).draw(rows)
    assert jpeg is not None
    first, second = tiles(jpeg, 0, 6), tiles(jpeg, 1, 6)
    shown = [COLOURS["red"], COLOURS["blue"], COLOURS["yellow"], GREY, GREY, WHITE]
    assert all(close(inner, colour) for (inner, _), colour in zip(first, shown, strict=True))
    assert [close(edge, GREEN) for _, edge in first] == [place == 1 for place in range(6)]
    # What is no picture and no video, or lies elsewhere, is a plain tile.
    shown = [GREY, GREY, GREY, COLOURS["red"], GREY, COLOURS["yellow"]]
    assert all(close(inner, colour) for (inner, _), colour in zip(second, shown, strict=True))
    assert [close(edge, GREEN) for _, edge in second] == [place == 5 for place in range(6)]


def test_each_thumbnail_is_read_once(videos: Path, monkeypatch: pytest.MonkeyPatch):
    reads = []
    original = thumbnails.apart
    monkeypatch.setattr(
        thumbnails, "apart", lambda paths, work: reads.append(len(paths)) or original(paths, work)
    )
    drawer = Thumbnails(videos)
    before = drawer.draw([ranking("red", "blue", "damaged", "gone")])
    for path in videos.iterdir():
        path.unlink()
    assert drawer.draw([ranking("red", "blue", "damaged", "gone")]) == before
    assert reads == [3]
    monkeypatch.setattr(thumbnails, "_MOST_KEPT", 1)
    drawer.draw([ranking("red", "red")])
    assert drawer.draw([ranking("red", "blue")]) != before  # forgotten, and gone


def test_a_reader_that_crashes_costs_the_pictures_alone(
    videos: Path, monkeypatch: pytest.MonkeyPatch
):
    import ctypes

    monkeypatch.setattr(thumbnails, "_pixels_of", lambda _: ctypes.string_at(0))
    jpeg = Thumbnails(videos).draw([ranking("red", "blue")])
    assert jpeg and close(tiles(jpeg, 0, 1)[0][0], GREY)


def test_a_picture_of_far_too_many_pixels_is_left_alone(
    videos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    jpeg = Thumbnails(videos).draw([ranking("red", "blue", "yellow")])
    monkeypatch.undo()
    assert jpeg and not caplog.text
    shown = [inner for inner, _ in tiles(jpeg, 0, 3)]
    assert close(shown[0], GREY) and close(shown[1], COLOURS["yellow"]) and close(shown[2], GREY)


def test_without_videos_or_rankings_nothing_is_drawn(tmp_path: Path, videos: Path):
    for folder in (None, tmp_path / "nowhere", videos / "red.png"):
        assert Thumbnails(folder).draw([ranking("red", "blue")]) is None
    assert Thumbnails(videos).draw([]) is None


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(max_size=300), max_size=3),
    video_id=st.text(max_size=60),
    count=st.integers(0, 6),
)
def test_any_caption_and_any_id_can_be_drawn(tmp_path_factory, texts, video_id, count):
    folder = tmp_path_factory.getbasetemp()
    row = ranking(video_id, *[video_id + "x"] * count, captions=(*texts, "\ud800\x00\n" * 9))
    jpeg = Thumbnails(folder).draw([row, ranking("a", "b")])
    assert jpeg and Image.open(io.BytesIO(jpeg)).format == "JPEG"
