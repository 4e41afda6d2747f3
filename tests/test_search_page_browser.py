"""The search page in a real browser: one types a sentence and the videos play."""

import shutil
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from misc.search.page import serve
from misc.search.page.serve import make_search_server
from tests.rankings_site import write_video
from tests.search_site import WordSearcher

THINGS = ("red balloon", "blue bird", "tall tree", "loud bell", "small boat", "old train", "kite")
CAPTIONS = {f"clip{place}": f"a {thing} over the hill" for place, thing in enumerate(THINGS)}
HOSTILE = "</script><img src=x onerror=\"window.hacked=1;alert('gotcha')\"> \"'& 🎉 שלום"
IDS = "[...document.querySelectorAll('.hit')].map((hit) => hit.dataset.id)"
PLAYING = "[...document.querySelectorAll('.hit video')].filter((v) => !v.paused && v.muted)"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory) -> WordSearcher:
    """Seven videos: `clip5` cannot be played, `clip6` is broken; a hostile one is like no other."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "clip0.mp4")
    for place in range(1, 5):
        shutil.copy(folder / "clip0.mp4", folder / f"clip{place}.mp4")
    shutil.copy(folder / "clip0.mp4", folder / "clip5.avi")
    (folder / "clip6.mp4").write_bytes(b"no video")
    paths = {path.stem: path for path in folder.iterdir()}
    captions = CAPTIONS | {HOSTILE: "hostile words"}
    return WordSearcher(captions, paths, {"clip2": (0.3, 0.5)}, takes_files=True)


@pytest.fixture(scope="module")
def address(searcher) -> Iterator[str]:
    with make_search_server(searcher, "127.0.0.1", 0).running() as address:
        yield address


def until(page, expression: str) -> None:
    """Wait until this is so; a function, as the page's policy allows no evaluation of text."""
    page.wait_for_function(f"() => {expression}")


def wait_for_best(page, *best: str) -> None:
    page.wait_for_function(
        f"(best) => ({IDS}).slice(0, best.length).join() === best.join()", arg=[*best]
    )


def test_a_sentence_that_is_typed_finds_videos_which_play_from_the_matching_second(page, address):
    page.goto(address)
    assert page.evaluate("document.activeElement.id") == "q"  # one can begin at once
    page.keyboard.type("a loud bell")
    wait_for_best(page, "clip3")
    until(page, f"{PLAYING}.length === 3")  # the others have no file that plays
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("blue bird")
    wait_for_best(page, "clip1")
    until(page, "document.querySelector('.hit video').currentTime >= 0.4")
    assert page.locator(".hit video").first.get_attribute("src") == "video?id=clip1#t=0.4"
    assert page.evaluate("location.search") == "?q=blue+bird"
    assert page.title().startswith("blue bird")
    assert page.evaluate("violations") == []


def test_a_file_is_asked_by_and_sliders_go_on_from_it(page, address, searcher, monkeypatch):
    monkeypatch.setattr(serve, "experts_of_file", lambda searcher, path, device: [path.read_text()])
    monkeypatch.setattr(searcher, "encode_video", lambda video_id: video_id, raising=False)
    page.goto(address)
    page.set_input_files(
        "input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": b"clip3"}
    )
    page.get_by_role("button", name="Send it").click()
    until(page, f"location.search.startsWith('?file=') && !({IDS}).includes('clip3')")
    page.get_by_role("slider", name="sound", exact=True).fill("0")
    until(page, "location.search.endsWith('weight.sound=0') && document.querySelector('.hit')")
    page.locator("#q").fill("a kite")
    wait_for_best(page, "clip6")
    assert "file=" not in page.url


def test_a_segment_is_played_round_and_round(page, address):
    page.goto(address + "?q=tall+tree")
    page.evaluate(
        "() => { const video = document.querySelector('[data-id=clip2] video'); window.ends = [];"
        " video.addEventListener('seeking', () => ends.push(video.currentTime)); }"
    )
    until(page, "ends.length > 1 && ends.every((end) => end === 0.3)")
    assert page.locator("[data-id=clip2] .from").inner_text() == "from 0:00"


def test_sliders_reorder_at_once_and_videos_go_on(page, address):
    page.goto(address + "?q=red+balloon")
    wait_for_best(page, "clip0")
    until(page, f"{PLAYING}.length > 2")
    page.evaluate(
        "document.querySelectorAll('.hit video').forEach((v) => {"
        " v.kept = 'whole'; v.addEventListener('emptied', () => { v.kept = 'restarted' }); })"
    )
    page.locator("[data-id=clip6] .why summary").click()
    before = page.evaluate(IDS)
    first = page.locator(".hit").first.locator(".why rect[data-expert=scene]")
    width = float(first.get_attribute("width"))
    page.get_by_role("slider", name="scene").focus()
    page.keyboard.press("Home")
    until(page, "location.search.includes('weight.scene=0')")
    wait_for_best(page, "clip6")
    assert page.evaluate(IDS) != before
    kept = page.evaluate("[...document.querySelectorAll('.hit video')].map((v) => v.kept)")
    assert "whole" in kept and "restarted" not in kept
    until(page, f"{PLAYING}.some((v) => v.kept)")
    assert page.locator(".why rect[data-expert=scene]").count() == 0
    page.get_by_role("button", name="as trained").click()
    wait_for_best(page, "clip0")
    assert float(first.get_attribute("width")) == width
    assert page.locator("details.why[open]").count() == 1
    assert page.evaluate("location.search") == "?q=red+balloon"


