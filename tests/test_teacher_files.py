"""Files of teachers, ours and published ones: what they say, and what is refused."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.store.packed import Part, write_packed
from data_loader.teachers.published import write_published_teacher
from data_loader.teachers.teacher import Teacher, open_teacher
from tests.teacher_data import RandomTeacher
from trainer.distillation import Distillation, text_side, video_side
from utils.errors import UserError

SIZES = {"audio": 3, "scene": 5}


def opened(path: Path, of: RandomTeacher, ids: list[str] | None = None) -> Teacher:
    """The teacher in a file, for all of its videos or for some."""
    ids = of.ids if ids is None else ids
    counts = np.array([of.counts[of.ids.index(key)] for key in ids])
    return Teacher(path.name, open_teacher(path, [path.parent / "cache"]), ids, counts)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    block=st.integers(1, 7),
    has_weights=st.booleans(),
    order=st.randoms(),
)
def test_our_file_gives_the_naive_similarity_in_any_order_of_videos(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    counts: list[int],
    block: int,
    has_weights: bool,
    order: Any,
) -> None:
    of = RandomTeacher(counts, SIZES, seed, has_weights)
    path = of.write(tmp_path_factory.mktemp("ours") / "a.teacher", block)
    ids = list(of.ids)
    order.shuffle(ids)
    teacher = opened(path, of, ids)
    videos = np.arange(len(ids))
    rng = np.random.default_rng(seed)
    captions = np.array([rng.integers(of.counts[of.ids.index(key)]) for key in ids])
    [sims] = Distillation([teacher]).teacher_similarities(torch.from_numpy(videos), captions)
    for row, key in enumerate(ids):
        for column, other in enumerate(ids):
            expected = of.similarity(of.ids.index(key), captions[row], of.ids.index(other))
            assert sims[row, column].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sizes", [SIZES, {"audio": 128, "scene": 96, "motion": 7}])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_published_file_gives_the_sum_of_inner_products(
    tmp_path: Path, sizes: dict[str, int], protocol: int
) -> None:
    of = RandomTeacher([3, 1, 2], sizes, has_weights=False)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(of.published(), protocol))
    teacher = opened(tmp_path / "a.pkl", of)
    [sims] = Distillation([teacher]).teacher_similarities(np.array([0, 2, 1]), np.array([2, 0, 0]))
    expected = [[of.similarity(v, c, o) for o in (0, 2, 1)] for v, c in ((0, 2), (2, 0), (1, 0))]
    np.testing.assert_allclose(sims, expected, atol=1e-4)


def test_an_expert_that_a_published_video_lacks_adds_nothing(tmp_path: Path) -> None:
    of = RandomTeacher([2, 2, 2, 2], SIZES, has_weights=False)
    content = of.published()
    del content["v0"]["vid_embds"]["audio"]
    content["v1"]["vid_embds"]["audio"] = float("nan")
    content["v2"]["vid_embds"]["audio"] = np.full(3, np.nan, dtype=np.float32)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    for video in of.video[:3]:
        video["audio"][:] = 0
    teacher = opened(tmp_path / "a.pkl", of)
    _, available = teacher.video(np.arange(4))
    assert available.tolist() == [[0, 1], [0, 1], [0, 1], [1, 1]]
    [sims] = Distillation([teacher]).teacher_similarities(np.arange(4), np.zeros(4, dtype=int))
    expected = [[of.similarity(v, 0, o) for o in range(4)] for v in range(4)]
    np.testing.assert_allclose(sims, expected, atol=1e-5)


def test_what_is_written_as_published_is_an_ordinary_pickle(tmp_path: Path) -> None:
    of = RandomTeacher([2, 3], SIZES)
    content = of.published()
    write_published_teacher(tmp_path / "a.pkl", content.items())
    read = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert type(read) is dict and list(read) == of.ids
    for key, sides in content.items():
        for side, experts in sides.items():
            assert list(read[key][side]) == list(experts)
            for name, array in experts.items():
                np.testing.assert_array_equal(read[key][side][name], array)
    opened(tmp_path / "a.pkl", of)


def test_the_format_follows_from_the_content(tmp_path: Path) -> None:
    of = RandomTeacher([2, 3], SIZES)
    teacher = opened(of.write(tmp_path / "published-name.pkl"), of)
    assert teacher.text(np.array([0]), np.array([1]))[1] is not None


def test_half_precision_halves_the_file_and_stays_near(tmp_path: Path) -> None:
    of = RandomTeacher([20] * 30, {"scene": 64})
    whole = of.write(tmp_path / "whole.teacher")
    half = of.write(tmp_path / "half.teacher", dtype=np.dtype("<f2"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    videos, captions = np.arange(30), np.full(30, 19)
    sims = Distillation([opened(whole, of), opened(half, of)]).teacher_similarities(
        videos, captions
    )
    assert torch.allclose(sims[0], sims[1], atol=0.05) and not torch.equal(sims[0], sims[1])


def test_embeddings_are_mapped_not_read(tmp_path: Path) -> None:
    packed = open_teacher(RandomTeacher([2, 3], SIZES).write(tmp_path / "a.teacher"), [])
    assert all(isinstance(array, np.memmap) for array in packed.arrays.values())


def test_a_published_file_is_packed_once_and_anew_when_it_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.pkl", tmp_path / "cache"
    of = RandomTeacher([2, 3], SIZES, has_weights=False)
    path.write_bytes(pickle.dumps(of.published()))
    opened(path, of)
    [copy] = cache.iterdir()
    stamp = copy.stat().st_mtime_ns
    opened(path, of)
    assert copy.stat().st_mtime_ns == stamp
    other = RandomTeacher([2, 3], SIZES, seed=1, has_weights=False)
    path.write_bytes(pickle.dumps(other.published()))
    os.utime(path, ns=(1, 1))
    text, _ = opened(path, other).text(np.array([1]), np.array([2]))
    np.testing.assert_array_equal(text[1][0], other.text[1][2]["scene"])


def test_a_caption_that_does_not_exist_is_not_the_next_videos(tmp_path: Path) -> None:
    of = RandomTeacher([2, 3], SIZES)
    teacher = opened(of.write(tmp_path / "a.teacher"), of)
    for caption in (2, -1):
        with pytest.raises(IndexError):
            text_side(teacher, np.array([0]), np.array([caption]))
    assert len(video_side(teacher, np.array([1, 0, 1]))) == 3


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [False, True])
def test_other_videos_and_other_captions_are_refused(tmp_path: Path, published: bool) -> None:
    of = RandomTeacher([2, 3], SIZES)
    path = tmp_path / "a.pkl"
    if published:
        path.write_bytes(pickle.dumps(of.published()))
    else:
        of.write(path)
    packed = open_teacher(path, [tmp_path / "cache"])
    with pytest.raises(UserError, match=r'a\.pkl.* 1 of the 2 .*"v7"'):
        Teacher("a.pkl", packed, ["v0", "v7"], np.array([2, 1]))
    with pytest.raises(UserError, match=r'3 captions.*"v1".*4'):
        Teacher("a.pkl", packed, ["v0", "v1"], np.array([2, 4]))


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("keep", [0, 0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, published: bool, keep: float) -> None:
    path = tmp_path / "a.pkl"
    of = RandomTeacher([2, 3], SIZES)
    if published:
        path.write_bytes(pickle.dumps(of.published()))
    else:
        of.write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UserError, match=r"a\.pkl"):
        open_teacher(path, [tmp_path / "cache"])
    assert list(tmp_path.rglob("*")) == [path], "nothing half-made is left"


def test_a_changed_header_is_refused(tmp_path: Path) -> None:
    path = RandomTeacher([2, 3], SIZES).write(tmp_path / "a.teacher")
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.teacher.*damaged"):
        open_teacher(path, [])


class RunsCode:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_code_in_a_published_file_does_not_run(tmp_path: Path) -> None:
    content = RandomTeacher([1, 2], SIZES).published()
    content["v1"]["vid_embds"]["audio"] = RunsCode(tmp_path / "ran")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"a\.pkl"):
        open_teacher(tmp_path / "a.pkl", [tmp_path / "cache"])
    assert not (tmp_path / "ran").exists()


def _drop(side: str) -> Callable[[dict], None]:
    return lambda video: video.pop(side)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_drop("vid_embds"), '"v1", "vid_embds"'),
        (_drop("text_embds"), '"v1", "text_embds"'),
        (lambda v: v["text_embds"].pop("audio"), "other experts"),
        (lambda v: v["vid_embds"].update(scenes=np.ones(5)), r'"scenes" \(did you mean "scene"'),
        (lambda v: v["vid_embds"].update(scene=np.ones(4)), '"scene".*5'),
        (lambda v: v["vid_embds"].update(scene="x"), '"scene".*5'),
        (lambda v: v["vid_embds"].update(scene=np.array(["x"] * 5)), '"scene".*5'),
        (lambda v: v["text_embds"].update(audio=np.ones((2, 3))), "numbers of captions"),
        (lambda v: v["text_embds"].update(audio=np.ones((3, 2))), "size 3"),
        (lambda v: v["text_embds"]["audio"].fill(np.inf), "not finite"),
        (lambda v: v["vid_embds"]["audio"][:1].fill(np.nan), "not finite"),
    ],
)
def test_odd_published_files_are_refused_with_the_video(
    tmp_path: Path, harm: Callable[[dict], Any], sentence: str
) -> None:
    content = RandomTeacher([2, 3], SIZES).published()
    harm(content["v1"])
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=sentence):
        open_teacher(tmp_path / "a.pkl", [tmp_path / "cache"])


@pytest.mark.parametrize("content", [[], {}, {"v0": 1}, {"v0": {"vid_embds": {}}}, 3])
def test_something_else_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"a\.pkl"):
        open_teacher(tmp_path / "a.pkl", [tmp_path / "cache"])


def test_one_array_named_many_times_does_not_fill_the_disk(tmp_path: Path) -> None:
    big = np.zeros((2000, 500), dtype=np.float32)
    entry = {"vid_embds": {"a": np.zeros(500, np.float32)}, "text_embds": {"a": big}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({f"v{n}": entry for n in range(1000)}))
    with pytest.raises(UserError, match="outgrow"):
        open_teacher(tmp_path / "a.pkl", [tmp_path / "cache"])


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"kind": "teacher"},
        {"kind": "teacher", "ids": ["v0"], "experts": ["a"], "sizes": [2]},
        {"kind": "teacher", "ids": ["v0"], "experts": ["a", "b"], "sizes": [1]},
        {"kind": "teacher", "ids": ["v0"], "experts": ["a"], "sizes": ["1"]},
        {"kind": "teacher", "ids": ["v0", "v1"], "experts": ["a"], "sizes": [1]},
        [],
    ],
)
def test_packed_files_that_are_no_teachers_are_refused(tmp_path: Path, facts: Any) -> None:
    arrays = {
        "video": np.ones((1, 1), np.float32),
        "available": np.ones((1, 1), np.float32),
        "text": np.ones((2, 1), np.float32),
        "caption_offsets": np.array([0, 2]),
    }
    path = tmp_path / "a.teacher"
    write_packed(path, {name: Part.of(array) for name, array in arrays.items()}, facts)
    with pytest.raises(UserError, match=r"a\.teacher"):
        open_teacher(path, [])


def test_a_teacher_whose_numbers_were_damaged_is_noticed(tmp_path: Path) -> None:
    of = RandomTeacher([2, 3], SIZES)
    of.text[1][0]["audio"][:] = np.inf
    teacher = opened(of.write(tmp_path / "a.teacher"), of)
    distillation = Distillation([teacher])
    distillation.check()
    distillation.teacher_similarities(np.arange(2), np.zeros(2, dtype=int))
    with pytest.raises(UserError, match=r"a\.teacher.*not finite"):
        distillation.check()


def test_a_file_that_cannot_be_finished_leaves_the_older_one(tmp_path: Path) -> None:
    of = RandomTeacher([2, 3], SIZES)
    path = of.write(tmp_path / "a.teacher")
    before = path.read_bytes()

    def broken():
        yield "v0", of.published()["v0"]
        raise UserError("the model gives NaN")

    with pytest.raises(UserError, match="gives NaN"):
        write_published_teacher(path, broken())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
