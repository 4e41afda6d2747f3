"""All queries beside a rankings page, and the analysis of those that fail."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logger.page.data import Everything, Misled, Retrieved, Speakers
from logger.page.failures import NEAR, Query, find_failures, near_duplicates
from tests.rankings_html import (
    Page,
    everything,
    make_videos,
    ranking,
    read_scripts,
    video_ranking,
    write,
)

words = st.sampled_from(["a", "man", "is", "singing", "on", "the", "big", "stage", "with", "now"])


@given(
    st.lists(st.lists(words, max_size=9).map(" ".join), max_size=25),
    st.lists(st.integers(0, 4), min_size=25, max_size=25),
)
def test_near_duplicates_are_those_that_comparing_all_pairs_finds(captions, videos):
    queries = [
        Query([text], video, 1.0, [], []) for text, video in zip(captions, videos, strict=False)
    ]
    expected = {}
    for one, first in enumerate(queries):
        for other, second in enumerate(queries):
            a, b = (set(q.captions[0].split()) for q in (first, second))
            if a and b and first.video != second.video and len(a & b) >= NEAR * len(a | b):
                expected.setdefault(one, []).append(other)
    assert near_duplicates(queries) == expected


def test_near_duplicates_are_told_by_words_in_any_letters_and_order():
    texts = ["A man, singing on stage!", "on STAGE a man singing", "a dog", "", ""]
    queries = [Query([text], video, 1.0, [], []) for video, text in enumerate(texts)]
    assert near_duplicates(queries) == {0: [1], 1: [0]}


def test_failures_are_counted_by_expert_hub_lack_and_length():
    queries = [
        Query(["one two three"], 0, 1.0, [0, 3], []),
        Query(["one two three four"], 1, 4.0, [3, 0], [1], (0, 1.0)),
        Query(["one"], 2, 3.0, [3, 2], [1], (0, 2.0)),
        Query(["one two"], 3, 2.0, [0, 3], [], (2, 1.0)),
    ]
    found = find_failures(queries, ["look", "sound", "speech"], {0: [1], 1: [0]})
    assert found.failed == 3
    assert [(g.label, g.count, first) for g, first in found.first_without] == [
        ("look", 2, 1),
        ("speech", 1, 1),
    ]
    assert [(hub.video, hub.wrong, hub.right) for hub in found.hubs] == [(3, 3, 1), (0, 2, 1)]
    [(without, present)] = found.missing
    assert (without.label, without.count, without.recall, without.median) == ("sound", 2, 0, 3.5)
    assert (present.count, present.recall) == (2, 50)
    assert [(g.label, g.count) for g in found.lengths] == [("1", 1), ("2", 1), ("3", 1), ("4", 1)]
    assert (found.twins.count, found.twins.recall) == (2, 50)


def test_without_queries_or_failures_no_table_has_a_line():
    found = find_failures([], ["look"], {})
    assert not any((found.failed, found.first_without, found.hubs, found.missing, found.lengths))
    alone = find_failures([Query(["one"], 0, 1.0, [0], [])], [], {})
    assert not any((alone.failed, alone.hubs, alone.lengths)) and alone.twins is None


EXPERTS = ["look", "sound"]


def many(count: int, top: int = 2) -> list:
    """Texts of as many videos; each finds the next ones first."""
    return [
        ranking(
            query_id=f"{n}",
            captions=[f"caption {n}"],
            video_id=f"v{n}",
            retrieved=[Retrieved(f"v{(n + k + 1) % count}", 0.5 - k / 10) for k in range(top)],
            rank=1.0 + n,
            number=n + 1,
            speakers=Speakers([0.5, None], [0.8, 0.0]),
            misled=Misled(0, 1.0) if n else None,
        )
        for n in range(count)
    ]


def test_the_scripts_hold_every_query_and_only_cards_of_the_sample_are_drawn(tmp_path):
    every = many(450)
    videos = make_videos(tmp_path / "clips", "v7.mp4", "v7.jpg", "v8.avi")
    path = write(
        tmp_path / "web",
        every[3:5],
        video_folder=videos,
        experts=EXPERTS,
        every=everything(every),
    )
    page = Page(path)
    assert [e["attrs"]["id"] for e in page.elements if e["tag"] == "article"] == [
        "query-4",
        "query-5",
    ]
    scripts = read_scripts(path.parent)
    assert sorted(scripts) == ["index", "query-0", "query-1", "query-2"]
    index = scripts["index"]
    place = {row[0]: row for row in index["videos"]}
    assert place["v7"] == ["v7", "videos/v7.mp4", "videos/v7.jpg"]
    assert place["v8"] == ["v8", "videos/v8.avi"] and place["v9"] == ["v9"]
    query = index["query"]
    assert query["text"] == [f"caption {n}" for n in range(450)]
    assert query["rank"] == [1 + n for n in range(450)]
    assert query["missing"] == [2] * 450 and query["misled"][:2] == [0, [0, 1]]
    ids = [index["videos"][video][0] for video in query["video"]]
    assert ids == [f"v{n}" for n in range(450)]
    rows = scripts["query-0"] + scripts["query-1"] + scripts["query-2"]
    assert len(rows) == 450
    assert rows[3] == ["0.8:0.5 0:-", [[0.5, ""], [0.4, ""]]]
    main = next(e["attrs"] for e in page.elements if e["tag"] == "main")
    assert main["data-every"] == f"data/{next((path.parent / 'data').iterdir()).name}"
    heads = page.words("caption")
    told = ["The expert that misled", "Videos that come up wrongly"]
    assert heads == [*told, "The true video lacks an expert"]


def test_a_page_that_is_drawn_again_leaves_only_its_own_scripts(tmp_path):
    def names():
        return sorted(p.name.rsplit("-", 1)[0] for p in (tmp_path / "data").iterdir())

    write(tmp_path, many(3), experts=EXPERTS, every=everything(many(3)))
    [first] = (tmp_path / "data").iterdir()
    write(tmp_path, many(3), experts=EXPERTS, every=everything(many(3)))
    assert [*(tmp_path / "data").iterdir()] == [first]  # named by what it holds
    other = {"experts": EXPERTS, "every": everything(many(4)), "file_name": "index-2.html"}
    write(tmp_path, many(4), **other)
    (tmp_path / "data" / "index-own").mkdir()
    assert names() == ["index", "index", "index-2"]
    write(tmp_path, many(5), experts=EXPERTS, every=everything(many(5)))
    assert not first.exists()
    assert names() == ["index", "index", "index-2"], "what is not ours stays"
    write(tmp_path, many(2), experts=EXPERTS)
    assert names() == ["index", "index-2"]


def test_hostile_texts_are_data_in_the_scripts(tmp_path):
    text = "</script><script>alert(1)</script>\u2028 \ud800 \x00 \"'\\"
    one = ranking(captions=[text], video_id=text, number=1, retrieved=[Retrieved(text, 0.5)])
    other = video_ranking(video_id=text, number=1, own=[], retrieved=[])
    path = write(tmp_path, [one], every=everything([one], [other]), experts=[text])
    index = read_scripts(tmp_path)["index"]
    shown = text.replace("\ud800", "\ufffd").replace("\x00", "\ufffd")
    assert index["query"]["text"] == [shown] and index["videos"] == [[shown]]
    assert "alert(1)</script>" not in path.read_text()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_becomes_none(tmp_path, value):
    one = ranking(number=1, similarity=value, retrieved=[Retrieved("v0", value)])
    write(tmp_path, [one], every=everything([one]))
    scripts = read_scripts(tmp_path)
    assert scripts["index"]["query"]["similarity"] == [None]
    assert scripts["query-0"] == [["", [[None, ""]]]]


def test_where_videos_cannot_be_linked_only_those_of_the_first_cards_are_copied(
    tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    videos = make_videos(tmp_path / "clips", *(f"v{n}.mp4" for n in range(9)))
    path = write(tmp_path / "web", many(9)[:1], video_folder=videos, every=everything(many(9)))
    copied = sorted(p.name for p in (path.parent / "videos").iterdir())
    assert copied == ["v0.mp4", "v1.mp4", "v2.mp4"]


def test_a_set_without_queries_has_no_scripts(tmp_path):
    write(tmp_path, [], every=Everything(["v0"], iter(())))
    assert not (tmp_path / "data").exists()
