"""The rankings page in a real browser: videos play, search works, hostile data stay text."""

import shutil
from collections.abc import Iterator

import pytest

from logger.page.data import (
    OwnCaption,
    Ranking,
    Retrieved,
    RetrievedCaption,
    Speakers,
    VideoRanking,
)
from logger.page.page import SCRIPTS
from tests.rankings_html import write
from tests.rankings_site import serving, shown, write_video

NUM_CARDS = 40
HOSTILE = "</script><img src=x onerror=\"window.hacked=1;alert('gotcha')\"> \"'& 🎉 שלום"
HOSTILE_ID = 'v"><script>window.hacked=1</script>'


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """Serves `index.html` (40 queries with videos) and `hostile.html`."""
    root = tmp_path_factory.mktemp("rankings")
    videos, web = root / "video files", root / "web"
    videos.mkdir()
    write_video(videos / "clip #0.mp4")
    for number in range(1, NUM_CARDS):
        shutil.copy(videos / "clip #0.mp4", videos / f"clip #{number}.mp4")
    (videos / "broken.mp4").write_bytes(b"no video")

    def ranking(number: int) -> Ranking:
        others = [f"clip #{(number + k) % NUM_CARDS}" for k in range(3)]
        return Ranking(
            f"query-{number}",
            [f"caption number {number} about {'Cats' if number % 4 == 0 else 'dogs'}"],
            others[0],
            float(1 + number),
            1 - (number * 7 % NUM_CARDS) / NUM_CARDS,
            [Retrieved(video_id, 0.5) for video_id in others],
        )

    common = {"metrics": {"t2v": {"R1": 10.0}}, "num_videos": NUM_CARDS, "video_folder": videos}
    rankings = [ranking(number) for number in range(NUM_CARDS)]
    write(web, title="Demo", rankings=rankings, **common)
    hostile = [
        Ranking(HOSTILE_ID, [HOSTILE], HOSTILE_ID, 1.0, 0.5, [Retrieved("../" + HOSTILE, 0.1)]),
        Ranking("x" * 2000, ["y" * 2000, "word " * 400], "broken", 2.5, 0.5, []),
    ]
    write(
        web,
        title=HOSTILE,
        rankings=hostile,
        video_rankings=[
            VideoRanking(
                HOSTILE_ID,
                1.0,
                0.5,
                [OwnCaption(HOSTILE, 1.0, 0.5), OwnCaption("y" * 2000, 2.0, 0.1)],
                [RetrievedCaption(HOSTILE, HOSTILE_ID, 0.5, Speakers([0.5], [1.0]))],
            )
        ],
        experts=[HOSTILE],
        ranks={"t2v": [1.0, 2.5]},
        name=HOSTILE,
        captions_of={"../" + HOSTILE: [HOSTILE]},
        file_name="hostile.html",
        **common,
    )
    with serving(web) as address:
        yield address


def test_a_video_plays_under_the_mouse_and_by_keyboard(page, address):
    page.goto(address)
    assert page.title() == "Demo"
    videos = page.locator("#query-1 video")
    videos.first.hover()
    assert videos.first.evaluate("v => v.muted && v.loop && v.controls")
    page.wait_for_function(
        "() => { const v = document.querySelector('#query-1 video');"
        " return !v.paused && v.currentTime > 0.2 && v.videoWidth === 64; }"
    )
    page.mouse.move(0, 0)
    page.wait_for_function("() => document.querySelector('#query-1 video').paused")
    videos.nth(1).focus()
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelectorAll('#query-1 video')[1].currentTime > 0.2")
    assert page.evaluate("violations") == []


def test_videos_exist_only_near_the_window(page, address):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#query-1 video")
    assert page.locator("#query-1 video").count() == 3
    last = f"#query-{NUM_CARDS}"
    assert page.locator(f"{last} video").count() == 0
    assert not any("clip%20%2320.mp4" in url for url in asked)
    page.locator(last).scroll_into_view_if_needed()
    page.wait_for_selector(f"{last} video")
    page.wait_for_selector("#query-1 a.play", state="attached")
    assert page.locator("#query-1 video").count() == 0
    assert {url.split("/")[2] for url in asked} == {address.removeprefix("http://")}


