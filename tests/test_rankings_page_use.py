"""Using the rankings page in a real browser: directions, keys, links, experts, many queries."""

import json
import shutil
from collections.abc import Iterator

import av
import numpy as np
import pytest

from logger.page.data import (
    OwnCaption,
    Ranking,
    Retrieved,
    RetrievedCaption,
    Speakers,
    VideoRanking,
)
from tests.rankings_html import write
from tests.rankings_site import serving, shown, write_video

NUM_CARDS = 12
EXPERTS = ["appearance", "audio", "speech"]
CURRENT = "document.activeElement.id"


def speakers(number: int) -> Speakers:
    return Speakers([0.5, -0.13, None], [0.75, 0.25, 0.0]) if number % 2 else Speakers([0.1, 2, 1])


def text_ranking(number: int) -> Ranking:
    others = [f"clip{(number + k) % NUM_CARDS:02}" for k in (1, 0, 2)]
    return Ranking(
        f"{number}",
        [f"caption number {number}"],
        others[1],
        1.5 if number == 3 else float(1 + number),
        0.5,
        [Retrieved(video_id, 0.5 - 0.1 * k, speakers(k)) for k, video_id in enumerate(others)],
        speakers(number),
    )


def video_ranking(number: int) -> VideoRanking:
    own = [OwnCaption(f"own {number} {c}", 1.0 + number + 9 * c, 0.4 - 0.1 * c) for c in range(20)]
    found = [RetrievedCaption("another text", "clip00", 0.6, speakers(number))]
    found.append(RetrievedCaption(own[0].text, f"clip{number:02}", 0.4, speakers(1)))
    return VideoRanking(f"clip{number:02}", 1.0 + number, 0.4, own, found)


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Iterator:
    """The pages of two epochs and a test; `clip01` has a thumbnail, `clip02` has no video."""
    root = tmp_path_factory.mktemp("use")
    videos = root / "clips"
    videos.mkdir()
    write_video(videos / "clip00.mp4")
    for number in range(1, NUM_CARDS):
        if number != 2:
            shutil.copy(videos / "clip00.mp4", videos / f"clip{number:02}.mp4")
    picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
    picture.to_image().save(videos / "clip01.png")
    for name, order in (("epoch-1", 1), ("epoch-10", 10), ("index", 99)):
        write(
            root / "web",
            title=f"Demo {name}",
            metrics={"t2v": {"R1": float(order), "MedR": 2.0}, "v2t": {"R1": 3.0}},
            rankings=[text_ranking(number) for number in range(NUM_CARDS)],
            video_rankings=[video_ranking(number) for number in range(NUM_CARDS)],
            ranks={"t2v": [1.0 + n for n in range(NUM_CARDS)], "v2t": [2.0, 200.0]},
            experts=EXPERTS,
            num_videos=NUM_CARDS,
            num_texts=20 * NUM_CARDS,
            video_folder=videos,
            file_name=f"{name}.html",
            name=name.replace("-", " "),
            order=order,
        )
    return root / "web"


