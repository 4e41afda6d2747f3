"""What the clips of the demo set are: experts see and hear, captions tell the truth mostly."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.demo_set.clips import Clip, compute_experts, make_clip
from misc.demo_set.pictures.lettering import draw_board
from misc.demo_set.plan import plan_clip
from misc.demo_set.words import word_vectors
from misc.demo_set.words.captions import captions_of
from misc.demo_set.words.reading import read_words, transcribe
from misc.demo_set.words.world import ACTIONS, ACTOR_KINDS, ACTORS, COLOURS, SCENES, SOUNDS, WRITTEN
from misc.extract_experts.experts.log_mel import log_mel
from misc.extract_experts.experts.motion import motion

KINDS = {
    actor: [kind for kind, members in ACTOR_KINDS.items() if actor in members] for actor in ACTORS
}
NO_TIMES = np.empty(0)
NUMBERS = st.integers(0, 5000)
SEEDS = st.integers(0, 100)


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A clip with words in the picture that the expert can read."""
    clips = (make_clip(0, number) for number in range(40) if plan_clip(0, number).written)
    return next(clip for clip in clips if read_words(clip.frames))


def changed(clip: Clip, **parts: object) -> set[str]:
    """Experts that are others when the frames, the samples or the transcript are others."""
    given_parts = {
        "frames": clip.frames,
        "samples": clip.samples,
        "transcript": clip.transcript,
    }
    before = compute_experts(**given_parts, seed=0)
    after = compute_experts(**{**given_parts, **parts}, seed=0)
    names = before.keys() | after.keys()
    same = {
        name
        for name in before.keys() & after.keys()
        if before[name].shape == after[name].shape and np.allclose(before[name], after[name])
    }
    return names - same


def test_experts_follow_what_is_seen_heard_and_said(clip: Clip) -> None:
    assert changed(clip) == set()
    other = make_clip(0, 1000)
    seen = {"appearance", "scene", "motion", "ocr"}
    assert changed(clip, frames=255 - clip.frames) >= {"appearance", "scene"}
    assert changed(clip, frames=np.zeros_like(clip.frames)) == seen
    assert changed(clip, frames=other.frames) == seen
    assert changed(clip, samples=other.samples) == {"audio"}
    assert changed(clip, transcript=("weather",)) == {"speech"}


def test_another_seed_is_another_world() -> None:
    one, other = make_clip(0, 7), make_clip(1, 7)
    assert one.plan != other.plan
    assert not np.array_equal(one.frames[:30], other.frames[:30])
    assert captions_of(0, 7, num_train=9, training=True) != captions_of(
        1, 7, num_train=9, training=True
    )


def test_motion_sees_the_direction_of_time(clip: Clip) -> None:
    assert "motion" in changed(clip, frames=clip.frames[::-1])


def moving_square(step: tuple[int, int], num_frames: int = 16) -> np.ndarray:
    """A light square on a textured backdrop that moves by `step` pixels a frame."""
    rng = np.random.default_rng(0)
    field = np.kron(rng.integers(20, 140, (8, 10)), np.ones((16, 16)))[:120]
    frames = np.repeat(field[None, :, :, None], num_frames, 0).repeat(3, -1).astype(np.uint8)
    texture = np.kron(rng.integers(150, 250, (4, 4)), np.ones((8, 8)))[..., None]
    for time in range(num_frames):
        top, left = 44 + step[1] * (time - 8), 64 + step[0] * (time - 8)
        frames[time, top : top + 32, left : left + 32] = texture
    return frames


@pytest.mark.parametrize(
    ("step", "direction"), [((3, 0), 0), ((0, 3), 2), ((-3, 0), 4), ((0, -3), 6)]
)
def test_motion_names_the_direction(step: tuple[int, int], direction: int) -> None:
    """The first 32 numbers are 4 quarters x 8 directions: right, down right, down, ..."""
    over_time = motion(moving_square(step), NO_TIMES)[0, :32].reshape(4, 8)
    assert over_time.sum(0).argmax() == direction


