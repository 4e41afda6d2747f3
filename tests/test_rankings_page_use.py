"""Using the rankings page in a real browser: directions, keys, links, experts, many queries."""

import json
import shutil
from collections.abc import Iterator

import av
import numpy as np
import pytest

from logger.page.data import (
    Misled,
    OwnCaption,
    Ranking,
    Retrieved,
    RetrievedCaption,
    Speakers,
    VideoRanking,
)
from tests.rankings_html import everything, write
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
    page.evaluate("document.querySelector('.tools').open = true")
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
    page.get_by_label("2+ (11)").check(force=True)
    assert shown(page) == [f"{number}" for number in range(1, NUM_CARDS)]
    assert count.inner_text() == "11 of 12 queries"
    page.get_by_label("rank from").fill("2")
    page.get_by_label("rank to").fill("3")
    assert shown(page) == ["1", "2", "3"]  # 2, 3, and the tie at 1.5 that is no first place
    assert page.locator("input[name=level]:checked").count() == 0
    page.get_by_label("11+ (2)").check(force=True)
    assert shown(page) == ["10", "11"]
    assert page.get_by_label("rank from").input_value() == "11"

    page.get_by_label("video", exact=True).check(force=True)
    assert shown(page) == ["clip10", "clip11"]
    page.get_by_label("all (12)").check(force=True)
    page.get_by_label("Sort").select_option(label="rank, worst first")
    assert shown(page)[0] == "clip11"
    page.get_by_label("Sort").select_option(label="id")
    page.get_by_label("Filter").fill("17 CLIP07")
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
        "() => document.querySelector('#query-1 .is-true video')?.currentTime > 0.1"
    )
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('#query-1 .is-true video').paused")
    page.keyboard.press("1")
    page.wait_for_function(
        "() => document.querySelector('#query-1 .videos li:nth-child(1) video')?.currentTime > 0.1"
    )
    page.keyboard.press("/")
    page.keyboard.type("jk1 /")
    assert page.get_by_label("Filter").input_value() == "jk1 /"
    page.get_by_label("Filter").fill("")
    page.locator("#query-1 h3 a").focus()
    page.keyboard.press("?")
    page.get_by_label("use these keys").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("j")
    assert page.evaluate("location.hash") == "#query-1"


def test_a_link_leads_to_its_query_whatever_is_shown(page, address):
    page.goto(f"{address}/index.html#video-3")
    assert page.evaluate(CURRENT) == "video-3"
    assert shown(page)[0] == "clip00" and page.locator("#queries").is_hidden()
    page.get_by_label("text", exact=True).check(force=True)
    page.get_by_label("Filter").fill("nothing like this")
    page.locator("#nothing").wait_for()
    page.evaluate("location.hash = '#query-5'")
    page.wait_for_function("() => document.activeElement.id === 'query-5'")
    assert page.locator("#query-5").is_visible() and len(shown(page)) == NUM_CARDS
    link = page.locator("#query-5 h3 a")
    assert link.get_attribute("href") == "#query-5"
    page.goto(f"{address}/index.html#nowhere")
    assert len(shown(page)) == NUM_CARDS


def test_the_experts_of_a_match_are_a_stacked_bar_with_words(page, address):
    page.goto(address)
    page.wait_for_selector("#query-2 .is-true .experts")
    lines = page.locator("#query-2 .is-true .experts li")
    assert [" ".join(text.split()) for text in lines.all_text_contents()] == [
        "appearance 0.375 (weight 0.750 times similarity 0.500)",
        "audio −0.032 (weight 0.250 times similarity −0.130)",
        "without speech",
    ]
    # All of a card have one scale: the longest bar ends at 100, zero stands where it does in each.
    assert page.locator("#query-2 .retrieved .tile").count() == 3
    bars = page.locator("#query-2 .stack").evaluate_all(
        "(all) => all.map((bar) => [...bar.querySelectorAll('rect')].map((r) => "
        "['x', 'width'].map((name) => Number(r.getAttribute(name)))))"
    )
    zeros = page.locator("#query-2 .zero").evaluate_all("all => all.map((z) => z.x1.baseVal.value)")
    whole = 0.1 + 2 + 1 + 0.25 * 0.13  # the most that is added, and the most that is taken away
    zero = 100 * 0.25 * 0.13 / whole
    assert zeros == pytest.approx([zero] * 3, rel=1e-4)
    assert bars[1] == [
        pytest.approx([zero, 100 * 0.375 / whole], rel=1e-4),
        pytest.approx([0, zero], abs=1e-6),
    ]
    assert sum(bars[0][-1]) == pytest.approx(100)
    assert page.locator("#query-1 .experts li").nth(1).text_content() == "audio 2.000"
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
    video = page.locator("#query-2 .is-true video")
    video.wait_for()
    assert video.evaluate("v => v.poster").endswith("clip01.png")
    page.wait_for_function(
        "() => document.querySelector('#query-2 li:nth-child(3) video')?.readyState >= 1"
    )
    assert "clip01.png" in asked and "clip01.mp4" not in asked
    page.keyboard.press("Space")
    page.wait_for_function(
        "() => document.querySelector('#query-2 .is-true video').currentTime > 0.1"
    )
    assert page.locator("#query-3 .is-true .no-media").text_content() == "no video"


