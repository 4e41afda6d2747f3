"""Decoding: the right frame at each time, sound where it belongs, and files that are none."""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from misc.extract_experts.decoding.cutting import Piece
from misc.extract_experts.decoding.decoder import Decoder
from misc.extract_experts.decoding.media import End, Unreadable
from misc.extract_experts.expert import Frames, Look, Sound
from tests.made_videos import number_of, numbered, tone, write_media

SEEN = (Frames(30, 60), Frames(10, 48, count=7), Frames(0.7, 48), Frames(7, 60, count=1))
HEARD = Sound(1.6)
LOOKS: tuple[Look, ...] = (*SEEN, HEARD, Frames(30, 40, square=True))
NUMBERED = [numbered(number) for number in range(60)]
EVEN = [Fraction(number, 30) for number in range(60)]
UNEVEN = [
    Fraction(int(ticks), 90000)
    for ticks in 45000 + np.cumsum(np.random.default_rng(0).integers(900, 12000, 60))
]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(LOOKS, "", 1)
    yield decoder
    decoder.close()


def read(
    decoder: Decoder, path: Path, looks: Sequence[int] = range(len(LOOKS))
) -> tuple[dict[int, list[Piece]], End]:
    pieces: dict[int, list[Piece]] = {number: [] for number in looks}
    *rest, end = decoder.pieces(path, looks)
    assert isinstance(end, End)
    for piece in rest:
        assert isinstance(piece, Piece)
        pieces[piece.look].append(piece)
    return pieces, end


def frames_of(pieces: Sequence[Piece]) -> tuple[list[int], list[float]]:
    numbers = [number_of(frame) for piece in pieces for frame in piece.values]
    return numbers, [time for piece in pieces for time in piece.times]


def last_not_after(times: Sequence[Fraction], time: Fraction) -> int:
    return max(number for number, own in enumerate(times) if own <= time)


@pytest.mark.parametrize(
    ("name", "times", "options", "has_sound"),
    [
        ("even.mp4", EVEN, {"bf": "0"}, False),
        ("even.mkv", [Fraction(round(time * 1000), 1000) for time in EVEN], {}, True),
        ("reordered.mp4", EVEN, {"bf": "3", "g": "25"}, True),
        ("uneven.mp4", UNEVEN, {"bf": "0"}, False),
        ("uneven_reordered.mp4", UNEVEN, {"bf": "3"}, True),
        ("uneven.ts", UNEVEN, {"bf": "3"}, False),
    ],
)
def test_each_time_shows_the_last_frame_that_is_not_after_it(
    decoder: Decoder,
    tmp_path: Path,
    name: str,
    times: list[Fraction],
    options: dict[str, str],
    has_sound: bool,
) -> None:
    """Start offsets, uneven rates and reordered frames included: not one is wrong."""
    rate = 30 if times is not UNEVEN else UNEVEN
    path = write_media(
        tmp_path / name, NUMBERED, rate, tone(3) if has_sound else None, options=options
    )
    pieces, end = read(decoder, path)
    for number, look in enumerate(SEEN):
        found, asked = frames_of(pieces[number])
        step = 1 / Fraction(str(look.fps))
        want = [last_not_after(times, times[0] + place * step) for place in range(len(found))]
        assert found == want
        assert asked == [float(place * step) for place in range(len(found))]
        # All of the picture was gone through: the last frame lasts a moment.
        assert times[-1] - times[0] - step < asked[-1] < end.seconds
        assert {len(piece.values) for piece in pieces[number][:-1]} <= {look.count}
    assert bool(pieces[4]) == has_sound


def test_sound_begins_where_it_does_and_has_its_pitch(decoder: Decoder, tmp_path: Path) -> None:
    pitch = 1000.0
    late = write_media(
        tmp_path / "late.mkv",
        NUMBERED,
        30,
        tone(1.0, pitch),
        sound_start=Fraction(3, 4),
        sound_codec="flac",
    )
    pieces, _ = read(decoder, late, [4])
    start = pieces[4][0].times[0]
    sound = np.concatenate([piece.values for piece in pieces[4]])
    assert start == pytest.approx(0.75, abs=0.002)
    assert len(sound) == pytest.approx(Sound.RATE, abs=20)
    assert sound.dtype == np.float32
    strongest = np.abs(np.fft.rfft(sound)).argmax() * Sound.RATE / len(sound)
    assert strongest == pytest.approx(pitch, abs=2)
    assert [len(piece.values) for piece in pieces[4]] == [len(sound)]  # shorter than a chunk


