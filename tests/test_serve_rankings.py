"""Serving pages: ranges as browsers and others ask for them, and no way out of the folders."""

import http.client
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from misc.run_pages.places import find_file, find_pages
from misc.run_pages.site import Site
from misc.serve_rankings import main, make_page_server
from tests.conftest import ROOT
from tests.rankings_html import make_videos, ranking, write
from utils.command_line import run_main
from utils.errors import UserError

CONTENT = bytes(range(256)) * 4


class Client:
    """Asks one server and reads what it answers."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Mapping, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        answer = response.status, response.headers, response.read()
        connection.close()
        return answer


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A run's pages with videos, between files that are nobody's business."""
    root = tmp_path_factory.mktemp("served")
    videos = make_videos(
        root / "clips", "a.avi", "é 🎉 #1%.mp4", "in/b.webm", "secret.txt", "x.html"
    )
    (videos / "v0.mp4").write_bytes(CONTENT)
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "linked.mp4").symlink_to(make_videos(root / "disk", "far.mp4") / "far.mp4")
    write(root / "web", [ranking()], video_folder=videos)
    (root / "secret.html").write_text("secret")
    (root / "web" / "out.html").symlink_to(root / "secret.html")
    (root / "web" / "out").symlink_to(root)
    (root / "web" / "config.json").write_text("{}")
    return root / "web"


@pytest.fixture(scope="module")
def client(web) -> Iterator[Client]:
    server = make_page_server(Site(web), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Client(server.port)
    server.shutdown()
    thread.join()


def test_the_page_and_its_videos_are_served(client, web):
    status, headers, body = client.ask("/index.html")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert body == (web / "index.html").read_bytes()
    assert headers["X-Content-Type-Options"] == "nosniff"
    for name, kind in [
        ("find.js", "text/javascript; charset=utf-8"),
        ("pages.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("videos/" + quote("é 🎉 #1%.mp4"), "video/mp4"),
        ("videos/in/b.webm", "video/webm"),
        ("videos/a.avi", "video/x-msvideo"),
        ("videos/linked.mp4", "video/mp4"),
    ]:
        status, headers, _ = client.ask(f"/{name}")
        assert (status, headers["Content-Type"]) == (200, kind)
    status, headers, _ = client.ask("/")
    assert status == 302 and headers["Location"].endswith("index.html")
    assert client.ask("/?rank=2-5")[1]["Location"].endswith("index.html?rank=2-5")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-", 0, 1023),
        ("bytes=0-0", 0, 0),
        ("bytes=1023-", 1023, 1023),
        ("bytes=100-199", 100, 199),
        ("bytes=1000-5000", 1000, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=-5000", 0, 1023),
        ("bytes= 3 - 5 ", 3, 5),
    ],
)
def test_a_range_is_answered_with_that_part(client, asked, first, last):
    status, headers, body = client.ask("/videos/v0.mp4", Range=asked)
    assert status == 206 and body == CONTENT[first : last + 1]
    assert headers["Content-Range"] == f"bytes {first}-{last}/1024"
    assert int(headers["Content-Length"]) == len(body)
    assert headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_beyond_the_end_cannot_be_satisfied(client, asked):
    status, headers, _ = client.ask("/videos/v0.mp4", Range=asked)
    assert status == 416 and headers["Content-Range"] == "bytes */1024"


@settings(max_examples=40, deadline=None)
@given(st.text("bytes=0123456789-, x", max_size=20))
@example("bytes=5-2")
@example("bytes=-")
@example("bytes=0-1,5-6")
@example("items=0-1")
@example("bytes=" + "9" * 30 + "-")
@example("")
def test_any_range_gives_the_file_or_a_part_of_it(client, asked):
    status, headers, body = client.ask("/videos/v0.mp4", Range=asked)
    assert status in (200, 206, 416)
    if status == 200:
        assert body == CONTENT and "Content-Range" not in headers
    if status == 206:
        first, last = map(int, headers["Content-Range"][6:].split("/")[0].split("-"))
        assert body == CONTENT[first : last + 1]


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "bytes=0-1,5-6", "items=0-1", "nonsense"]
)
def test_a_range_that_means_nothing_is_ignored(client, asked):
    status, _, body = client.ask("/videos/v0.mp4", Range=asked)
    assert (status, body) == (200, CONTENT)


