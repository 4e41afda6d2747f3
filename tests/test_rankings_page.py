"""The rankings page as a file: what it says, what it escapes, where its links lead."""

import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_loader.errors import UserError
from tests.rankings_html import Page, make_videos, ranking, write
from utils.rankings_page import Retrieved, sample_queries

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
    assert page.words("label", "choice") == ["all (4)", "1 (1)", "2 to 10 (2)", "above 10 (1)"]
    assert page.words("span", "absent") == ["(true video not among the top 1)"]
    assert "−0.250" in page.words("span", "value")


def test_retrieved_videos_stand_in_order_and_the_true_one_is_marked_in_words(tmp_path):
    page = Page(write(tmp_path, [ranking()], captions_of={"v1": ["a dog", "one more"]}))
    assert page.words("figure") == [
        "no video v0 similarity 0.400",
        "no video place 1 v1 similarity 0.500 a dog",
        "no video place 2 v0 similarity 0.400 ✓ true video",
        "no video place 3 v2 similarity −0.100",
    ]
    widths = [e["attrs"]["width"] for e in page.elements if e["tag"] == "rect"]
    assert widths == ["80.0", "100.0", "80.0", "0.0"]


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
    assert sorted(p.name for p in folder.iterdir()) == [
        *("epoch-3.html", "page.js", "style.css", "videos"),
    ]
    page = Page(path)
    fetched = [
        e["attrs"].get("src", e["attrs"].get("href"))
        for e in page.elements
        if e["tag"] in ("script", "link")
    ]
    assert fetched == ["data:,", "style.css", "page.js"]
    assert page.urls() == ["videos/v0.mp4"] * 2
    policy = next(e["attrs"]["content"] for e in page.elements if "http-equiv" in e["attrs"])
    assert policy == (
        "default-src 'none'; style-src 'self'; script-src 'self'; media-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'"
    )
    assert not any({"style", "onclick", "onerror"} & set(e["attrs"]) for e in page.elements)


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = write(tmp_path, [ranking()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="first"):
        write(tmp_path, [ranking(rank="first")])
    assert path.read_bytes() == before


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
    assume(ids[1] not in ("v0", "v1", "v2"))  # would be marked as the true video

    def page_of(captions, query_id, video_id, title):
        one = ranking(captions=captions, query_id=query_id, video_id=video_id)
        own = {"v1": captions}
        with tempfile.TemporaryDirectory() as folder:
            return Page(write(Path(folder), [one], captions_of=own, title=title))

    page = page_of(captions, *ids, title)
    harmless = page_of(["x" * len(text) for text in captions], "q", "v", "t")
    assert page.skeleton() == harmless.skeleton()
    assert page.texts("h1") == page.texts("title") == [as_shown(title)]
    assert page.texts("span", "text") == [as_shown(text) for text in captions + captions[:1]]
    assert page.texts("bdi") == [*map(as_shown, ids), "v1", "v0", "v2"]


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