def test_sound_before_the_first_frame_has_times_below_zero(
    decoder: Decoder, tmp_path: Path
) -> None:
    times = [time + 1 for time in EVEN]
    path = write_media(tmp_path / "early.mkv", NUMBERED, times, tone(3), sound_codec="flac")
    pieces, _ = read(decoder, path, [0, 4])
    assert pieces[4][0].times[0] == pytest.approx(-1, abs=0.002)
    assert frames_of(pieces[0])[0][0] == 0
    assert len(pieces[4][0].values) == round(HEARD.seconds * Sound.RATE)


def test_gaps_of_sound_are_silent(decoder: Decoder, tmp_path: Path) -> None:
    from tests.made_videos import write_sound_with_gap

    path = write_sound_with_gap(tmp_path / "gap.mkv", tone(0.5), gap=1.0)
    pieces, end = read(decoder, path, [4])
    sound = np.concatenate([piece.values for piece in pieces[4]])
    assert end.seconds == pytest.approx(2.0, abs=0.01)
    loud = [np.abs(sound[round(t * Sound.RATE) :][:800]).max() > 0.1 for t in (0.1, 1.0, 1.6)]
    assert loud == [True, False, True]


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.m4a"])
def test_sound_alone(decoder: Decoder, tmp_path: Path, name: str) -> None:
    codec = {"mp3": "mp3", "wav": "pcm_s16le", "m4a": "aac"}[name.split(".")[1]]
    pieces, end = read(decoder, write_media(tmp_path / name, sound=tone(2), sound_codec=codec))
    assert not any(pieces[number] for number in range(len(SEEN)))
    assert sum(len(piece.values) for piece in pieces[4]) == pytest.approx(32000, abs=1200)
    assert end.seconds == pytest.approx(2, abs=0.08)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp"])
