"""Word vectors of three strengths, as a trained word2vec would give them, in its binary format."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from misc.demo_set.plan import generator
from misc.demo_set.words import captions, world
from utils.files import replacing

SIZE = 300


@dataclass(frozen=True)
class Strength:
    """How good a table is: what its vectors are made of and what it lacks."""

    theme: float  # weight of what a word's theme shares (all animals)
    concept: float  # weight of what synonyms share (cat, kitty)
    own: float  # weight of what belongs to the word alone
    confused: float  # share of words filed under a wrong concept of their theme
    missing: float  # share of words that the table lacks


TABLES = {
    "w2v-large": Strength(theme=0.5, concept=0.75, own=0.45, confused=0.0, missing=0.0),
    "w2v-medium": Strength(theme=0.6, concept=0.6, own=0.6, confused=0.05, missing=0.12),
    "w2v-small": Strength(theme=0.7, concept=0.45, own=0.8, confused=0.12, missing=0.24),
}


def lexicon() -> dict[str, tuple[str, str]]:
    """Map every word of the captions to (theme, concept).

    A word that belongs to several things ("the" of "on the beach", "goes" of "goes round") stands
    for none of them: its theme is "common" and it is a concept of its own.
    """
    uses: dict[str, set[tuple[str, str]]] = {}
    for theme, concept, phrase in _mentions():
        for word in phrase.split():
            uses.setdefault(word, set()).add((theme, concept))
    return {
        word: next(iter(things)) if len(things) == 1 else ("common", word)
        for word, things in uses.items()
    }


def make_table(seed: int, name: str) -> dict[str, np.ndarray]:
    """Make one table: word -> float32 vector of 300 numbers and length 1.

    The shared parts (themes and concepts) are drawn per table, as tables trained on different
    texts do not share axes.
    """
    strength = TABLES[name]
    rng = generator(seed, "word vectors", list(TABLES).index(name))
    words = lexicon()
    themes = {theme: _unit(rng) for theme, _ in words.values()}
    concepts = {concept: _unit(rng) for concept in words.values()}
    table = {}
    for word, (theme, concept) in words.items():
        own, lacking = _unit(rng), rng.random() < strength.missing
        if rng.random() < strength.confused:
            rivals = [other for other in concepts if other[0] == theme]
            theme, concept = rivals[int(rng.integers(len(rivals)))]
        if not lacking:
            vector = strength.theme * themes[theme] + strength.own * own
            vector += strength.concept * concepts[theme, concept]
            table[word] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return table


def write_table(path: Path, table: dict[str, np.ndarray]) -> None:
    """Write a table in the binary word2vec format (little-endian float32)."""
    with replacing(path) as handle:
        handle.write(f"{len(table)} {SIZE}\n".encode())
        for word, vector in table.items():
            handle.write(word.encode() + b" " + vector.astype("<f4").tobytes() + b"\n")


def _mentions() -> Iterator[tuple[str, str, str]]:
    """List (theme, concept, phrase) for all phrases of captions."""
    things = {
        "actor": world.ACTORS,
        "colour": world.COLOURS,
        "size": world.SIZES,
        "sound": world.SOUNDS,
        "motion": world.ACTIONS,
        "place": world.SCENES,
        "sign": {word: (word, other) for word, other in world.WRITTEN.items()},
    }
    for theme, table in things.items():
        for thing, phrases in table.items():
            yield from ((theme, thing, phrase) for phrase in phrases)
    yield from (("actor", kind, kind) for kind in world.ACTOR_KINDS)
    for topic, heard in world.TOPICS.items():
        yield from ((f"talk of {topic}", word, word) for word in (topic, *heard))
    frames = (captions.SHOWING, captions.READING, captions.SPEAKING, captions.HEARING)
    for phrases in (*frames, *captions.TOGETHER.values(), captions.GENERIC):
        yield from (("frame", word, word) for phrase in phrases for word in _words(phrase))
    yield from (("frame", word, word) for word in ("a", "an"))


def _words(phrase: str) -> list[str]:
    return phrase.replace("{}", " ").split()


def _unit(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(SIZE)
    return vector / np.linalg.norm(vector)
