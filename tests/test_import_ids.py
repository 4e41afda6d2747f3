"""Ids of videos survive an import: none is lost, none is mixed up with another."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.import_data_set.fields import role_of
from misc.import_data_set.gather import role_of_file
from misc.import_data_set.ids import (
    FORMS,
    SEGMENT_TEMPLATES,
    check_template,
    common_form,
    segment_id,
    source_of,
)
from misc.import_data_set.splits import ROLES, draw_lists
from utils.errors import UserError

PIECES = st.sampled_from(
    [
        "v",
        "1",
        "01",
        ".",
        "/",
        "\\",
        ".mp4",
        ".AVI",
        ".npy",
        " ",
        "é",
        "e\u0301",
        "\ufeff",
        "-",
        "_",
    ]
)
IDS = st.lists(PIECES, min_size=1, max_size=5).map("".join)
SOURCES = st.lists(st.sets(IDS, min_size=1, max_size=8), min_size=1, max_size=4)


@settings(max_examples=400)
@given(SOURCES)
def test_ids_that_differ_in_a_source_differ_in_the_data_set(sources: list[set[str]]) -> None:
    name = common_form(sources)
    form = FORMS[name]
    for source in sources:
        assert len({form(video) for video in source}) == len(source)
    earlier = list(FORMS)[: list(FORMS).index(name)]
    for other in earlier:  # no form that takes off more would do
        assert any(len({FORMS[other](v) for v in source}) < len(source) for source in sources)


@settings(max_examples=400)
@given(IDS, st.sampled_from(list(FORMS)))
def test_a_form_is_kept_when_it_is_made_again(video: str, name: str) -> None:
    once = FORMS[name](video)
    assert once and FORMS[name](once) == once


@pytest.mark.parametrize(
    ("written", "video"),
    [
        ("cat/v1.mp4", "v1"),
        ("C:\\videos\\v1.AVI", "v1"),
        ("v1.mp4.npy", "v1"),
        ("007", "007"),
        ("1001_Film_00.00.51.926-00.00.54.129", "1001_Film_00.00.51.926-00.00.54.129"),
        ("a.v1.5", "a.v1.5"),
        (".mp4", ".mp4"),
        ("e\u0301", unicodedata.normalize("NFC", "e\u0301")),
        ("\ufeffv1", "v1"),
        ("-4wsuPCjDBc_5_15.avi", "-4wsuPCjDBc_5_15"),
    ],
)
def test_what_is_taken_off(written: str, video: str) -> None:
    assert FORMS["folders and endings"](written) == video


@given(IDS, st.integers(0, 99), st.integers(0, 999), st.sampled_from(SEGMENT_TEMPLATES))
def test_the_video_of_a_segment_is_found_again(
    video: str, number: int, start: int, template: str
) -> None:
    values = {"video": video, "number": number, "count": number + 1, "start": start, "end": start}
    assert source_of(segment_id(template, values), template) == video


@given(
    st.dictionaries(st.integers(0, 10_000), st.integers(1, 6), min_size=3, max_size=60),
    st.integers(0, 5),
)
def test_drawn_lists_have_each_video_once_and_keep_segments_together(
    films: dict[int, int], seed: int
) -> None:
    template = "{video}_{number}"
    videos = [f"f{film}_{n}" for film, count in films.items() for n in range(count)]
    lists = draw_lists(videos, (8, 1, 1), seed, lambda v: source_of(v, template))
    assert sorted(video for ids in lists.values() for video in ids) == sorted(videos)
    parts = [{source_of(video, template) for video in lists[role]} for role in ROLES]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(films)
    again = draw_lists(videos[::-1], (8, 1, 1), seed, lambda v: source_of(v, template))
    assert {role: sorted(ids) for role, ids in lists.items()} == {
        role: sorted(ids) for role, ids in again.items()
    }


@given(st.integers(10, 80), st.integers(1, 40), st.integers(0, 5))
def test_videos_that_are_added_move_no_other(before: int, more: int, seed: int) -> None:
    videos = [f"v{number}" for number in range(before + more)]
    lists = draw_lists(videos[:before], (8, 1, 1), seed, str)
    kept = {video: role for role, ids in lists.items() for video in ids}
    after = draw_lists(videos, (8, 1, 1), seed, str, kept)
    assert all({*lists[role]} <= {*after[role]} for role in ROLES)


@pytest.mark.parametrize("template", ["", "{video}", "{number}", "{video}_{film}", "x"])
def test_templates_that_name_no_segment_are_refused(template: str) -> None:
    with pytest.raises(UserError, match="must name"):
        check_template(template)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("MSRVTT_train.9k.csv", "train"),
        ("vatex_validation_v1.0.json", "val"),
        ("a/b/test_list.txt", "test"),
        ("training.txt", "train"),
        ("train_and_test.txt", ""),
        ("captions.csv", ""),
        ("latest.csv", ""),
    ],
)
def test_the_role_in_the_name_of_a_file(name: str, role: str) -> None:
    assert role_of_file(name) == role


def test_words_for_splits() -> None:
    assert [role_of(w) for w in ("Training", "VAL", "dev", "test", "x")] == [
        "train",
        "val",
        "val",
        "test",
        None,
    ]