@pytest.fixture(scope="module")
def address(web) -> Iterator[str]:
    with serving(web) as address:
        yield address


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_axe_finds_nothing_that_keeps_people_out(page, address, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address)
    page.evaluate("document.querySelectorAll('header details').forEach((d) => (d.open = true))")
    for direction, last in (("text", "#query-3"), ("video", "#video-3")):
        page.get_by_label(direction, exact=True).check(force=True)
        page.locator(last).scroll_into_view_if_needed()
        page.wait_for_selector(f"{last} .experts")
        results = axe.run(page)
        assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_both_directions_have_their_own_cards_counts_and_ranks(page, address):
    page.goto(address)
    count = page.locator("#count")
    assert shown(page) == [f"{number}" for number in range(NUM_CARDS)]
    page.get_by_label("only failures").check()
    assert shown(page) == [f"{number}" for number in range(1, NUM_CARDS)]
    assert count.inner_text() == "11 of 12 queries"
    page.get_by_label("rank from").fill("2")
    page.get_by_label("rank to").fill("3")
    assert shown(page) == ["1", "2", "3"]  # 2, 3, and the tie at 1.5 that is no first place
    assert page.locator("input[name=level]:checked").count() == 0
    page.get_by_label("above 10 (2)").check(force=True)
    assert shown(page) == ["10", "11"]
    assert page.get_by_label("rank from").input_value() == "11"

    page.get_by_label("video", exact=True).check(force=True)
    assert shown(page) == ["clip10", "clip11"]
    page.get_by_label("all (12)").check(force=True)
    page.get_by_label("Sort").select_option(label="rank, worst first")
    assert shown(page)[0] == "clip11"
    page.get_by_label("Sort").select_option(label="id")
    page.get_by_label("Search").fill("17 CLIP07")
    assert shown(page) == ["clip07"]
    own = page.locator("#video-8 .own li")
    assert own.count() == 20 and own.first.text_content().startswith("rank 8 ")
    assert page.locator("#video-8 .is-true .text").text_content() == "own 7 0"


def test_keys_lead_from_query_to_query_and_the_address_follows(page, address):
    page.goto(address)
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate(CURRENT) == "query-2" and page.evaluate("location.hash") == "#query-2"
    assert (
        page.locator("#query-2").bounding_box()["y"]
        >= page.locator(".tools").bounding_box()["height"]
    )
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert page.evaluate(CURRENT) == "query-1" and page.evaluate("location.hash") == "#query-1"
    page.keyboard.press("Space")
    page.wait_for_function(
        "() => document.querySelector('#query-1 .truth video')?.currentTime > 0.1"
    )
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('#query-1 .truth video').paused")
    page.keyboard.press("1")
    page.wait_for_function(
        "() => document.querySelector('#query-1 .videos li:nth-child(1) video')?.currentTime > 0.1"
    )
    page.keyboard.press("/")
    page.keyboard.type("jk1 /")
    assert page.get_by_label("Search").input_value() == "jk1 /"
    page.get_by_label("Search").fill("")
    page.get_by_text("How to read this page").click()
    page.get_by_label("use these keys").uncheck()
    page.keyboard.press("j")
    assert page.evaluate("location.hash") == "#query-1"


def test_a_link_leads_to_its_query_whatever_is_shown(page, address):
    page.goto(f"{address}/index.html#video-3")
    assert page.evaluate(CURRENT) == "video-3"
    assert shown(page)[0] == "clip00" and page.locator("#queries").is_hidden()
    page.get_by_label("text", exact=True).check(force=True)
    page.get_by_label("Search").fill("nothing like this")
    page.locator("#nothing").wait_for()
    page.evaluate("location.hash = '#query-5'")
    page.wait_for_function("() => document.activeElement.id === 'query-5'")
    assert page.locator("#query-5").is_visible() and len(shown(page)) == NUM_CARDS
    link = page.locator("#query-5 h3 a")
    assert link.get_attribute("href") == "#query-5"
    page.goto(f"{address}/index.html#nowhere")
    assert len(shown(page)) == NUM_CARDS


def test_the_experts_of_a_match_are_bars_with_words(page, address):
    page.goto(address)
    page.wait_for_selector("#query-2 .truth .experts")
    lines = page.locator("#query-2 .truth .experts li")
    assert [" ".join(text.split()) for text in lines.all_text_contents()] == [
        "appearance weight 0.75 similarity 0.50",
        "audio weight 0.25 similarity −0.13",
        "speech missing",
    ]
    assert lines.nth(2).get_attribute("title") == "speech: missing"
    bars = "rects => rects.map((r) => [r.getAttribute('class'), Number(r.getAttribute('width'))])"
    widths = page.locator("#query-2 .truth .experts rect").evaluate_all(bars)
    assert widths == [["weight", 75], ["says", 50], ["weight", 25], ["says", 0]]
    without = page.locator("#query-1 .truth .experts li").first
    assert " ".join(without.text_content().split()) == "appearance similarity 0.10"
    page.locator("#experts").uncheck()
    assert lines.first.is_hidden()
    assert page.locator("#query-12 .experts").count() == 0, "made only near the window"


