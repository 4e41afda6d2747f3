"""The animated picture of the search page, and the page of a real index from the command line."""

import io
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image
from werkzeug.test import Client

from misc.page_server import PageServer, application
from misc.search import __main__ as search
from misc.search.page import picture
from misc.search.page.serve import SearchSite
from misc.search.searcher import Searcher
from tests.rankings_site import write_video
from tests.search_index import make_index
from tests.search_site import WordSearcher
from utils.errors import UserError


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("index"))


def test_the_page_shows_what_the_searcher_finds(index):
    searcher = Searcher.open(index)
    client = Client(application(SearchSite(searcher).answer, any_name=True))
    empty = client.get("/")
    assert empty.status_code == 200 and f"{len(searcher)} videos" in empty.text
    example = searcher.info.examples[0]
    expert = searcher.info.experts[0]
    for question, hits in [
        ({"q": example}, searcher.search(example, 5)),
        ({"like": searcher.video_ids[1]}, searcher.more_like(searcher.video_ids[1], 5)),
        (
            {"q": example, f"weight.{expert}": "0", "not": "a dog"},
            searcher.search(example, 5, weights={expert: 0.0}, without=["a dog"]),
        ),
        (
            {"q": example} | {f"weight.{name}": "0" for name in searcher.info.experts},
            searcher.search(example, 5, weights=dict.fromkeys(searcher.info.experts, 0.0)),
        ),
    ]:
        html = client.get("/?" + urlencode(question)).text
        assert [part.split('"')[0] for part in html.split('data-id="')[1:]] == [
            hit.video_id for hit in hits
        ]
        assert f"{hits[0].score:.3f}".replace("-", "−") in html
    assert client.get("/?like=nobody").status_code == 400


def test_the_command_serves_until_it_is_stopped(index, run, monkeypatch):
    def stop(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", stop)
    code, said = run(search, index, "--serve", "--port", "0")
    assert code == 130 and "The search is at http://127.0.0.1:" in said
    asked = ["red cat", "--not", "dog", "-k", "9", "--experts", "sound=2"]
    code, said = run(search, index, *asked, "--serve", "--port", "0")
    assert code == 130 and "/?q=red+cat&not=dog&weight.sound=2&k=9 (stop with Ctrl-C)" in said
    code, said = run(search, index, "-k", "9", "--serve", "--port", "0")
    assert code == 130 and "/?k=9 (stop" in said
    code, said = run(search, index, "--serve", "--port", "70000")
    assert code == 2 and "0 to 65535" in said
    code, said = run(search, index, "--picture", "page.png")
    assert code == 2 and 'must end in ".webp" or ".gif"' in said


def test_a_picture_moves(tmp_path, monkeypatch):
    pytest.importorskip("playwright.sync_api")
    try:
        picture.find_browser()
    except UserError:
        pytest.skip("no browser is installed")
    monkeypatch.setattr(picture, "SIZE", {"width": 800, "height": 400})
    monkeypatch.setattr(picture, "PLAYED", 1)
    monkeypatch.setattr(picture, "HELD", 1)
    monkeypatch.setattr(picture, "FACTORS", [1, 3])
    write_video(tmp_path / "clip.mp4")
    captions = {"clip": "a red bell", "other": "a tree"}
    searcher = WordSearcher(captions, dict.fromkeys(captions, tmp_path / "clip.mp4"))
    path = tmp_path / "made" / "page.webp"
    picture.take_picture(searcher, path)
    with Image.open(path) as image:
        assert image.n_frames > 5
    assert path.stat().st_size <= picture.LARGEST


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_a_picture_keeps_to_its_limit(monkeypatch, kind):
    noise = np.random.default_rng(0).integers(0, 255, (4, 90, 120, 3), dtype=np.uint8)
    frames = [Image.fromarray(frame) for frame in noise]
    largest = len(picture.animated(frames, kind))
    monkeypatch.setattr(picture, "LARGEST", largest - 1)
    data = picture.animated(frames, kind)
    assert len(data) < largest
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 4
