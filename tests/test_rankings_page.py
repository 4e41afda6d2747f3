"""The rankings page as a file: what it says, what it escapes, where its links lead."""

import json
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from logger.page.data import OwnCaption, Retrieved, RetrievedCaption, Speakers
from logger.page.page import SCRIPTS, STYLES, sample_queries
from tests.rankings_html import SPEAKERS, Page, make_videos, ranking, video_ranking, write
from utils.errors import UserError

# What the page says -----------------------------------------------------------------------------


def test_page_shows_metrics_and_a_card_for_each_query(tmp_path):
    metrics = {
        "t2v": {"R1": 30.2, "MedR": 3.5, "geometric_mean_R1-R5-R10": 50.0, "own": 0.12345},
        "v2t": {"R1": float("nan"), "MedR": 4.0},
    }
    tied = ranking(query_id="tied", rank=1.5, similarity=-0.25)
    best = ranking(query_id="best", rank=1.0, retrieved=[])
    lost = ranking(query_id="lost", rank=499.0, retrieved=[Retrieved("v7", 0.5)])
    page = Page(write(tmp_path, [ranking(), tied, best, lost], metrics=metrics))

    assert page.words("title") == page.words("h1") == ["Demo"]
    assert page.words("th") == [
        *("R@1", "MedR", "geometric mean", "own"),
        *("text to video", "video to text"),
    ]
    assert page.words("td") == ["", "30.2", "3.5", "50.0", "0.1235", "–", "4.0", "–", "–"]
    assert page.words("p", "rank") == [
        "rank 2 of 500",
        "rank 1.5 of 500",
        "✓ rank 1 of 500",
        "rank 499 of 500",
    ]
    levels = [e["attrs"]["data-level"] for e in page.elements if e["tag"] == "article"]
    assert levels == ["near", "near", "first", "far"]
    assert page.words("dd")[:2] == ["30.2", "3.5"]
    heads = ["True video", "True video, not among the top 1"]
    assert [h for h in page.words("h4") if h.startswith("True")] == heads
    assert "−0.100" in page.words("span", "value")


def test_corrected_metrics_stand_below_the_plain_ones_with_what_was_done(tmp_path):
    metrics = {"t2v": {"R1": 30.2}, "v2t": {"R1": 31.0}}
    plain = write(tmp_path / "plain", [ranking()], metrics=metrics).read_text()
    assert "corrected" not in plain and 'class="note"' not in plain
    metrics |= {"t2v_corrected": {"R1": 35.5}, "v2t_corrected": {"R1": 34.0}}
    page = Page(write(tmp_path, [ranking()], metrics=metrics, note="chosen on <val>"))
    heads = ["text to video", "video to text"]
    assert page.words("th") == ["R@1", *heads, *(f"{head}, hubs corrected" for head in heads)]
    assert page.words("td") == ["", "30.2", "31.0", "35.5", "34.0"]
    assert page.words("p", "note") == ["chosen on <val>"]


def test_retrieved_videos_stand_in_order_and_the_true_one_is_marked_in_words(tmp_path):
    page = Page(write(tmp_path, [ranking()], captions_of={"v1": ["a dog", "one more"]}))
    assert page.words("figure") == [  # the true video is drawn once
        "no video place 1 v1 similarity 0.500 a dog",
        "no video place 2 v0 similarity 0.400 ✓ true video",
        "no video place 3 v2 similarity −0.100",
    ]
    widths = [e["attrs"]["width"] for e in page.elements if e["tag"] == "rect"]
    assert widths == ["100.0", "80.0", "0.0"]
    absent = ranking(retrieved=[Retrieved("v1", 0.5)])
    assert Page(write(tmp_path, [absent])).words("figure")[0] == "no video v0 similarity 0.400"


def test_all_captions_of_a_query_are_there(tmp_path):
    captions = [f"caption {i}" for i in range(20)]
    page = Page(write(tmp_path, [ranking(captions=captions), ranking(captions=[])]))
    assert page.words("li", "find") == captions
    assert "17 more captions" in page.words("summary")


def test_a_page_without_rankings_says_so(tmp_path):
    page = Page(write(tmp_path, []))
    assert page.words("p", "empty") == ["There are no rankings to show: no query was sampled."]
    assert not page.texts("article")


