"""Reads the words in the picture (OCR) and writes down what was said (speech recognition)."""

from functools import cache, reduce

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from misc.demo_set.pictures.lettering import (
    ALPHABET,
    DOT,
    GLYPHS,
    LETTER_HEIGHT,
    LETTER_WIDTH,
    PITCH,
)
from misc.demo_set.plan import Plan, generator
from misc.demo_set.sound import noise_level
from misc.demo_set.words.world import TOPICS, WRITTEN
from misc.extract_experts.experts.appearance import grey_of

_SURE = 0.72  # correlation from which a patch counts as a letter
_CONTRAST = 25.0  # grey levels (standard deviation) below which a patch is no letter
_RIM = 50.0  # grey levels that the dots above or below a letter may differ by
_FEWEST_LETTERS = 3
_PATCH = (LETTER_HEIGHT + 2, LETTER_WIDTH + 2)  # a letter with a blank rim


def read_words(frames: np.ndarray) -> list[str]:
    """Read the words in uint8 frames (T, H, W, 3), from top to bottom, some of them wrongly.

    Every patch of a frame is compared with the 26 letters; runs of letters are compared with the
    known words. Three frames are read, as actors cover letters for a while.
    """
    found: dict[str, int] = {}
    for time in (len(frames) // 6, len(frames) // 2, -1 - len(frames) // 6):
        for row, word in _words(grey_of(frames[time])):
            found.setdefault(word, row)
    return sorted(found, key=found.__getitem__)


def transcribe(plan: Plan, seed: int) -> list[str]:
    """Write down the spoken words; the noisier the clip, the more are dropped or misheard."""
    rng = generator(seed, "transcript", plan.number)
    noise = np.log(noise_level(seed, plan.number) / 0.002) / np.log(15)  # 0 to 1
    heard = []
    for word in plan.spoken:
        draw = rng.random()
        if draw < 0.05 + 0.2 * noise:
            continue
        misheard = draw < 0.1 + 0.4 * noise
        heard.append(_similar_word(word, rng) if misheard else word)
    return heard


def _words(grey: np.ndarray) -> list[tuple[int, str]]:
    """Read one frame (H, W): known words and their rows, one word a line."""
    matches = []
    for row, letters in _runs(grey):
        word, differences = _nearest_word(letters)
        if word:
            matches.append((differences - len(word), row, word))
    taken: list[tuple[int, str]] = []
    # "FFEE" is not "FREE" when "COFFEE" was read in the same line: the best match of a line counts.
    for _, row, word in sorted(matches):
        if all(abs(row - other) >= DOT * LETTER_HEIGHT for other, _ in taken):
            taken.append((row, word))
    return taken


def _runs(grey: np.ndarray) -> list[tuple[int, str]]:
    """Find runs of letters in one frame (H, W): their row and the letters, "?" for unsure ones."""
    runs = []
    for down in range(DOT):
        for across in range(DOT):
            dots = _reduce(grey[down:, across:])
            for row, letters in _runs_in_dots(dots):
                runs.append((DOT * row + down, letters))
    return runs


def _reduce(grey: np.ndarray) -> np.ndarray:
    rows, columns = grey.shape[0] // DOT, grey.shape[1] // DOT
    whole = grey[: rows * DOT, : columns * DOT]
    # Sums of slices: numpy is slow at means over axes of two elements.
    parts = [whole[down::DOT, across::DOT] for down in range(DOT) for across in range(DOT)]
    return sum(parts[1:], start=parts[0]) / len(parts)


def _runs_in_dots(dots: np.ndarray) -> list[tuple[int, str]]:
    patches = sliding_window_view(dots, _PATCH)
    rows, columns = np.nonzero(_may_be_letters(dots))
    flat = patches[rows, columns].reshape(len(rows), -1)
    flat = flat - flat.mean(1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1)
    scores = np.abs(flat @ _templates())
    sure = scores.max(1, initial=0) > _SURE * np.maximum(lengths, _CONTRAST * flat.shape[1] ** 0.5)
    rows, columns, scores = rows[sure], columns[sure], scores[sure]
    if not len(rows):
        return []
    letters = np.full(patches.shape[:2], " ")
    letters[rows, columns] = np.array(list(ALPHABET))[scores.argmax(1)]
    return [(int(row), run) for row in np.unique(rows) for run in _along(letters[row])]


def _may_be_letters(dots: np.ndarray) -> np.ndarray:
    """Mark patches whose upper and lower rim are blank and alike: letters, and few things else."""
    columns = dots.shape[1] - _PATCH[1] + 1
    shifted = [dots[:, place : place + columns] for place in range(_PATCH[1])]
    highest, lowest = reduce(np.maximum, shifted), reduce(np.minimum, shifted)
    blank = highest - lowest < _RIM
    below = _PATCH[0] - 1
    alike = np.abs(highest[:-below] - highest[below:]) < _RIM / 2
    return alike & blank[:-below] & blank[below:]


def _along(row: np.ndarray) -> list[str]:
    """Collect letters that stand one pitch apart in one row; a single gap becomes "?"."""
    runs = []
    for start in range(PITCH):
        run = "".join(row[start::PITCH])
        for piece in run.replace("  ", "\n").split("\n"):
            letters = piece.strip().replace(" ", "?")
            if len(letters.replace("?", "")) >= _FEWEST_LETTERS:
                runs.append(letters)
    return runs


@cache
def _templates() -> np.ndarray:
    """Return the letters with a blank dot around, as columns of mean 0 and length 1, (63, 26)."""
    padded = np.pad(GLYPHS, ((0, 0), (1, 1), (1, 1))).reshape(len(GLYPHS), -1).astype(np.float32)
    padded -= padded.mean(1, keepdims=True)
    return (padded / np.linalg.norm(padded, axis=1, keepdims=True)).T


def _nearest_word(letters: str) -> tuple[str, float]:
    """Return the known word of the same length that differs least, "" when none is near.

    With the word comes the number of wrong letters; an unsure letter counts half.
    """
    best, fewest = "", 2 if len(letters) > 4 else 1.5
    for word in WRITTEN:
        if len(word) == len(letters):
            pairs = zip(word.upper(), letters, strict=True)
            differences = sum(0.5 if read == "?" else true != read for true, read in pairs)
            if differences < fewest:
                best, fewest = word, differences
    return best, fewest


def _similar_word(word: str, rng: np.random.Generator) -> str:
    """Return a spoken word with the same vowels or length, or any other."""
    words = sorted({*TOPICS, *(heard for topic in TOPICS.values() for heard in topic)} - {word})
    alike = [other for other in words if _vowels(other)[:2] == _vowels(word)[:2]]
    choice = alike or words
    return choice[int(rng.integers(len(choice)))]


def _vowels(word: str) -> str:
    return "".join(letter for letter in word if letter in "aeiouy")
