"""What happens in each clip, drawn from (seed, clip number) alone: any order gives the same."""

from dataclasses import dataclass

import numpy as np

from misc.demo_set.words.world import (
    ACTIONS,
    ACTORS,
    COLOURS,
    SCENES,
    SIZES,
    SOUNDS,
    TOPICS,
    WRITTEN,
)

FRAMES_PER_SECOND = 10
CLIPS_PER_FAMILY = 6

# One stream of random numbers per purpose: a change in how sounds are made leaves pictures alone.
_STREAMS = (
    "plan",
    "family",
    "picture",
    "sound",
    "captions",
    "transcript",
    "word vectors",
    "missing expert",
)


def generator(seed: int, purpose: str, number: int = 0) -> np.random.Generator:
    """Return the random generator of one purpose (see ``_STREAMS``) for one clip or table."""
    return np.random.default_rng([seed, number, _STREAMS.index(purpose)])


@dataclass(frozen=True)
class Actor:
    """One figure in the picture."""

    kind: str
    colour: str
    size: str


@dataclass(frozen=True)
class Plan:
    """All facts of one clip."""

    number: int
    scene: str
    actor: Actor
    action: str
    second: Actor | None
    second_role: str  # "follows" the first actor, or "watches" it from a place at the side
    sound: str
    written: tuple[str, ...]  # words in the picture, none for most clips
    topic: str  # what is talked about; "" when nobody speaks
    spoken: tuple[str, ...]
    num_frames: int

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return self.num_frames / FRAMES_PER_SECOND


def clip_id(number: int) -> str:
    """Name of a clip in all files."""
    return f"clip{number:05d}"


def plan_clip(seed: int, number: int) -> Plan:
    """Draw the facts of one clip.

    Clips come in families of neighbours: a good third of them share scene, kind of actor and
    action with other clips of their family, so that only colour, sound and words tell them apart.
    """
    rng = generator(seed, "plan", number)
    family = generator(seed, "family", number // CLIPS_PER_FAMILY)
    source = family if rng.random() < 0.35 else rng
    scene, kind, action = (_pick(source, table) for table in (SCENES, ACTORS, ACTIONS))
    actor = Actor(kind, _pick(rng, COLOURS), _pick(rng, SIZES))
    second = None
    if rng.random() < 0.35:
        others = [other for other in ACTORS if other != kind]
        second = Actor(_pick(rng, others), _pick(rng, COLOURS), _pick(rng, SIZES))
    topic, spoken = "", ()
    if rng.random() < 0.5:
        topic = _pick(rng, TOPICS)
        heard = [*TOPICS[topic], topic]
        count = int(rng.integers(2, 5))
        spoken = tuple(heard[place] for place in rng.permutation(len(heard))[:count])
    written: tuple[str, ...] = ()
    if rng.random() < 0.5:
        words = list(WRITTEN)
        count = 1 + int(rng.random() < 0.3)
        written = tuple(words[place] for place in rng.permutation(len(words))[:count])
    return Plan(
        number=number,
        scene=scene,
        actor=actor,
        action=action,
        second=second,
        second_role="follows" if rng.random() < 0.5 else "watches",
        sound=_pick(rng, SOUNDS),
        written=written,
        topic=topic,
        spoken=spoken,
        num_frames=int(rng.integers(30, 39)),
    )


def _pick(rng: np.random.Generator, names: dict[str, object] | list[str]) -> str:
    names = list(names)
    return names[int(rng.integers(len(names)))]
