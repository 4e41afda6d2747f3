"""The sound track of a clip: one sound, sometimes a faint second one, babble and noise."""

import math
from collections.abc import Callable

import numpy as np

from misc.demo_set.plan import FRAMES_PER_SECOND, Plan, generator
from misc.demo_set.words.world import SOUNDS
from misc.extract_experts.expert import Sound

RATE = Sound.RATE  # samples per second
_TAU = 2 * math.pi
# First three resonances of the mouth in Hz: a word is heard as its vowels.
_FORMANTS = {
    "a": (750, 1250, 2550),
    "e": (500, 1900, 2500),
    "i": (300, 2300, 3000),
    "o": (480, 850, 2400),
    "u": (330, 700, 2300),
    "y": (290, 2000, 2700),
}


def make_sound(plan: Plan, seed: int) -> np.ndarray:
    """Make the sound track of a clip: float32 samples (seconds * RATE,) between -1 and 1."""
    rng = generator(seed, "sound", plan.number)
    noise = _noise_level(rng)
    count = plan.num_frames * RATE // FRAMES_PER_SECOND
    track = rng.uniform(0.12, 0.3) * _SYNTHESISERS[plan.sound](count, rng)
    if rng.random() < 0.3:
        other = list(SOUNDS)[int(rng.integers(len(SOUNDS)))]
        track += rng.uniform(0.02, 0.08) * _SYNTHESISERS[other](count, rng)
    if plan.spoken:
        track += rng.uniform(0.2, 0.4) * _babble(plan.spoken, count, rng)
    track += noise * rng.normal(0, 1, count)
    return np.clip(track, -1, 1).astype(np.float32)


def noise_level(seed: int, number: int) -> float:
    """Return the strength of the background noise of a clip, 0.002 to 0.03 of full scale."""
    return _noise_level(generator(seed, "sound", number))


def _noise_level(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(0.002), np.log(0.03))))


def _clock(count: int) -> np.ndarray:
    # Single precision: its sine is several times faster, and an error of 0.004 rad is not heard.
    return np.arange(count, dtype=np.float32) / np.float32(RATE)


def _tone(
    pitch: float, count: int, overtones: tuple[float, ...] = (1,), decay: float = 0
) -> np.ndarray:
    """Sum harmonics of `pitch` Hz with the given strengths; `decay` is per second."""
    time = _clock(count)
    wave = sum(
        strength * np.sin(float(_TAU * pitch * (place + 1)) * time)
        for place, strength in enumerate(overtones)
    )
    return wave * np.exp(-float(decay) * time)


def _repeat(
    count: int, rng: np.random.Generator, gap: float, strike: Callable[[int], np.ndarray]
) -> np.ndarray:
    """Place strikes every `gap` seconds from a random start; `strike(place)` makes one."""
    track = np.zeros(count)
    start, place = int(rng.uniform(0, min(gap, 0.5)) * RATE), 0
    while start < count:
        sample = strike(place)[: count - start]
        track[start : start + len(sample)] += sample
        start += int(gap * RATE * rng.uniform(0.95, 1.05))
        place += 1
    return track