def test_a_video_can_be_sought_through(page, address):
    page.goto(address)
    page.wait_for_function(
        "() => document.querySelector('#query-1 .is-true video')?.readyState >= 1"
    )
    at = page.evaluate(
        "() => new Promise((done) => { const v = document.querySelector('#query-1 .is-true video');"
        " v.addEventListener('seeked', () => done(v.currentTime)); v.currentTime = 0.7; })"
    )
    assert at == pytest.approx(0.7, abs=0.05)


def test_ten_thousand_queries_are_there_at_once(page, tmp_path):
    every = [
        Ranking(
            *(f"{n}", [f"caption number {n}"], f"v{n % 500}", float(1 + n), 0.5),
            [Retrieved(f"v{(n + k) % 500}", 0.5) for k in range(5)],
            number=n + 1,
        )
        for n in range(10_000)
    ]
    path = write(
        tmp_path,
        title="Many",
        metrics={},
        rankings=every[:1000],
        experts=EXPERTS,
        every=everything(every),
        num_videos=500,
        num_texts=10_000,
    )
    page.goto(path.as_uri())
    cards = page.locator("#queries .card")
    assert cards.count() == 1000
    page.get_by_label("Filter").fill("number 987")
    wait_for_ids(page, ["query-988"])
    page.get_by_role("button", name="Show all 10000 queries").click()
    page.wait_for_function("() => document.querySelectorAll('#queries .card').length === 20")
    page.get_by_label("Filter").fill("")
    page.get_by_label("Sort").select_option(label="rank, worst first")
    page.wait_for_selector("#query-10000")
    assert cards.count() < 100, "only those near the window are made"
    page.goto(f"{path.as_uri()}#query-8000")
    page.wait_for_function("() => document.activeElement.id === 'query-8000'")
    assert -1 <= page.locator("#query-8000").bounding_box()["y"] <= 400
    entries = json.loads((tmp_path / "pages.js").read_text().split(" = ")[1][:-2])
    assert len(entries) == 1 and page.locator("#evaluations").is_hidden()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Iterator[str]:
    """A page with a sample of 3 of 500 queries, and the same page with all of them drawn."""
    root = tmp_path_factory.mktemp("whole")
    videos = root / "clips"
    videos.mkdir()
    for name in ("v1.mp4", "v2.webm", "v2.png", "v3.avi"):
        (videos / name).write_bytes(b"no video")
    rankings, video_rankings = [], []
    for n in range(500):
        texts = [f"caption <b>{n}</b>"] if n != 4 else [f"{c} " + "long " * 60 for c in range(5)]
        found = [n + 1, n + 2, n if n % 3 else n + 3]
        rankings.append(
            Ranking(
                query_id="?",
                captions=texts if n != 77 else ["caption <b>0</b>"],
                video_id=f"v{n}",
                rank=1.0 + n / 2,
                similarity=0.25,
                retrieved=[
                    Retrieved(f"v{place % 500}", 0.5 - 0.3 * k, speakers(k))
                    for k, place in enumerate(found)
                ],
                speakers=speakers(n),
                misled=Misled(n % 3, 1.5) if n % 5 == 1 else None,
                number=n + 1,
            )
        )
        own_text = "\n".join(rankings[n].captions)
        own = [OwnCaption(own_text, 1.0 + n, 0.4, n + 1)] * (1 if n != 3 else 7)
        retrieved = [
            RetrievedCaption("\n".join(rankings[k].captions), f"v{k}", 0.4, speakers(k), k + 1)
            for k in {0, n // 2}
        ]
        video_rankings.append(VideoRanking(f"v{n}", 1.0 + n, 0.4, own, retrieved, n + 1))
    values = {
        "title": "All",
        "metrics": {},
        "experts": EXPERTS,
        "num_videos": 500,
        "num_texts": 500,
        "ranks": {"t2v": [r.rank for r in rankings]},
        "captions_of": {r.video_id: r.captions for r in rankings},
        "video_folder": videos,
    }
    for name, drawn in (("index", slice(10, 13)), ("drawn", slice(0, 120))):
        write(
            root / "web",
            rankings=rankings[drawn],
            video_rankings=video_rankings[drawn],
            every=everything(rankings, video_rankings),
            file_name=f"{name}.html",
            **values,
        )
    with serving(root / "web") as address:
        yield address


# What scripts add near the window is no part of a card, and whitespace between elements is none.
_CARDS = """() => [...document.querySelectorAll('.cards:not([hidden]) .card')].map((card) => {
  const copy = card.cloneNode(true);
  copy.querySelectorAll('.experts, .stack').forEach((made) => made.remove());
  copy.querySelectorAll('[tabindex]').forEach((made) => made.removeAttribute('tabindex'));
  copy.removeAttribute('aria-current');
  copy.dataset.rank = Number(copy.dataset.rank);
  const words = copy.innerHTML.replace(/>\\s+/g, '>').replace(/\\s+</g, '<');
  return [copy.id, JSON.stringify(copy.dataset), words.replace(/\\s+/g, ' ')];
})"""


@pytest.mark.parametrize("kind", ["query", "video"])
def test_cards_that_are_loaded_are_those_that_would_have_been_drawn(page, whole, kind):
    page.route("**/*.js", lambda route: route.abort())
    page.goto(f"{whole}/drawn.html")
    page.complaints.clear()
    name = "queries" if kind == "query" else "videos"
    drawn = page.evaluate(_CARDS.replace(".cards:not([hidden])", f"#{name}"))
    page.unroute("**/*.js")
    page.route("**/videos.js", lambda route: route.abort())
    page.goto(f"{whole}/index.html?scope=all&kind={kind}")
    page.complaints.clear()
    for count in (40, 80, 120):
        cards = "document.querySelectorAll('.cards:not([hidden]) .card').length"
        page.wait_for_function(f"() => {cards} >= {count}")
        page.evaluate("document.getElementById('further').click()")
    loaded = page.evaluate(_CARDS)
    for one, other in zip(drawn, loaded, strict=False):
        assert one == other


def test_filters_live_in_the_address_and_the_heading_says_them(page, whole):
    heading, count = page.locator("#queries-title"), page.locator("#count")
    page.goto(f"{whole}/")
    assert heading.inner_text() == "Text to video"
    assert count.inner_text() == "3 queries of a sample"
    page.get_by_role("button", name="Show all 500 queries").click()
    page.wait_for_function("() => document.getElementById('count').textContent === '500 queries'")
    page.get_by_label("rank from").fill("200")
    page.get_by_label("Sort").select_option(label="rank, worst first")
    page.get_by_label("Filter").fill("caption 49")
    page.wait_for_function("() => location.search.includes('find')")
    assert heading.inner_text() == ("Text to video: rank above 199, with “caption 49”, worst first")
    assert count.inner_text() == "11 of 500 queries"
    assert page.locator(".card").first.get_attribute("id") == "query-500"
    before = page.locator(".cards:not([hidden]) .card").evaluate_all("all => all.map((c) => c.id)")
    page.goto(page.url)
    page.wait_for_function("() => document.querySelectorAll('#queries .card').length === 11")
    assert page.locator("#queries .card").evaluate_all("all => all.map((c) => c.id)") == before
    assert page.get_by_label("Filter").input_value() == "caption 49"
    assert page.get_by_label("rank from").input_value() == "200"
    page.get_by_role("button", name="Clear").click()
    assert page.evaluate("location.search") == "?sort=rank-down&scope=all"
    assert (
        count.inner_text() == "500 queries" and page.get_by_role("button", name="Clear").is_hidden()
    )
    page.get_by_role("button", name="Show the sample of 3").click()
    wait_for_ids(page, ["query-13", "query-12", "query-11"])


def wait_for_ids(page, ids: list[str]) -> None:
    """Cards of queries that are loaded come a moment after what asks for them."""
    found = "[...document.querySelectorAll('.cards:not([hidden]) .card')].map((card) => card.id)"
    page.wait_for_function(f"(ids) => JSON.stringify({found}) === JSON.stringify(ids)", arg=ids)


def test_lines_of_charts_and_failures_lead_to_their_queries_and_back(page, whole):
    page.goto(f"{whole}/")
    page.get_by_text("Charts").click()
    page.get_by_role("link", name="2 to 5").first.click()
    count = page.locator("#count")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('9 of')")
    assert page.locator("#queries-title").inner_text() == "Text to video: rank 2 to 5"
    page.get_by_text("Failures").click()
    page.locator(".failures").get_by_role("link", name="audio").first.click()
    assert page.locator("#queries-title").inner_text() == "Text to video: misled by audio"
    assert "34 of 500" in count.inner_text()
    misled = "Misled by audio: without it, the true video would have rank 1.5."
    page.locator("#queries .remark").first.get_by_text(misled, exact=True).wait_for()
    page.locator(".failures").get_by_role("link", name="near-duplicates").click()
    wait_for_ids(page, ["query-1", "query-78"])
    twin = "Near-duplicate of a caption of v77."
    page.locator("#query-1 .remark").get_by_text(twin, exact=True).wait_for()
    page.locator(".failures").get_by_role("link", name="v6", exact=True).click()
    wait_for_ids(page, ["query-4", "query-5", "query-6"])
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('#queries .card').length === 2")
    page.goto(f"{whole}/?hub=v4")  # not the query for which it is right
    page.wait_for_function("() => document.querySelectorAll('#queries .card').length === 2")
    wait_for_ids(page, ["query-3", "query-4"])
    page.evaluate("location.search = '?rank=x&sort=no&misled=nobody&kind=9&__proto__=1'")
    page.wait_for_function(
        "() => document.getElementById('count')?.textContent === '0 of 500 queries'"
    )
    assert page.locator("#nothing").is_visible()


def test_a_query_beyond_the_sample_is_loaded_for_the_address_that_names_it(page, whole):
    page.goto(f"{whole}/#query-400")
    page.wait_for_function("() => document.activeElement.id === 'query-400'")
    assert page.evaluate("location.search") == "?scope=all"
    assert 0 <= page.locator("#query-400").bounding_box()["y"] < 300
    page.get_by_role("button", name="Show earlier ones").click()
    page.wait_for_function("() => document.querySelector('#queries .card').id === 'query-360'")
    page.goto(f"{whole}/?find=nothing#video-300")
    page.wait_for_function("() => document.activeElement.id === 'video-300'")


def test_what_cannot_be_loaded_is_said_and_the_sample_stays(page, whole):
    page.route("**/index.js", lambda route: route.abort())
    page.goto(f"{whole}/?scope=all&misled=audio#query-0")
    page.wait_for_function("() => /cannot be loaded/.test(document.body.textContent)")
    wait_for_ids(page, ["query-11", "query-12", "query-13"])
    page.unroute("**/index.js")
    page.route("**/query-1.js", lambda route: route.abort())
    page.get_by_role("button", name="Show all 500 queries").click()
    page.wait_for_selector("#query-40")
    page.goto(f"{whole}/#query-300")
    page.wait_for_function("() => /query-1.js cannot be loaded/.test(document.body.textContent)")
    page.complaints.clear()
    page.goto(f"{whole}/#query-999999999")
    page.wait_for_selector("#query-1")


def test_a_card_takes_few_stops_of_the_tabulator_and_arrows_lead_through_its_videos(page, address):
    page.goto(address)
    page.wait_for_selector("#query-2 video")
    page.locator("#query-1 h3 a").focus()
    stops = []
    while len(stops) < 20 and not page.evaluate("!!document.activeElement.closest('#query-2')"):
        stops.append(page.evaluate("document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert stops == ["A", "VIDEO"]
    page.keyboard.press("Shift+Tab")
    at = "document.activeElement.closest('li').querySelector('.place').textContent"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # the third has no video
    assert page.evaluate(at).endswith("2")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(at).endswith("1")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.currentTime > 0")
    assert page.evaluate("document.activeElement.tabIndex") == 0


def test_on_a_phone_pictures_are_clear_until_a_finger_starts_them(browser, address):
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(address)
    video = page.locator("#query-1 video").first
    video.wait_for()
    assert video.bounding_box()["y"] + 100 < 844, "the first result shows on the first screen"
    assert not video.evaluate("v => v.controls")
    assert page.locator("#search").is_hidden()
    video.tap()
    page.wait_for_function("() => document.querySelector('#query-1 video').currentTime > 0")
    assert video.evaluate("v => v.controls")
    page.get_by_text("Filter and sort").tap()
    assert page.locator("#search").is_visible()
    context.close()