def test_search_filter_and_sort(page, address):
    page.goto(address)
    everything = [f"query-{number}" for number in range(NUM_CARDS)]
    cats = [f"query-{number}" for number in range(0, NUM_CARDS, 4)]
    count, search = page.locator("#count"), page.get_by_label("Filter")
    assert shown(page) == everything and count.inner_text() == "40 queries"
    search.fill("  CATS caption ")
    assert shown(page) == cats and count.inner_text() == "10 of 40 queries"
    page.get_by_label("2–10").check(force=True)
    assert shown(page) == ["query-4", "query-8"]
    page.keyboard.press("ArrowRight")
    assert shown(page) == cats[3:]
    page.get_by_label("all (40)").check(force=True)
    for typed, found in [("clip #17", "query-17"), ("query-23", "query-23")]:
        search.fill(typed)
        assert shown(page) == [found]
    search.fill("no such words")
    assert shown(page) == [] and page.locator("#nothing").is_visible()
    search.fill("")
    assert not page.locator("#nothing").is_visible()

    by_similarity = sorted(range(NUM_CARDS), key=lambda number: number * 7 % NUM_CARDS)
    sort = page.get_by_label("Sort")
    sort.select_option(label="rank, worst first")
    assert shown(page) == everything[::-1]
    sort.select_option(label="similarity, highest first")
    assert shown(page) == [f"query-{number}" for number in by_similarity]
    sort.select_option(label="by number")
    assert shown(page) == everything


@pytest.mark.parametrize("width", [1200, 390])
def test_hostile_data_stay_text_and_the_layout_holds(page, address, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{address}/hostile.html")
    page.locator("#query-2").scroll_into_view_if_needed()
    page.wait_for_selector("#query-2 .no-media >> text=this video cannot be played")
    assert page.title() == HOSTILE
    texts = page.locator("#query-1 .text").all_text_contents()
    assert texts == [HOSTILE, HOSTILE]
    assert page.locator("bdi").first.text_content() == HOSTILE_ID
    assert page.evaluate("[document.images.length, document.scripts.length]") == [
        0,
        1 + len(SCRIPTS),
    ]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("violations") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    page.evaluate("document.querySelector('.tools').open = true")
    page.get_by_label("video", exact=True).check(force=True)
    page.wait_for_selector("#video-1 .experts")
    texts = page.locator("#video-1 .text").all_text_contents()
    assert texts == [HOSTILE, "y" * 2000, HOSTILE]
    assert page.locator("#video-1 .experts .name").all_text_contents() == [HOSTILE]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("text", exact=True).check(force=True)

    # A long caption shows its first lines until it is opened.
    long = page.locator("#query-2 .long").first
    before = long.bounding_box()["height"]
    long.locator("summary").press("Enter")
    assert long.bounding_box()["height"] > 2 * before
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_policy_is_in_force(page, address):
    page.goto(address)
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        " document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; }"
    )
    page.wait_for_function("() => violations.length === 2")
    assert page.evaluate("window.hacked") is None
    assert len(page.complaints) == 2
    page.complaints.clear()


def test_without_scripts_every_card_is_there_and_videos_are_links(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert len(shown(page)) == NUM_CARDS
    assert not page.locator(".tools").is_visible()
    link = page.locator("#query-8 a.play").first
    assert link.get_attribute("href") == "videos/clip%20%237.mp4"
    assert link.is_visible()
    context.close()


def test_the_page_opens_from_the_file_system(page, tmp_path):
    write_video(tmp_path / "a.mp4")
    one = Ranking("q", ["a caption"], "a", 1.0, 0.5, [Retrieved("a", 0.5)])
    path = write(
        tmp_path / "web",
        title="Demo",
        metrics={},
        rankings=[one],
        video_folder=tmp_path,
        num_videos=1,
    )
    page.goto(path.as_uri())
    page.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
    assert page.locator(".tools").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") != "0px"
