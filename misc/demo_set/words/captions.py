"""Captions: true ones mention some facts of a clip, others are generic or of another clip."""

from collections.abc import Sequence

import numpy as np

from misc.demo_set.plan import Actor, Plan, generator, plan_clip
from misc.demo_set.words.world import (
    ACTIONS,
    ACTOR_KINDS,
    ACTORS,
    COLOURS,
    SCENES,
    SIZES,
    SOUNDS,
    WRITTEN,
)

GENERIC = (
    "a short video clip",
    "something happens on the screen",
    "an animated scene",
    "this is a video with some movement",
    "a funny short film",
    "a cartoon that was made by a computer",
    "some shapes and noises",
    "a nice clip for everyone",
)
WRONG_SHARE, GENERIC_SHARE = 0.09, 0.06

# How readily a describer mentions a fact, next to the actor.
_WEIGHTS = {
    "action": 1.0,
    "scene": 1.0,
    "sound": 0.9,
    "written": 1.3,
    "speech": 1.3,
    "second": 0.5,
}
# Sentence frames; {} stands for the fact.
TOGETHER = {"follows": ("followed by", "chased by"), "watches": ("next to", "and")}
SHOWING = ("{} can be seen", "there is {}", "the video shows {}", "we see {}", "here is {}")
READING = (
    "a sign says {}",
    "the word {} is written",
    "a board reads {}",
    "the text {} appears",
    "there is a poster with {}",
)
SPEAKING = (
    "someone talks about {}",
    "a voice mentions {}",
    "a speaker explains {}",
    "somebody is speaking of {}",
    "a narrator discusses {}",
)
HEARING = ("while {}", "as {}", "and {}", "and in the background {}")


def captions_of(
    seed: int, number: int, *, num_train: int, training: bool
) -> tuple[list[str], list[str]]:
    """Write the 3 to 5 captions of one clip and the kind of each ("true", "generic", "wrong").

    Only training clips (those with numbers below `num_train`) get generic or wrong captions. The
    first caption is the richest: evaluation uses one caption per clip.
    """
    rng = generator(seed, "captions", number)
    plan = plan_clip(seed, number)
    captions, kinds = [], []
    for place in range(int(rng.integers(3, 6))):
        kind = _kind(rng) if training and num_train > 1 else "true"
        if kind == "generic":
            captions.append(_choose(rng, GENERIC))
        elif kind == "wrong":
            other = (number + int(rng.integers(1, num_train))) % num_train
            captions.append(describe(plan_clip(seed, other), rng, rich=place == 0))
        else:
            captions.append(describe(plan, rng, rich=place == 0))
        kinds.append(kind)
    return captions, kinds


def describe(plan: Plan, rng: np.random.Generator, *, rich: bool) -> str:
    """Describe a clip in one sentence of 3 or 4 facts (`rich`) or 2 to 4, the actor being one."""
    available = ["action", "scene", "sound"]
    available += ["written"] if plan.written else []
    available += ["speech"] if plan.topic else []
    available += ["second"] if plan.second else []
    weights = np.array([_WEIGHTS[fact] for fact in available])
    count = int(rng.integers(2, 4)) if rich else int(rng.integers(1, 4))
    chosen = rng.choice(len(available), size=count, replace=False, p=weights / weights.sum())
    facts = {available[place] for place in chosen}

    subject = _noun(plan.actor, rng, generic_share=0.1)
    if "second" in facts:
        assert plan.second is not None
        together = _choose(rng, TOGETHER[plan.second_role])
        subject += f" {together} {_noun(plan.second, rng, generic_share=0.0)}"
    if "action" in facts:
        sentence = f"{subject} {_choose(rng, ACTIONS[plan.action])}"
    else:
        sentence = _choose(rng, SHOWING).format(subject)
    if "scene" in facts:
        place_phrase = _choose(rng, SCENES[plan.scene])
        front = rng.random() < 0.25
        sentence = f"{place_phrase} {sentence}" if front else f"{sentence} {place_phrase}"
    clauses = []
    if "sound" in facts:
        clauses.append(_choose(rng, HEARING).format(_choose(rng, SOUNDS[plan.sound])))
    if "written" in facts:
        clauses.append("and " + _choose(rng, READING).format(_quote(plan.written, rng)))
    if "speech" in facts:
        word = plan.topic if rng.random() < 0.6 else _choose(rng, plan.spoken)
        clauses.append(_choose(rng, ("and ", "while ")) + _choose(rng, SPEAKING).format(word))
    return " ".join([sentence, *(clauses[place] for place in rng.permutation(len(clauses)))])


def _noun(actor: Actor, rng: np.random.Generator, *, generic_share: float) -> str:
    words = [_choose(rng, ACTORS[actor.kind])]
    if rng.random() < generic_share:
        words = [kind for kind, members in ACTOR_KINDS.items() if actor.kind in members]
    if rng.random() < 0.75:
        words.insert(0, _choose(rng, COLOURS[actor.colour]))
    if SIZES[actor.size] and rng.random() < 0.35:
        words.insert(0, _choose(rng, SIZES[actor.size]))
    return ("an " if words[0][0] in "aeiou" else "a ") + " ".join(words)


def _quote(written: Sequence[str], rng: np.random.Generator) -> str:
    words = [word if rng.random() < 0.8 else WRITTEN[word] for word in written]
    if len(words) > 1 and rng.random() < 0.4:
        words = [_choose(rng, words)]
    return " ".join(words)


def _kind(rng: np.random.Generator) -> str:
    draw = rng.random()
    if draw < WRONG_SHARE:
        return "wrong"
    return "generic" if draw < WRONG_SHARE + GENERIC_SHARE else "true"


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
