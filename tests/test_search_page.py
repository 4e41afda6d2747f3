"""The search page as an answer to requests: what is asked, what is refused, what is served."""

import io
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from werkzeug.test import Client

from logger.page.search import LONGEST, Asked, bar
from misc.page_server import application
from misc.search.page import serve
from misc.search.page.serve import SearchSite, make_search_server, read_asked
from misc.search.page.stills import still
from tests.rankings_site import write_video
from tests.search_site import EXPERTS, WordSearcher
from utils.errors import UserError

CAPTIONS = {f"clip{place}": f"a {word} thing" for place, word in enumerate(("red", "blue", "tall"))}
HOSTILE = '</script><img src=x onerror="alert(1)"> "\'& 🎉 שלום'


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    for name in ("clip0.mp4", "clip0.jpg", "clip1.avi", "secret.txt"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture(scope="module")
def searcher(folder) -> WordSearcher:
    files = {"clip0": "clip0.mp4", "clip1": "clip1.avi", "clip2": "secret.txt"}
    return WordSearcher(CAPTIONS, {video_id: folder / name for video_id, name in files.items()})


@pytest.fixture(scope="module")
def client(searcher) -> Client:
    return Client(application(SearchSite(searcher).answer, any_name=True))


def page_of(client: Client, **arguments: str) -> tuple[int, str]:
    answer = client.get("/?" + urlencode(arguments))
    return answer.status_code, answer.text


def ids(html: str) -> list[str]:
    return [unescape(part.split('"')[0]) for part in html.split('data-id="')[1:]]


def test_a_sentence_finds_its_video_and_weights_and_words_change_the_order(client):
    status, html = page_of(client, q="a blue thing")
    assert status == 200 and ids(html) == ["clip1", "clip2", "clip0"]
    assert "<title>a blue thing – tiny</title>" in html
    assert 'value="a blue thing"' in html and "more like this" in html
    moved = page_of(client, q="a blue thing", **{"weight.scene": "0"})[1]
    assert ids(moved) == ["clip2", "clip1", "clip0"]
    assert ids(page_of(client, **{"q": "a blue thing", "not": "blue"})[1])[-1] == "clip1"
    assert ids(page_of(client, like="clip0")[1]) == ["clip2", "clip1"]
    assert ids(page_of(client, q="thing", k="1")[1]) == ["clip2"]


def test_without_a_question_there_are_examples(client, searcher):
    status, html = page_of(client)
    assert status == 200 and ids(html) == []
    for caption in CAPTIONS.values():
        assert f'href="?{urlencode({"q": caption})}"' in html
    alone = WordSearcher(CAPTIONS, examples=(), has_weights=False)
    html = Client(application(SearchSite(alone).answer, any_name=True)).get("/").text
    assert 'href="?like=clip2"' in html and "range" not in html


def test_files_are_found_by_the_ids_of_the_index_alone(client, folder):
    assert client.get("/video?id=clip0").data == b"clip0.mp4"
    assert client.get("/video?id=clip0", headers={"Range": "bytes=5-"}).status_code == 206
    assert client.get("/still?id=clip0").content_type == "image/jpeg"
    assert client.get("/video?id=clip1").data == b"clip1.avi"
    assert client.get("/still?id=clip1&second=1").status_code == 404  # nothing comes out of it
    assert client.get("/search.css").status_code == client.get("/style.css").status_code == 200
    for address in [
        *("/video", "/video?id=", "/video?id=clip2", "/video?id=clip9", "/still?id=clip1"),
        f"/video?id={quote(str(folder / 'clip0.mp4'))}",
        *("/video?id=../clip0", "/video?id=clip0.mp4", "/video?id=%00", "/video/clip0"),
        *("/search.html", "/rankings.html", "/../page.py", "/%2e%2e/page.py", "/search.css/", "/x"),
    ]:
        answer = client.get(address)
        assert (address, answer.status_code) == (address, 404)


def test_what_the_browser_cannot_play_is_said_with_its_path(client, folder):
    html = page_of(client, q="a blue thing")[1]
    assert f'<a href="video?id=clip1">{folder}/clip1.avi</a>' in html
    assert 'src="still?id=clip1&amp;second=0.40"' in html  # where the word of the query is said
    assert f"browsers play no .txt: {folder}/secret.txt" in html
    gone = WordSearcher(CAPTIONS, {"clip0": folder / "gone.mp4"})
    html = Client(application(SearchSite(gone).answer, any_name=True)).get("/?q=red").text
    assert f"there is no {folder}/gone.mp4" in html and "no video</p>" in html


@pytest.fixture(scope="module")
def movie(tmp_path_factory) -> Path:
    """One second that becomes brighter, in a container that browsers do not play."""
    folder = tmp_path_factory.mktemp("movie")
    write_video(folder / "movie.mp4")
    return (folder / "movie.mp4").rename(folder / "movie.mov")


@pytest.mark.parametrize(("second", "grey"), [(0, 0), (0.5, 125), (0.49, 125), (99, 225)])
def test_a_still_is_the_frame_of_its_second(movie, second, grey):
    with Image.open(io.BytesIO(still(movie, second))) as picture:
        assert picture.size == (64, 48)
        assert np.asarray(picture).mean() == pytest.approx(grey, abs=6)


def test_a_still_of_what_is_no_video_is_refused(movie, tmp_path):
    shutil.copy(movie, tmp_path / "movie.mov")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nmovie.mov\n#EXT-X-ENDLIST\n")
    (tmp_path / "also.mov").write_text("ffconcat version 1.0\nfile movie.mov\n")
    (tmp_path / "cut.mov").write_bytes(movie.read_bytes()[:500])
    for name in ("list.m3u8", "also.mov", "cut.mov", "gone.mov"):
        with pytest.raises(UserError, match="no frame comes out"):
            still(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"q": "?!"}, "The query has no words."),
        ({"q": "x" * (LONGEST + 1)}, f"up to {LONGEST} characters, and this one has {LONGEST + 1}"),
        ({"like": "clip9"}, 'There is no video "clip9".'),
        ({"q": "a", "k": "0"}, "The page shows 1 to 50 videos"),
        ({"q": "a", "k": "٣"}, "The page shows 1 to 50 videos"),
        ({"q": "a", "weight.smell": "1"}, 'The index has no expert "smell"'),
        ({"q": "a", "weight.spech": "1"}, 'can be weighted (did you mean "speech"?).'),
        ({"q": "a", "experts": "foo"}, '"experts", where this page knows q, not, like, file, k, '),
        ({"q": "a", "between": "9-x"}, 'The address says "between", where this page knows q'),
        ({"q": "a", "weigth.sound": "1"}, '"weigth.sound" (did you mean "weight.sound"?)'),
        ({"<script>alert(1)</script>": ""}, 'The address says "<script>alert(1)</script>"'),
        ({"q": "a", "weight.sound": "nan"}, "The weight of sound is a number from 0 to 3"),
        ({"q": "a", "weight.sound": "-1"}, "The weight of sound is a number from 0 to 3"),
        ({"q": "a", "weight.sound": "3.1"}, "The weight of sound is a number from 0 to 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(client, arguments, sentence):
    status, html = page_of(client, **arguments)
    assert status == 400 and ids(html) == []
    assert sentence in unescape(html) and "<script>alert" not in html


def test_a_file_is_asked_by_from_this_page_alone(folder, monkeypatch):
    """It is decoded under a name of ours, known by its content, and asked by as an id is."""
    seen = []

    def experts_of_file(searcher, path, device):
        seen.append(path)
        if path.read_bytes() == b"no picture":
            raise UserError(f"Cannot use {path}: <b>it is damaged</b>.")
        return (path.read_text(),)

    def sent(data, **headers):
        file = {"file": (io.BytesIO(data), "../../a.png")}
        return client.post("/", data=file if data else {}, headers=headers)

    monkeypatch.setattr(serve, "experts_of_file", experts_of_file)
    monkeypatch.setattr(serve, "FILES_KEPT", 2)
    searcher = WordSearcher(CAPTIONS, takes_files=True)
    searcher.encode_video = lambda video_id: video_id
    client = Client(application(SearchSite(searcher).answer, any_name=True, takes_files=True))
    assert 'type="file"' in client.get("/").text
    answer = sent(b"clip0", Origin="http://localhost")
    assert answer.status_code == 303 and not seen[0].exists()
    known = dict(parse_qsl(answer.headers["Location"].partition("?")[2]))
    status, html = page_of(client, **known)
    assert status == 200 and ids(html) == ["clip2", "clip1"] and "More like the file" in html
    assert ids(page_of(client, **known, **{"weight.sound": "0"})[1]) == ["clip2", "clip1"]
    for data, why in [(b"no picture", "Cannot use the file: <b>it"), (b"", "There is no file")]:
        refused = sent(data)
        assert refused.status_code == 400 and why in unescape(refused.text)
        assert "<b>it" not in refused.text
    assert sent(b"clip0", Origin="http://elsewhere.org").status_code == 403
    assert sent(b"clip0", Origin="null").status_code == 403
    for data in (b"clip1", b"clip2"):
        assert sent(data).status_code == 303
    assert page_of(client, **known)[0] == 400  # pushed out by others
    assert client.post("/video", data={"file": (io.BytesIO(b"clip0"), "a")}).status_code == 404


def test_no_file_is_taken_where_none_can_be_asked_by(client):
    assert 'type="file"' not in client.get("/").text
    assert client.post("/", data={"file": (io.BytesIO(b"clip0"), "a")}).status_code == 405


def test_hostile_texts_stay_text(folder):
    hostile = WordSearcher(
        {HOSTILE: HOSTILE, '"><script>': "\x00\ud800 red"},
        {HOSTILE: folder / "clip0.mp4"},
        name=HOSTILE,
        data_set=HOSTILE,
        examples=(HOSTILE,),
    )
    client = Client(application(SearchSite(hostile).answer, any_name=True))
    scripts = client.get("/").text.count("<script")
    for arguments in ({}, {"q": HOSTILE}, {"like": HOSTILE}, {"q": "a", "weight." + HOSTILE: "2"}):
        answer = client.get("/?" + urlencode(arguments))
        assert answer.text.count("<script") == scripts and "<img src=x" not in answer.text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert ids(page_of(client, q=HOSTILE)[1])[0] == HOSTILE
    assert client.get("/video?" + urlencode({"id": HOSTILE})).status_code == 200


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["q", "not", "like", "k", "weight.sound", "x"]), st.text()))
@example({"q": "\x00", "not": "\ud800"})
def test_any_arguments_get_a_page(client, arguments):
    query = urlencode(arguments, errors="surrogatepass")
    assert client.get("/?" + query).status_code in (200, 400)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Asked,
        st.text("a &=é🎉", max_size=5).map(str.strip),
        st.text("b+%", max_size=5).map(str.strip),
        weights=st.dictionaries(
            st.sampled_from(EXPERTS), st.sampled_from([0.0, 0.1, 0.5, 2.0, 3.0])
        ),
        k=st.integers(1, 50),
        file=st.sampled_from(["", "0123456789abcdef"]),
    )
)
def test_an_address_holds_what_was_asked(asked):
    assert read_asked(dict(parse_qsl(asked.address()[1:])), EXPERTS) == asked
    assert read_asked(dict(parse_qsl(asked.address(query="c", k=7)[1:])), EXPERTS) == replace(
        asked, query="c", k=7
    )


@given(st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), max_size=6))
def test_a_bar_stacks_shares_from_zero_to_both_sides(values):
    pieces = bar([(f"{at}", value) for at, value in enumerate(values)])
    assert [piece.value for piece in pieces] == [value for value in values if value]
    for sign in (1, -1):
        end = 0.0
        for piece in [piece for piece in pieces if sign * piece.value > 0]:
            near, far = (piece.start, piece.start + piece.length)[::sign]
            assert near == pytest.approx(end, abs=1e-9)
            end += piece.value
            assert far == pytest.approx(end, abs=1e-9)


def test_the_server_listens_at_an_address_and_refuses_one_it_cannot_have(searcher):
    server = make_search_server(searcher, "127.0.0.1", 0)
    with server.running(), pytest.raises(UserError, match="another program uses this port"):
        make_search_server(searcher, "127.0.0.1", server.port)