def test_the_folder_holds_all_that_the_page_needs(tmp_path):
    videos = make_videos(tmp_path / "v", "v0.mp4")
    folder = tmp_path / "deep" / "web"
    path = write(folder, [ranking()], video_folder=videos, file_name="epoch-3.html")
    assert path == folder / "epoch-3.html"
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["epoch-3.html", "pages.js", "videos", *SCRIPTS, *STYLES]
    )
    page = Page(path)
    fetched = [
        e["attrs"].get("src", e["attrs"].get("href"))
        for e in page.elements
        if e["tag"] in ("script", "link")
    ]
    assert fetched == ["data:,", *STYLES, "pages.js", *SCRIPTS]
    assert page.urls() == ["videos/v0.mp4"]
    policy = next(e["attrs"]["content"] for e in page.elements if "http-equiv" in e["attrs"])
    assert policy == (
        "default-src 'none'; style-src 'self'; script-src 'self'; media-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'"
    )
    assert not any({"style", "onclick", "onerror"} & set(e["attrs"]) for e in page.elements)


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = write(tmp_path, [ranking()])
    before = path.read_bytes()
    with pytest.raises(TypeError, match="str"):
        write(tmp_path, [ranking(rank="first")])
    assert path.read_bytes() == before


def test_videos_as_queries_show_their_own_captions_and_what_was_found(tmp_path):
    own = [OwnCaption(f"own {n}", 1.0 + n, 0.5) for n in range(7)]
    several = video_ranking(own=own, retrieved=[])
    page = Page(write(tmp_path, [], video_rankings=[video_ranking(), several], num_texts=900))
    assert page.words("p", "rank") == ["rank 2 of 900"] * 2
    assert page.words("div", "text-tile") == [
        "place 1 v1 a dog similarity 0.500",
        "place 2 v0 a red ball similarity 0.400 ✓ own caption",
    ]
    assert page.words("li", "find")[:2] == [
        "rank 2 a red ball similarity 0.400",
        "rank 30 a ball similarity −0.100",
    ]
    assert page.words("li", "find")[-1] == "rank 7 own 6 similarity 0.500"
    assert "2 more captions" in page.words("summary")
    assert page.words("h2") == ["Video to text", "Keys"]


def test_the_experts_of_each_match_are_handed_to_the_page(tmp_path):
    without_weights = Speakers([0.5, None])
    found = [Retrieved("v0", 0.4, SPEAKERS), Retrieved("v1", 0.3, without_weights)]
    path = write(tmp_path, [ranking(retrieved=found)], experts=["look", "sound \"'<", "speech"])
    page = Page(path)
    given = [e["attrs"].get("data-experts") for e in page.elements if e["tag"] == "figure"]
    assert given == ["0.8:0.5 0:- 0.2:-0.25", ":0.5 :-"]
    main = next(e for e in page.elements if e["tag"] == "main")
    assert json.loads(main["attrs"]["data-experts"]) == ["look", "sound \"'<", "speech"]


def test_the_summary_has_a_histogram_and_a_curve_for_each_direction(tmp_path):
    ranks = {"t2v": [1, 1, 3, 499.5], "v2t": [2.0, 7.5, 8, 20]}
    page = Page(write(tmp_path, [], ranks=ranks))
    assert page.words("caption") == ["Ranks, text to video", "Ranks, video to text"]
    bins = ["1", "2 to 5", "6 to 10", "11 to 20", "21 to 50", "51 to 100", "101 to 200"]
    assert page.words("th")[3:11] == [*bins, "201 to 500"]
    assert page.words("td")[:4] == ["50.0 %", "2", "25.0 %", "1"]
    assert page.words("td")[16:22] == ["0.0 %", "0", "25.0 %", "1", "50.0 %", "2"]
    drawing = next(e for e in page.elements if e["attrs"].get("role") == "img")
    assert drawing["attrs"]["aria-label"] == (
        "Recall at K: text to video from 50.0 % at K = 1, median rank 2; "
        "video to text from 0.0 % at K = 1, median rank 7.75"
    )
    assert len([e for e in page.elements if e["tag"] == "polyline"]) == 2
    assert not Page(write(tmp_path, [], ranks={"t2v": [], "v2t": []})).texts("caption")