def test_motion_takes_the_camera_away() -> None:
    """The camera overtakes the square: on the screen everything goes to the left."""
    frames = moving_square((2, 0))
    panned = np.stack([np.roll(frame, -3 * time, 1) for time, frame in enumerate(frames)])
    over_time = motion(panned, NO_TIMES)[0, :32].reshape(4, 8)
    assert over_time.sum(0).argmax() == 0


@given(st.sampled_from(sorted(WRITTEN)), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_every_word_can_be_read(word: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    board = np.asarray(draw_board((word,), rng))
    frame = np.full((120, 160, 3), 128, np.uint8)
    top, left = rng.integers(0, (120 - board.shape[0], 160 - board.shape[1]))
    frame[top : top + board.shape[0], left : left + board.shape[1]] = board
    noise = rng.normal(0, 8, (6, *frame.shape))
    frames = np.clip(frame + noise, 0, 255).astype(np.uint8)
    assert read_words(frames) == [word]


def test_pictures_without_words_are_seldom_misread() -> None:
    plans = [plan_clip(0, number) for number in range(60)]
    wordless = [plan.number for plan in plans if not plan.written]
    assert sum(bool(read_words(make_clip(0, number).frames)) for number in wordless) <= 1


def test_transcripts_have_some_errors() -> None:
    plans = [plan_clip(0, number) for number in range(600)]
    spoken = [(plan.spoken, tuple(transcribe(plan, 0))) for plan in plans if plan.spoken]
    right = sum(heard == said for said, heard in spoken) / len(spoken)
    assert 0.2 < right < 0.8
    assert all(not transcribe(plan, 0) for plan in plans if not plan.spoken)


@pytest.mark.parametrize("pitch", [300, 700, 1500, 3000, 6000])
def test_audio_hears_a_tone_where_a_naive_spectrogram_does(pitch: int) -> None:
    time = np.arange(16000 * 2) / 16000
    frames = log_mel((0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32), NO_TIMES)

    def mel(hertz: float) -> float:
        return 2595 * np.log10(1 + hertz / 700)

    low, high = mel(40), mel(7800)
    band = round((mel(pitch) - low) / (high - low) * 129) - 1
    assert frames.shape == (1 + (32000 - 2048) // 2560, 128)
    assert (np.abs(frames.argmax(1) - band) <= 1).all()


@given(SEEDS, NUMBERS)
@settings(max_examples=60)
def test_true_captions_mention_nothing_that_is_not_there(seed: int, number: int) -> None:
    plan = plan_clip(seed, number)
    actors = [plan.actor] + ([plan.second] if plan.second else [])
    there = {
        "actor": {name for actor in actors for name in (actor.kind, *KINDS[actor.kind])},
        "colour": {actor.colour for actor in actors},
        "size": {actor.size for actor in actors},
        "motion": {plan.action},
        "place": {plan.scene},
        "sound": {plan.sound},
        "sign": set(plan.written),
    }
    words = word_vectors.lexicon()
    captions, kinds = captions_of(seed, number, num_train=0, training=False)
    assert 3 <= len(captions) <= 5
    assert set(kinds) == {"true"}
    for caption in captions:
        for word in caption.split():
            theme, concept = words[word]
            assert concept in there.get(theme, {concept}), (word, caption)


def test_share_of_captions_that_are_wrong_or_generic() -> None:
    kinds = [
        kind
        for number in range(1500)
        for kind in captions_of(0, number, num_train=1500, training=True)[1]
    ]
    assert {"true", "generic", "wrong"} == set(kinds)
    assert 0.12 < 1 - kinds.count("true") / len(kinds) < 0.18


def test_first_captions_are_rich() -> None:
    words = word_vectors.lexicon()
    themes = {"actor", "motion", "place", "sound", "sign"}

    def facts(caption: str) -> int:
        found = {words[word][0] for word in caption.split()}
        return len(found & themes) + any(theme.startswith("talk of") for theme in found)

    lists = [captions_of(0, number, num_train=0, training=False)[0] for number in range(300)]
    assert np.mean([facts(captions[0]) >= 3 for captions in lists]) > 0.85
    assert np.mean([facts(captions[0]) for captions in lists]) > np.mean(
        [facts(caption) for captions in lists for caption in captions[1:]]
    )


def test_all_facts_occur() -> None:
    plans = [plan_clip(0, number) for number in range(2250)]
    assert {plan.scene for plan in plans} == set(SCENES)
    assert {plan.action for plan in plans} == set(ACTIONS)
    assert {plan.sound for plan in plans} == set(SOUNDS)
    assert {(plan.actor.kind, plan.actor.colour) for plan in plans} == {
        (kind, colour) for kind in ACTORS for colour in COLOURS
    }
    assert {word for plan in plans for word in plan.written} == set(WRITTEN)
    triples = [(plan.scene, plan.actor.kind, plan.action) for plan in plans]
    assert len(set(triples)) < 0.85 * len(triples)  # many clips have a twin


def naive_read(path: Path) -> dict[str, np.ndarray]:
    """Read the binary word2vec format byte by byte, as its description says."""
    with path.open("rb") as file:
        count, size = map(int, file.readline().split())
        table = {}
        for _ in range(count):
            word = b""
            while (byte := file.read(1)) != b" ":
                word += byte
            table[word.decode()] = np.frombuffer(file.read(4 * size), "<f4")
            assert file.read(1) == b"\n"
        assert file.read() == b""
    return table


def test_word_vectors_are_read_back(tmp_path: Path) -> None:
    table = word_vectors.make_table(0, "w2v-small")
    word_vectors.write_table(tmp_path / "table.bin", table)
    read = naive_read(tmp_path / "table.bin")
    assert list(read) == list(table)
    assert all(np.array_equal(read[word], table[word]) for word in table)
    assert all(vector.shape == (300,) for vector in read.values())


def test_word_vectors_know_synonyms() -> None:
    table = word_vectors.make_table(0, "w2v-large")
    synonyms = [("cat", "kitty"), ("red", "scarlet"), ("jumps", "hops"), ("taxi", "cab")]
    related = [("cat", "dog"), ("red", "blue"), ("jumps", "spins"), ("taxi", "hotel")]
    strange = [("cat", "red"), ("blue", "jumps"), ("taxi", "weather"), ("piano", "beach")]
    near, middle, far = (
        [float(table[one] @ table[other]) for one, other in pairs]
        for pairs in (synonyms, related, strange)
    )
    assert min(near) > max(middle)
    assert min(middle) > max(far)


def test_tables_differ_in_strength() -> None:
    tables = {name: word_vectors.make_table(0, name) for name in word_vectors.TABLES}
    words = word_vectors.lexicon().keys()
    missing = {name: words - table.keys() for name, table in tables.items()}
    assert not missing["w2v-large"]
    assert 0 < len(missing["w2v-medium"]) < len(missing["w2v-small"])
    assert missing["w2v-medium"] - missing["w2v-small"]
    nearness = {
        name: np.mean(
            [
                table[phrases[0]] @ table[phrases[1]]
                for phrases in (*ACTORS.values(), *COLOURS.values())
                if phrases[0] in table and phrases[1] in table
            ]
        )
        for name, table in tables.items()
    }
    assert nearness["w2v-large"] > nearness["w2v-medium"] > nearness["w2v-small"]


def test_every_word_of_the_captions_has_a_vector() -> None:
    words = word_vectors.lexicon().keys()
    for number in range(800):
        captions, _ = captions_of(0, number, num_train=800, training=True)
        assert {word for caption in captions for word in caption.split()} <= words