def _band(count: int, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Make noise between two frequencies in Hz, of standard deviation 1."""
    length = 1 << 15  # a power of two, repeated: quick to transform
    spectrum = np.fft.rfft(rng.normal(0, 1, length))
    pitch = np.fft.rfftfreq(length, 1 / RATE)
    spectrum *= np.exp(-(np.maximum(low - pitch, 0) ** 2 + np.maximum(pitch - high, 0) ** 2) / 4e4)
    noise = np.fft.irfft(spectrum)
    return np.tile(noise / noise.std(), count // length + 1)[:count]


def _bell(count: int, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(520, 760)
    partials = ((0.5, 0.4), (1, 1), (1.19, 0.6), (1.56, 0.4), (2.0, 0.5), (2.66, 0.3))

    length = int(1.6 * RATE)
    strike = sum(s * _tone(pitch * ratio, length, decay=2.5 + ratio) for ratio, s in partials)
    return _repeat(count, rng, rng.uniform(0.7, 1.3), lambda _: 0.5 * strike)


def _drum(count: int, rng: np.random.Generator) -> np.ndarray:
    length, pitch = int(0.25 * RATE), rng.uniform(65, 110)
    time = _clock(length)
    sweep = np.sin(_TAU * pitch * (time + 0.04 * (1 - np.exp(-time * 30))))
    click = rng.normal(0, 0.4, length) * np.exp(-90 * time)
    accents = (1.0, 0.5, 0.7, 0.5)
    gap = rng.uniform(0.2, 0.36)
    beat = 1.8 * sweep * np.exp(-14 * time) + click
    return _repeat(count, rng, gap, lambda place: accents[place % 4] * beat)


def _engine(count: int, rng: np.random.Generator) -> np.ndarray:
    time = _clock(count)
    pitch = rng.uniform(48, 85) * (1 + 0.12 * np.sin(_TAU * rng.uniform(0.2, 0.6) * time))
    phase = (_TAU * np.cumsum(pitch) / RATE).astype(np.float32)
    wave = sum(np.sin(phase * harmonic) / harmonic**0.8 for harmonic in range(1, 9))
    return 0.5 * wave * (1 + 0.3 * np.sin(phase / 2))


def _birdsong(count: int, rng: np.random.Generator) -> np.ndarray:
    base = rng.uniform(2600, 3800)

    def chirp(_: int) -> np.ndarray:
        length = int(rng.uniform(0.06, 0.16) * RATE)
        time = np.linspace(0, 1, length)
        pitch = base * (1 + rng.uniform(-0.2, 0.3) * time + 0.06 * np.sin(_TAU * 5 * time))
        return np.sin(_TAU * np.cumsum(pitch) / RATE) * np.sin(np.pi * time)

    return _repeat(count, rng, rng.uniform(0.13, 0.26), chirp)


def _siren(count: int, rng: np.random.Generator) -> np.ndarray:
    time = _clock(count)
    turn = np.sin(_TAU * (rng.uniform(0.35, 0.8) * time + rng.random()))
    phase = _TAU * np.cumsum(rng.uniform(750, 1000) * (1 + 0.4 * turn)) / RATE
    return 0.7 * (np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase))


def _piano(count: int, rng: np.random.Generator) -> np.ndarray:
    root = rng.uniform(220, 330)
    steps = rng.permutation([0, 4, 7, 12, 16, 7, 9, 5])

    def key(place: int) -> np.ndarray:
        pitch = root * 2 ** (steps[place % len(steps)] / 12)
        return _tone(pitch, int(0.9 * RATE), (1, 0.5, 0.3, 0.15, 0.08), decay=4.5)

    return _repeat(count, rng, rng.uniform(0.18, 0.32), key)


def _rain(count: int, rng: np.random.Generator) -> np.ndarray:
    drops = np.zeros(count)
    places = rng.integers(0, count, count // 160)
    drops[places] = rng.normal(0, 6, len(places))
    return 0.5 * (_band(count, rng, 1200, 6500) + np.convolve(drops, np.hanning(9), "same"))


def _ticking(count: int, rng: np.random.Generator) -> np.ndarray:
    length, pitch = int(0.05 * RATE), rng.uniform(1700, 2400)

    def tick(place: int) -> np.ndarray:
        return 1.5 * _tone(pitch * (1 if place % 2 else 0.8), length, (1, 0.6), decay=120)

    return _repeat(count, rng, rng.uniform(0.3, 0.5), tick)


def _phone(count: int, rng: np.random.Generator) -> np.ndarray:
    time = _clock(count)
    pitch, speed = rng.uniform(950, 1250), rng.uniform(16, 24)
    warble = np.where(np.sin(_TAU * speed * time) > 0, pitch, 1.25 * pitch)
    ringing = (time + rng.uniform(0, 1)) % 1.5 < 0.9
    phase = _TAU * np.cumsum(warble) / RATE
    return ringing * (np.sin(phase) + 0.3 * np.sin(3 * phase))


def _whistle(count: int, rng: np.random.Generator) -> np.ndarray:
    base, scale = rng.uniform(1100, 1500), np.array([0, 2, 4, 5, 7])
    length = int(rng.uniform(0.3, 0.5) * RATE)
    notes = base * 2 ** (scale[rng.integers(0, 5, count // length + 1)] / 12)
    pitch = np.repeat(notes, length)[:count]
    pitch = pitch * (1 + 0.012 * np.sin(_TAU * 5.5 * _clock(count)))
    wave = np.sin(_TAU * np.cumsum(pitch) / RATE)
    return 0.9 * wave + 0.05 * _band(count, rng, 1000, 3000)


def _applause(count: int, rng: np.random.Generator) -> np.ndarray:
    claps = np.zeros(count)
    places = rng.integers(0, count, int(count / RATE * rng.uniform(50, 100)))
    claps[places] = rng.uniform(0.4, 1, len(places))
    envelope = np.convolve(claps, np.exp(-np.arange(250) / 60))[:count]
    return 1.3 * (envelope + 0.1) * _band(count, rng, 600, 3500)


def _trumpet(count: int, rng: np.random.Generator) -> np.ndarray:
    root, scale = rng.uniform(230, 310), (0, 4, 7, 12)

    def note(_: int) -> np.ndarray:
        length = int(rng.uniform(0.25, 0.5) * RATE)
        pitch = root * 2 ** (scale[int(rng.integers(4))] / 12)
        strengths = (0.6, 0.9, 1.0, 0.8, 0.6, 0.45, 0.3, 0.2)
        ends = np.minimum(np.linspace(0, 12, length), 1) * np.minimum(np.linspace(12, 0, length), 1)
        return 0.4 * _tone(pitch, length, strengths) * ends

    return _repeat(count, rng, rng.uniform(0.35, 0.6), note)


_SYNTHESISERS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "bell": _bell,
    "drum": _drum,
    "engine": _engine,
    "birdsong": _birdsong,
    "siren": _siren,
    "piano": _piano,
    "rain": _rain,
    "clock": _ticking,
    "phone": _phone,
    "whistle": _whistle,
    "applause": _applause,
    "trumpet": _trumpet,
}


def _babble(words: tuple[str, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """Murmur the words one after the other: one burst of vowel sounds each."""
    track = np.zeros(count)
    voice = rng.uniform(95, 210)
    room = count // len(words)
    for place, word in enumerate(words):
        vowels = [letter for letter in word if letter in _FORMANTS]
        length = int(min(0.75 * room, 0.16 * RATE * len(vowels))) // len(vowels)
        start = place * room + int(rng.uniform(0, 0.2) * room)
        for vowel in vowels:
            end = min(start + length, count)
            track[start:end] += _vowel(vowel, length, voice)[: end - start]
            start = end
    return track


def _vowel(vowel: str, length: int, voice: float) -> np.ndarray:
    pitch = voice * (1.08 - 0.15 * np.linspace(0, 1, length))
    phase = (_TAU / RATE * np.cumsum(pitch)).astype(np.float32)
    harmonics = np.arange(1, int(3200 / voice) + 1)
    offset = np.array(_FORMANTS[vowel])[:, None] - harmonics * voice
    strengths = (np.exp(-((offset / 140) ** 2)) * np.array([[1], [0.6], [0.3]])).sum(0)
    audible = strengths > 0.02
    wave = strengths[audible].astype(np.float32) @ np.sin(
        harmonics[audible, None].astype(np.float32) * phase
    )
    return wave * np.hanning(length) ** 0.6
