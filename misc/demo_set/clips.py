"""Makes clips: renders each, computes its experts and keeps its video."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from misc.demo_set import word_vectors
from misc.demo_set.audio_expert import AUDIO_SIZE, audio
from misc.demo_set.feature_files import Expert, write_features
from misc.demo_set.motion_expert import MOTION_SIZE, motion
from misc.demo_set.picture import render
from misc.demo_set.plan import Plan, clip_id, generator, plan_clip
from misc.demo_set.reading import read_words, transcribe
from misc.demo_set.settings import Places, Settings
from misc.demo_set.sound import make_sound
from misc.demo_set.video import write_video
from misc.demo_set.visual_experts import APPEARANCE_SIZE, SCENE_SIZE, appearance, scene

EXPERTS = {
    "appearance": Expert(APPEARANCE_SIZE),
    "audio": Expert(AUDIO_SIZE, variable_length=True),
    "motion": Expert(MOTION_SIZE),
    "ocr": Expert(word_vectors.SIZE, variable_length=True, word_vectors=True),
    "scene": Expert(SCENE_SIZE),
    "speech": Expert(word_vectors.SIZE, variable_length=True, word_vectors=True),
}
TABLE_FOR_WORDS = "w2v-large"  # the word vectors that OCR and speech are given in
MISSING_SHARE = 0.15  # of the clips lack the motion expert, at random


@dataclass(frozen=True)
class Clip:
    """What a viewer sees and hears."""

    plan: Plan
    frames: np.ndarray  # (T, height, width, 3) uint8
    samples: np.ndarray  # (S,) float32
    transcript: tuple[str, ...]  # spoken words as a speech recogniser would write them down


def make_clip(seed: int, number: int) -> Clip:
    """Render one clip."""
    plan = plan_clip(seed, number)
    heard = tuple(transcribe(plan, seed))
    return Clip(plan, render(plan, seed), make_sound(plan, seed), heard)


def compute_experts(
    frames: np.ndarray, samples: np.ndarray, transcript: tuple[str, ...], seed: int
) -> dict[str, np.ndarray]:
    """Compute all experts from pixels, sound and words; those with nothing to say are left out."""
    experts = {
        "appearance": appearance(frames),
        "audio": audio(samples),
        "motion": motion(frames),
        "scene": scene(frames),
    }
    for name, words in (("ocr", read_words(frames)), ("speech", transcript)):
        if words:
            experts[name] = np.stack([_table(seed)[word] for word in words])
    return experts


def make_chunk(settings: Settings, places: Places, place: int) -> None:
    """Make one piece of work: its videos first, then the file of features that says it is done."""
    features: dict[str, dict[str, np.ndarray]] = {name: {} for name in EXPERTS}
    for number in settings.chunks()[place]:
        clip = make_clip(settings.seed, number)
        experts = compute_experts(clip.frames, clip.samples, clip.transcript, settings.seed)
        if generator(settings.seed, "missing expert", number).random() < MISSING_SHARE:
            del experts["motion"]
        for name, values in experts.items():
            features[name][clip_id(number)] = values
        if settings.has_video(number):
            write_video(places.video(number), clip.frames, clip.samples, places.work)
    write_features(places.chunk(place), features, EXPERTS)


@cache
def _table(seed: int) -> dict[str, np.ndarray]:
    return word_vectors.make_table(seed, TABLE_FOR_WORDS)