def test_pages_of_one_folder_know_each_other(tmp_path, caplog):
    def names():
        content = (tmp_path / "pages.js").read_text()
        return [(e["name"], e["figures"]) for e in json.loads(content.split(" = ")[1][:-2])]

    metrics = {"t2v": {"R1": 12.5, "MedR": 3.0}}
    write(tmp_path, [], name="test", order=99)
    write(tmp_path, [], name="epoch 10", file_name="epoch-10.html", order=10)
    write(tmp_path, [], name="</script>é", file_name="epoch-2.html", order=2, metrics=metrics)
    assert names() == [("</script>é", "R@1 12.5, MedR 3.0"), ("epoch 10", ""), ("test", "")]
    (tmp_path / "epoch-10.html").unlink()
    write(tmp_path, [], name="again", file_name="epoch-2.html", order=2)
    assert [name for name, _ in names()] == ["again", "test"]
    for broken in ("", "globalThis.rankingPages = [{}];\n", "globalThis.rankingPages = [1];\n"):
        (tmp_path / "pages.js").write_text(broken)
        write(tmp_path, [], name="anew", file_name="epoch-2.html")
        assert [name for name, _ in names()] == ["anew"]
        assert "begun anew" in caplog.text


# Data stays data --------------------------------------------------------------------------------

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "\"'><svg onload='alert(1)'>",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;amp; <!-- ",
    "שלום עולם \u202e مرحبا",
    "🎉👩‍👩‍👧‍👦",
    "word " * 400,
    "x" * 2000,
    "\ud800 lone \x00\x1b",
]
any_text = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(), max_size=300),
    st.text("<>\"'&;/=!-{}%# \n\r\ta", max_size=30),
)


def as_shown(text: str) -> str:
    """Characters that no HTML page can carry are shown as U+FFFD."""
    return "".join(
        c if c in "\t\n\r" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd"
        for c in text
    )


@settings(max_examples=60, deadline=None)
@given(captions=st.lists(any_text, max_size=5), ids=st.tuples(any_text, any_text), title=any_text)
def test_any_text_is_shown_as_it_is_and_adds_no_element(captions, ids, title):
    # An id that is that of the video itself would be marked as true.
    assume(ids[0] != ids[1] not in ("v0", "v1", "v2"))

    def page_of(captions, query_id, video_id, title):
        one = ranking(captions=captions, query_id=query_id, video_id=video_id)
        own = [OwnCaption(text, 1.0, 0.5) for text in captions] or [OwnCaption("", 1.0, 0.5)]
        found = [RetrievedCaption(text, query_id, 0.5) for text in captions]
        other = video_ranking(video_id=video_id, own=own, retrieved=found)
        values = {"captions_of": {"v1": captions}, "title": title, "experts": [title]}
        with tempfile.TemporaryDirectory() as folder:
            return Page(write(Path(folder), [one], video_rankings=[other], **values))

    page = page_of(captions, *ids, title)
    harmless = page_of(["x" * len(text) for text in captions], "q", "v", "t")
    assert page.skeleton() == harmless.skeleton()
    assert page.texts("h1") == page.texts("title") == [as_shown(title)]
    shown = captions + captions[:1] + (captions or [""]) + captions
    assert page.texts("span", "text") == [as_shown(text) for text in shown]
    query_id, video_id = map(as_shown, ids)
    tiles = [video_id, "v1", "v0", "v2"]
    assert page.texts("bdi") == [query_id, *tiles, video_id, *[query_id] * len(captions)]


# Sampling ---------------------------------------------------------------------------------------


@given(num_queries=st.integers(0, 50), num_samples=st.integers(0, 60), seed=st.integers(0, 2**40))
def test_samples_are_sorted_distinct_and_repeatable(num_queries, num_samples, seed):
    drawn = sample_queries(num_queries, num_samples, seed)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert len(drawn) == min(num_queries, num_samples)
    assert set(drawn.tolist()) <= set(range(num_queries))
    assert np.array_equal(drawn, sample_queries(num_queries, num_samples, seed))


def test_sampling_depends_on_the_seed_and_leaves_the_global_generator_alone():
    np.random.seed(3)
    expected = np.random.rand(4)
    np.random.seed(3)
    samples = {tuple(sample_queries(1000, 20, seed).tolist()) for seed in range(5)}
    assert np.array_equal(np.random.rand(4), expected)
    assert len(samples) == 5
    with pytest.raises(UserError, match="num_samples"):
        sample_queries(10, -1, 0)