def test_conditions_heads_and_an_empty_file(client):
    status, headers, body = client.ask("/videos/v0.mp4", "HEAD", Range="bytes=0-3")
    assert (status, body, headers["Content-Length"]) == (200, b"", "1024")
    tag = headers["ETag"]
    status, _, body = client.ask("/videos/v0.mp4", Range="bytes=0-3", **{"If-Range": tag})
    assert (status, body) == (206, CONTENT[:4])
    status, _, body = client.ask("/videos/v0.mp4", Range="bytes=0-3", **{"If-Range": '"old"'})
    assert (status, body) == (200, CONTENT)
    assert client.ask("/videos/v0.mp4", **{"If-None-Match": tag})[0] == 304
    for headers in ({}, {"Range": "bytes=0-"}, {"Range": "bytes=-5"}):
        assert client.ask("/videos/empty.mp4", **headers)[::2] == (200, b"")
    for method in ("POST", "PUT", "DELETE"):
        assert client.ask("/index.html", method)[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.html", "/videos/../secret.html", "/%2e%2e/secret.html", "//secret.html"),
        *("/videos/../../secret.html", "/videos/..%2f..%2fsecret.html", "/out.html"),
        *("/out/secret.html", "/videos/secret.txt", "/videos/x.html", "/config.json", "/videos"),
        *("/videos/", "/out/clips/v0.mp4", "/index.html%00.mp4", "/" + "x" * 3000 + ".html"),
        *("/index.html/", "/./index.html", "/videos/gone.mp4", "/%ff%fe.html", "/..\\secret.html"),
    ],
)
def test_nothing_else_is_served(client, path):
    status, _, body = client.ask(path)
    assert status == 404 and b"secret" not in body


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["..", ".", "", "out", "videos", "web", "secret.html", "clips", "v0.mp4"]),
        max_size=6,
    ).map("/".join)
)
def test_no_name_leads_out_of_the_folders(web, name):
    found = find_file(web, name)
    if found is not None:
        clips = (web / "videos").resolve()
        assert found.resolve().is_relative_to(clips) or found.resolve().parent == web.resolve()


def test_a_run_is_found_from_each_of_its_folders_and_begins_with_its_last_page(tmp_path):
    run = Path("demo", "2026-01-01_00-00-00")
    for kind in ("models", "log"):
        (tmp_path / kind / run).mkdir(parents=True)
    web = tmp_path / "web" / run
    for epoch in (9, 10):
        write(web, [], file_name=f"epoch-{epoch}.html")
    (web / "epoch-x.html").write_text("")
    for kind in ("models", "log", "web"):
        assert find_pages(tmp_path / kind / run) == web
    server = make_page_server(Site(web), "127.0.0.1", 0)
    assert server.address == f"http://127.0.0.1:{server.port}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    assert Client(server.port).ask("/")[1]["Location"].endswith("epoch-10.html")
    (web / "epoch-9.html").unlink()
    (web / "epoch-10.html").unlink()
    assert Client(server.port).ask("/")[0] == 404
    server.shutdown()
    thread.join()
    assert find_pages(web) is None
    with pytest.raises(UserError, match="no rankings page"):
        main([str(web)])


def test_mistakes_get_one_sentence(web, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, sentence in [
            (["/no/such/folder"], "There is no folder /no/such/folder"),
            ([ROOT / "README.md"], "README.md is a file: give the folder of a run"),
            ([web / "index.html"], f"index.html is a file: give the folder of a run, here {web},"),
            ([tempfile.gettempdir()], "There is no rankings page in"),
            ([web, "--port", port], "another program uses this port; choose another with --port"),
            ([web, "--port", "70000"], "0 to 65535"),
            ([web, "--picture", Path(web, "page.jpg")], 'must end in ".png"'),
            ([web, "--host", "999.0.0.1"], "Cannot listen on 999.0.0.1"),
        ]:
            assert run_main(main, [str(a) for a in arguments]) == 2
            error = capsys.readouterr().err
            assert sentence in error and error.count("\n") == 1
    with pytest.raises(SystemExit) as stopped:
        main([str(web), "--prot", "1"])
    assert stopped.value.code == 2 and '"--port"' in capsys.readouterr().err


def test_the_command_prints_the_address_at_which_it_serves(web):
    command = [sys.executable, "-m", "misc.serve_rankings", str(web), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert line.startswith("The rankings are at http://127.0.0.1:")
        port = int(line.split("/")[2].split(":")[1])
        assert Client(port).ask("/index.html")[0] == 200
        process.terminate()