def test_the_address_holds_the_question_and_the_history_leads_back(page, address):
    page.goto(address)
    page.get_by_role("link", name="a red balloon over the hill").click()
    wait_for_best(page, "clip0")
    page.get_by_role("link", name="more like this: clip0").click()
    until(page, f"!({IDS}).includes('clip0')")
    assert page.evaluate("location.search") == "?like=clip0"
    assert "More like clip0" in page.locator("#told").inner_text()
    page.locator("#q").fill("tall tree")
    wait_for_best(page, "clip2")
    assert page.evaluate("location.search") == "?q=tall+tree"
    page.go_back()
    until(page, "document.querySelector('#told').textContent.includes('More like')")
    page.go_back()
    wait_for_best(page, "clip0")
    assert page.locator("#q").input_value() == "a red balloon over the hill"
    page.go_back()
    page.wait_for_selector("#recent a")
    assert page.locator("#recent a").all_text_contents() == ["a red balloon over the hill"]
    page.get_by_role("button", name="forget").click()
    assert not page.locator("#recent").is_visible()
    page.get_by_role("link", name="Search tiny").click()
    page.goto(address + "?q=kite&k=4")  # not more: of the broken video there is no still
    page.get_by_label("without").fill("kite")
    page.keyboard.press("Enter")
    until(page, f"({IDS}).length === 4 && !({IDS}).includes('clip6')")


def test_keys(page, address):
    page.goto(address + "?q=over+the+hill")
    page.wait_for_selector(".hit")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.id") == "hit-1"
    best = page.evaluate(IDS)
    playable = next(n for n, one in enumerate(best, 1) if one in [f"clip{k}" for k in range(5)])
    video = f"document.querySelector('#hit-{playable} video')"
    until(page, f"!{video}.paused")
    page.keyboard.press(str(playable))
    until(page, f"{video}.paused")
    page.keyboard.press("m")
    until(page, f"location.search === '?like={best[0]}'")
    until(page, f"!({IDS}).includes('{best[0]}')")
    until(page, f"{PLAYING}.length > 0")
    page.keyboard.press("p")
    until(page, f"{PLAYING}.length === 0")
    page.keyboard.press("?")
    assert page.locator("#help").get_attribute("open") is not None
    page.keyboard.press("/")
    page.keyboard.type("jk kite")
    wait_for_best(page, "clip6")
    page.keyboard.press("Escape")
    page.wait_for_selector("#results .examples")
    page.get_by_label("use these keys").uncheck()
    page.locator("h1").click()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") != "q"


@pytest.mark.parametrize("width", [1200, 390])
def test_hostile_questions_and_ids_stay_text_and_the_layout_holds(page, address, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    page.locator("#q").fill(HOSTILE + " hostile words " * 20 + "x" * 500)
    until(page, "document.querySelector('.hit')")
    assert HOSTILE in page.evaluate(IDS)
    assert HOSTILE in page.locator(".hit bdi").all_text_contents()
    page.get_by_role("link", name=f"more like this: {HOSTILE}").click()
    until(page, "document.querySelector('#told').textContent.includes('More like')")
    assert page.title() == f"more like {HOSTILE} – tiny"
    page.locator("#q").fill("?!")
    page.wait_for_selector(".refusal >> text=The query has no words.")
    page.goto(address + "?" + urlencode({"q": HOSTILE, "weight." + HOSTILE: HOSTILE}))
    assert page.locator(".refusal").inner_text().startswith("The index has no expert")
    page.complaints.clear()  # a browser notes the answer 400
    page.goto(address)
    page.get_by_role("link", name=HOSTILE, exact=True).wait_for()  # asked before
    assert page.evaluate("window.hacked") is None and page.evaluate("violations") == []
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_does_not_play_says_so_and_all_but_the_best_wait(page, address):
    page.goto(address + "?q=old+train&k=10")
    # First: once more videos than the best have begun, the first of them are let go of.
    page.wait_for_selector("[data-id=clip6] >> text=this video cannot be played")
    last = page.locator(".hit video[data-poster]").first
    last.scroll_into_view_if_needed()
    until(page, "document.querySelector('.hit video[data-poster]').poster")
    assert last.evaluate("video => fetch(video.poster).then((answer) => answer.status)") == 200
    assert last.evaluate("video => video.paused && video.readyState === 0")
    last.hover()
    until(page, "!document.querySelector('.hit video[data-poster]').paused")
    page.wait_for_selector("[data-id=clip5] >> text=browsers play no .avi")
    page.wait_for_selector("text=no video")


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_axe_finds_nothing_that_keeps_people_out(page, address, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    for search in ("", "?q=blue+bird", "?q=%3F"):
        page.goto(address + search)
        page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        results = axe.run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.complaints.clear()  # a browser notes the answer 400


def test_without_scripts_the_form_asks_and_links_lead_on(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    page.get_by_label("What happens in the video?").fill("loud bell")
    page.get_by_role("button", name="Search").click()
    hit = page.locator(".hit").first
    assert hit.get_attribute("data-id") == "clip3"
    assert hit.locator("video").get_attribute("src") == "video?id=clip3"
    page.get_by_role("link", name="more like this: clip3").click()
    assert page.locator(".hit").count() == 5 and page.url.endswith("?like=clip3")
    page.get_by_role("link", name="show 10").click()
    assert page.locator(".hit").count() == 7
    context.close()


def test_a_server_that_is_gone_is_said(page, searcher):
    server = make_search_server(searcher, "127.0.0.1", 0)
    with server.running() as address:
        page.goto(address)
    page.locator("#q").fill("red balloon")
    page.wait_for_selector("#told >> text=The server does not answer")
    page.complaints.clear()