def test_a_picture_is_one_frame(decoder: Decoder, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"10%d 07.{ending}"  # what libav would take for a pattern
    Image.fromarray(numbered(7)).save(path)
    pieces, end = read(decoder, path, [1])
    assert frames_of(pieces[1])[0] == [7]
    assert pieces[1][0].values.shape == (1, 48, 80, 3)
    assert end.items == [(0.0, end.seconds)]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_stand_upright(decoder: Decoder, tmp_path: Path, orientation: int) -> None:
    image = np.zeros((60, 96, 3), np.uint8)
    image[:30, :48], image[30:, 48:] = (250, 0, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(image).save(path, exif=exif, quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path))).astype(int)
    pieces, _ = read(decoder, path, [3])
    frame = pieces[3][0].values[0].astype(int)
    assert frame.shape == upright.shape
    assert np.abs(frame - upright).mean() < 6


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_videos_stand_upright(decoder: Decoder, tmp_path: Path, rotation: int) -> None:
    """A frame that was turned before it was written is seen as it was."""
    upright = numbered(341)
    turned = np.rot90(upright, -rotation // 90)
    path = write_media(tmp_path / "a.mp4", [turned] * 5, 30, rotation=rotation)
    pieces, _ = read(decoder, path, [0])
    assert pieces[0][0].values.shape[1:] == (60, 100, 3)
    assert frames_of(pieces[0])[0] == [341] * 5


@pytest.mark.parametrize(("width", "height"), [(201, 121), (33, 400), (1000, 17), (2, 2)])
def test_odd_sizes(decoder: Decoder, tmp_path: Path, width: int, height: int) -> None:
    path = write_media(tmp_path / "a.mkv", [numbered(5, width, height)] * 3, 30, codec="ffv1")
    pieces, _ = read(decoder, path, [0, 5])
    _, tall, wide, _ = pieces[0][0].values.shape
    assert min(tall, wide) == 60 and max(tall, wide) <= 240
    assert pieces[5][0].values.shape == (3, 40, 40, 3)
    if max(width, height) <= 4 * min(width, height):
        assert wide / tall == pytest.approx(width / height, abs=0.02)


# --- What cannot be used --------------------------------------------------------------------------


def broken_files(folder: Path) -> dict[str, str]:
    """Write files that are none; returns what is said of each."""
    video = write_media(folder / "video.mp4", NUMBERED, 30, tone(2)).read_bytes()
    film = write_media(folder / "film.mkv", NUMBERED * 3, 30).read_bytes()
    (folder / "cut.mp4").write_bytes(video[: len(video) // 2])
    (folder / "cut.mkv").write_bytes(film[: len(film) // 3])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:2,\nvideo.mp4\n#EXT-X-ENDLIST\n")
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile 'video.mp4'\n")
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "random.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    return {
        "cut.mp4": "cannot be decoded",
        "cut.mkv": "it ends after",
        "empty.mp4": "it is empty",
        "text.mp4": "cannot be decoded",
        "list.m3u8": "cannot be decoded",
        "list.mp4": "cannot be decoded",
        "folder.mp4": "a folder, not a file",
        "random.mp4": "cannot be decoded",
        "missing.mp4": "does not exist",
    }


def test_what_is_no_video_is_refused_and_the_next_one_read(
    decoder: Decoder, tmp_path: Path
) -> None:
    for name, said in broken_files(tmp_path).items():
        with pytest.raises(Unreadable, match=said):
            read(decoder, tmp_path / name)
    pieces, _ = read(decoder, tmp_path / "video.mp4", [1])
    assert frames_of(pieces[1])[0] == list(range(0, 60, 3))


def test_a_picture_larger_than_memory_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    """A bomb: a file of a few bytes that says it has 5 GB of pixels."""
    path = tmp_path / "bomb.png"
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"\0" * 200_000),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(Unreadable, match="decode"):
        read(decoder, path, [1])
    Image.fromarray(numbered(3)).save(tmp_path / "a.png")
    assert frames_of(read(decoder, tmp_path / "a.png", [1])[0][1])[0] == [3]


def test_damaged_times_do_not_let_a_frame_stand_for_years(decoder: Decoder, tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 30), Fraction(30 * 24 * 3600)]
    path = write_media(tmp_path / "a.mkv", NUMBERED[:3], times)
    with pytest.raises(Unreadable, match="its times"):
        read(decoder, path)


def test_a_process_that_dies_is_followed_by_another(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", NUMBERED, 30)
    decoder = Decoder((Frames(30, 60, count=1),), "", 1)
    pieces = decoder.pieces(path, [0])
    next(pieces)
    decoder.interrupt()
    with pytest.raises(Unreadable, match="killed") as refused:
        list(pieces)
    assert not refused.value.is_lasting
    assert len(read(decoder, path, [0])[0][0]) == 60
    decoder.close()


def test_a_process_that_does_not_start_breaks_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is a fault of the program, or of its installation; a folder beside does no harm."""
    path = write_media(tmp_path / "a.mkv", NUMBERED[:5], 30)
    (tmp_path / "misc").mkdir()
    (tmp_path / "misc" / "__init__.py").touch()
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    decoder = Decoder((Frames(30, 60),), "", 1)
    assert len(read(decoder, path, [0])[0][0]) == 1
    decoder.close()
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr("misc.extract_experts.decoding.decoder._ROOT", tmp_path)
    with pytest.raises(RuntimeError, match="does not start"):
        list(Decoder((Frames(30, 60),), "", 1).pieces(path, [0]))


# --- Segments -------------------------------------------------------------------------------------


def test_segments_of_one_length(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", NUMBERED, 30, tone(2.05))
    decoder = Decoder(LOOKS, "0.75", 1)
    pieces, end = read(decoder, path)
    decoder.close()
    assert end.items == [(0, 0.75), (0.75, 1.5), (1.5, pytest.approx(2.05, abs=0.05))]
    for piece in pieces[0]:
        first = 22.5 * piece.item  # frames from the start
        assert [number_of(frame) for frame in piece.values] == [
            int(first + place + 1e-6) for place in range(len(piece.values))
        ]
        assert piece.times[0] == 0
    lengths = [sum(len(p.values) for p in pieces[4] if p.item == item) for item in range(3)]
    assert lengths[:2] == [12000, 12000] and lengths[2] == pytest.approx(8800, abs=700)
    assert all(piece.times[0] == pytest.approx(0, abs=0.002) for piece in pieces[4])


def test_segments_between_cuts(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    rng = np.random.default_rng(0)
    shots = [np.kron(rng.integers(0, 255, (3, 5, 3)), np.ones((40, 40, 1))) for _ in range(3)]
    frames = [shots[number // 25].astype(np.uint8) for number in range(75)]
    path = write_media(tmp_path / "a.mkv", frames, 25, tone(3), sound_codec="flac")
    decoder = Decoder(LOOKS, "cuts", 1)
    pieces, end = read(decoder, path)
    decoder.close()
    assert end.items == [(0, 1), (1, 2), (2, pytest.approx(3, abs=0.05))]
    for piece in pieces[0]:
        near = [np.abs(piece.values.mean((0, 1, 2)) - shot.mean((0, 1))).max() for shot in shots]
        assert int(np.argmin(near)) == piece.item
    assert [sum(len(p.values) for p in pieces[4] if p.item == item) for item in range(2)] == [
        16000,
        16000,
    ]