def test_the_pages_of_a_run_are_listed_and_keep_the_query(page, address):
    page.goto(f"{address}/index.html#query-4")
    links = page.locator("#evaluations a")
    assert links.all_inner_texts() == [
        "epoch 1\nR@1 1.0, MedR 2.0",
        "epoch 10\nR@1 10.0, MedR 2.0",
        "index\nR@1 99.0, MedR 2.0",
    ]
    assert page.locator("[aria-current=page]").inner_text().startswith("index")
    links.nth(1).click()
    page.wait_for_url("**/epoch-10.html#query-4")
    assert page.title() == "Demo epoch-10"
    assert page.locator("[aria-current=page]").inner_text().startswith("epoch 10")


def test_the_list_of_pages_works_from_the_file_system(page, web):
    page.goto((web / "epoch-1.html").as_uri())
    assert page.locator("#evaluations a").count() == 3
    page.locator("#evaluations a").last.click()
    page.wait_for_url("**/index.html")
    page.wait_for_selector("#query-1 .experts")
    page.keyboard.press("j")
    assert page.evaluate("location.hash") == "#query-1"
    assert page.evaluate("violations") == []


def test_thumbnails_stand_for_videos_until_they_play(page, address):
    asked = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1]))
    page.goto(f"{address}/#query-2")
    video = page.locator("#query-2 .truth video")
    video.wait_for()
    assert video.evaluate("v => v.poster").endswith("clip01.png")
    page.wait_for_function(
        "() => document.querySelector('#query-2 li:nth-child(3) video')?.readyState >= 1"
    )
    assert "clip01.png" in asked and "clip01.mp4" not in asked
    page.keyboard.press("Space")
    page.wait_for_function(
        "() => document.querySelector('#query-2 .truth video').currentTime > 0.1"
    )
    assert page.locator("#query-3 .truth .no-media").text_content() == "no video"


def test_a_video_can_be_sought_through(page, address):
    page.goto(address)
    page.wait_for_function("() => document.querySelector('#query-1 video')?.readyState >= 1")
    at = page.evaluate(
        "() => new Promise((done) => { const v = document.querySelector('#query-1 video');"
        " v.addEventListener('seeked', () => done(v.currentTime)); v.currentTime = 0.7; })"
    )
    assert at == pytest.approx(0.7, abs=0.05)


def test_a_thousand_queries_open_at_once(page, tmp_path):
    path = write(
        tmp_path,
        title="Many",
        metrics={},
        rankings=[text_ranking(number) for number in range(1000)],
        video_rankings=[video_ranking(number) for number in range(100)],
        experts=EXPERTS,
        num_videos=1000,
        video_folder=None,
    )
    page.goto(path.as_uri())
    assert len(shown(page)) == 1000
    page.wait_for_selector("#query-1 .experts")
    made = page.locator(".card:has(.experts)").count()
    assert 1 <= made <= 12, "only cards near the window have bars"
    page.get_by_label("Search").fill("number 987")
    assert shown(page) == ["987"]
    page.get_by_label("Search").fill("")
    page.get_by_label("Sort").select_option(label="rank, worst first")
    assert shown(page)[:2] == ["999", "998"]
    page.goto(f"{path.as_uri()}#query-800")
    page.wait_for_selector("#query-800 .experts")
    assert -1 <= page.locator("#query-800").bounding_box()["y"] <= 400
    entries = json.loads((tmp_path / "pages.js").read_text().split(" = ")[1][:-2])
    assert len(entries) == 1 and page.locator("#evaluations").is_hidden()
