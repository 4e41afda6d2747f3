"""Downloads from a server that does everything wrong that servers do."""

import errno
import hashlib
import random
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.fetching import download as download_module
from misc.fetching.catalogue import Source
from misc.fetching.download import Patience, download
from tests import fetch_server as act
from tests.fetch_server import FileServer, serving
from utils.errors import UserError

CONTENT = random.Random(0).randbytes(400_000)
CHANGED = random.Random(1).randbytes(400_000)
SHORTER = random.Random(2).randbytes(300_000)
PATH = "/set.tar.gz"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as running:
        running.files[PATH] = CONTENT
        yield running


class Client:
    """Downloads from one server into one folder, and notes the waits."""

    def __init__(self, server: FileServer, folder: Path) -> None:
        self.server = server
        self.path = folder / "set.tar.gz"
        self.waits: list[float] = []

    def get(self, content: bytes | None = CONTENT, path: str = PATH, read: float = 30) -> bytes:
        """Download, with the checksum of `content` as the published one (None: none is)."""
        sums = () if content is None else (hashlib.sha1(content).hexdigest(),)
        url = self.server.root + path
        patience = Patience(connect=30, read=read, sleep=self.waits.append)
        part = download(Source(url, url, sums), self.path, patience)
        got = self.path.read_bytes()
        assert part.sha1 == hashlib.sha1(got).hexdigest()
        return got

    def ranges(self) -> list[str | None]:
        """What was asked for."""
        return [asked.get("Range") for _, asked in self.server.requests]


@pytest.fixture
def client(server: FileServer, tmp_path: Path) -> Client:
    return Client(server, tmp_path)


def test_a_file_comes_whole_and_is_not_asked_for_again(client: Client) -> None:
    assert client.get() == CONTENT
    assert client.get() == CONTENT
    assert client.ranges() == [None]
    assert client.waits == []
    # Or the bytes, and so the ranges, would be those of what is made on the way.
    assert client.server.requests[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("end", [act.piece(150_000), act.reset(150_000)])
def test_a_broken_download_continues_where_it_broke(client: Client, end: act.Fault) -> None:
    client.server.faults.append(end)
    assert client.get() == CONTENT
    first, second = (asked for _, asked in client.server.requests)
    assert "Range" not in first
    assert 0 < int(second["Range"].removeprefix("bytes=").removesuffix("-")) <= 150_000
    assert second["If-Range"] == '"v1"'
    assert client.waits == [0]


def test_a_later_run_continues_an_earlier_one(client: Client) -> None:
    client.server.faults.extend([act.piece(150_000), *[act.status(503)] * 20])
    with pytest.raises(UserError, match=r"kept.*same command"):
        client.get()
    client.server.faults.clear()
    assert client.get() == CONTENT
    assert client.ranges()[-1] == "bytes=150000-"


def test_a_stalled_server_is_left_and_asked_again(client: Client) -> None:
    client.server.faults.append(act.stall(200_000))
    assert client.get(read=0.5) == CONTENT
    assert len(client.ranges()) == 2 and client.ranges()[1] is not None


def test_the_whole_file_in_answer_to_a_range_takes_the_place_of_the_part(client: Client) -> None:
    client.server.faults.extend([act.piece(100_000), act.whole])
    assert client.get() == CONTENT
    assert client.ranges() == [None, "bytes=100000-"]


def test_a_weak_etag_is_no_ground_to_continue_but_the_date_is(client: Client) -> None:
    client.server.etag = 'W/"v1"'
    client.server.faults.append(act.piece(100_000))
    assert client.get() == CONTENT
    assert client.server.requests[1][1]["If-Range"] == client.server.last_modified


def change(server: FileServer, content: bytes = CHANGED, **attributes: object) -> act.Fault:
    """Put another file in place, then let the request be answered."""

    def fault(_: act.Handler) -> bool:
        server.files[PATH] = content
        vars(server).update(attributes)
        return False

    return fault


@pytest.mark.parametrize("obeys", [True, False])
@pytest.mark.parametrize("content", [CHANGED, None])
def test_of_a_file_that_changed_meanwhile_the_new_one_comes(
    client: Client, obeys: bool, content: bytes | None
) -> None:
    client.server.obeys_if_range = obeys
    client.server.faults.extend([act.piece(100_000), change(client.server, etag='"v2"')])
    assert client.get(content) == CHANGED


@pytest.mark.parametrize("obeys", [True, False])
def test_a_change_of_the_date_alone_is_noticed(client: Client, obeys: bool) -> None:
    client.server.etag, client.server.obeys_if_range = "", obeys
    later = change(client.server, last_modified="Thu, 02 Jan 2020 00:00:00 GMT")
    client.server.faults.extend([act.piece(100_000), later])
    assert client.get(None) == CHANGED


def test_a_change_of_the_size_alone_is_noticed(client: Client) -> None:
    client.server.etag = client.server.last_modified = ""
    client.server.faults.extend([act.piece(100_000), change(client.server, SHORTER)])
    assert client.get(None) == SHORTER


def test_a_file_that_became_shorter_than_the_part_is_fetched_anew(client: Client) -> None:
    client.server.obeys_if_range = False
    shorter = change(client.server, SHORTER, etag='"v2"')
    client.server.faults.extend([act.piece(350_000), shorter])
    assert client.get(None) == SHORTER
    assert client.ranges() == [None, "bytes=350000-", None]


@pytest.mark.parametrize(
    "given",
    [
        "bytes 0-399999/400000",
        "bytes 99999-399999/400000",
        "bytes 100000-399999/500000",
        "bytes 100000-399999",
        "pages 1-2/3",
        "",
    ],
)
def test_a_wrong_content_range_spoils_nothing(client: Client, given: str) -> None:
    client.server.faults.extend([act.piece(100_000), act.headers(Content_Range=given)])
    assert client.get(None) == CONTENT
    assert client.ranges() == [None, "bytes=100000-", None]


def test_a_piece_with_too_little_in_it_is_completed(client: Client) -> None:
    def little(handler: act.Handler) -> bool:
        span = {"Content-Range": "bytes 100000-199999/400000"}
        handler.send(206, CONTENT[100_000:200_000], **span)
        return True

    client.server.faults.extend([act.piece(100_000), little])
    assert client.get() == CONTENT
    assert client.ranges() == [None, "bytes=100000-", "bytes=200000-"]


def test_waits_double_and_end(client: Client) -> None:
    client.server.faults.extend([act.status(503)] * 20)
    with pytest.raises(UserError, match=r"503 .*same command"):
        client.get()
    assert client.waits == [0, 2, 4, 8, 16]
    assert len(client.server.requests) == 6


def test_a_server_that_drips_is_given_up(client: Client) -> None:
    client.server.faults.extend([act.piece(1)] * 100)
    with pytest.raises(UserError, match=r"connection"):
        client.get()
    assert len(client.server.requests) == 6


def test_as_long_as_much_comes_any_number_of_breaks_is_borne(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "_PROGRESS", 25_000)
    client.server.faults.extend([act.piece(30_000)] * 13)
    assert client.get() == CONTENT
    assert client.waits == [0] * 13


def test_a_busy_server_is_given_the_time_it_asks_for(client: Client) -> None:
    busy = [act.status(503, **{"Retry-After": wait}) for wait in ("7", "86400", "soon", "0")]
    client.server.faults.extend(busy)
    assert client.get() == CONTENT
    assert client.waits == [7, 60, 4, 8]


@pytest.mark.parametrize("code", [404, 410, 401, 403, 400, 418, 304])
def test_what_will_not_pass_is_not_tried_again(client: Client, code: int) -> None:
    client.server.faults.append(act.status(code))
    with pytest.raises(UserError, match=f"Cannot fetch {client.server.root}.*{code}"):
        client.get()
    assert len(client.server.requests) == 1
    assert not client.path.exists()


def test_redirects_are_followed_with_the_range(client: Client) -> None:
    client.server.files["/elsewhere"] = CONTENT
    client.server.faults.extend(
        [act.redirect("/elsewhere"), act.piece(100_000), act.redirect("/elsewhere")]
    )
    assert client.get() == CONTENT
    assert client.ranges() == [None, None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize(
    "target",
    [
        PATH,
        "ftp://127.0.0.1/set.tar.gz",
        "file:///etc/passwd",
        "javascript:x",
        "http:///x",
        "http://[",
        "http://127.0.0.1:99999/",
    ],
)
def test_redirects_that_lead_nowhere_end(client: Client, target: str) -> None:
    client.server.faults.extend([act.redirect(target)] * 50)
    with pytest.raises(UserError, match="in circles"):
        client.get()
    assert len(client.server.requests) <= 6
    assert client.waits == []


def test_a_redirect_to_a_host_that_nobody_knows_names_that_host(client: Client) -> None:
    client.server.faults.extend([act.redirect("http://nobody.invalid/x")] * 50)
    with pytest.raises(UserError, match=r"nobody\.invalid"):
        client.get()


def test_a_wrong_checksum_leaves_nothing(client: Client) -> None:
    with pytest.raises(UserError, match=r"checksum.*removed"):
        client.get(CHANGED)
    assert not client.path.exists()
    assert client.ranges() == [None]


def test_a_part_that_was_spoilt_is_fetched_anew_once(client: Client) -> None:
    client.server.faults.extend([act.piece(100_000), *[act.status(503)] * 6])
    with pytest.raises(UserError):
        client.get()
    client.server.faults.clear()
    client.path.write_bytes(bytes(100_000))
    assert client.get() == CONTENT
    assert client.ranges()[-2:] == ["bytes=100000-", None]


def test_what_came_whole_before_it_could_be_verified_is_not_fetched_again(client: Client) -> None:
    client.get()
    record = client.path.with_name("set.tar.gz.download.json")
    text = record.read_text(encoding="utf-8")
    record.write_text(
        text.replace(hashlib.sha1(CONTENT).hexdigest(), ""), encoding="utf-8"
    )  # as a kill between the last byte and the checksum leaves it
    assert client.get() == CONTENT
    assert client.ranges() == [None]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": 1}'])
def test_a_spoilt_record_of_a_download_makes_it_begin_anew(client: Client, text: str) -> None:
    client.get()
    client.path.with_name("set.tar.gz.download.json").write_text(text, encoding="utf-8")
    assert client.get() == CONTENT
    assert client.ranges() == [None, None]


def test_a_part_from_another_address_is_not_continued(client: Client) -> None:
    client.server.files["/other.tar.gz"] = CHANGED
    client.server.faults.extend([act.piece(100_000), *[act.status(503)] * 6])
    with pytest.raises(UserError):
        client.get(None)
    client.server.faults.clear()
    assert client.get(CHANGED, "/other.tar.gz") == CHANGED
    assert client.ranges()[-1] is None


@pytest.mark.parametrize("label", ["gzip", "x-gzip", "br"])
def test_an_archive_that_is_called_an_encoding_stays_as_it_is(client: Client, label: str) -> None:
    client.server.faults.append(act.headers(Content_Encoding=label))
    assert client.get() == CONTENT


def test_a_file_of_unknown_size_ends_with_the_connection(client: Client) -> None:
    client.server.faults.append(act.without_length)
    assert client.get() == CONTENT


def test_too_little_of_a_file_of_unknown_size_is_caught_by_the_checksum(client: Client) -> None:
    def cut(handler: act.Handler) -> bool:
        handler.head(200, 0, **{"Content-Length": "", "Connection": "close"})
        handler.wfile.write(CONTENT[:1000])
        handler.close_connection = True
        return True

    client.server.faults.append(cut)
    with pytest.raises(UserError, match="checksum"):
        client.get()


@pytest.mark.parametrize("text", [b"nonsense\r\n\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b""])
def test_an_answer_that_is_no_http_is_tried_again(client: Client, text: bytes) -> None:
    def garble(handler: act.Handler) -> bool:
        handler.wfile.write(text)
        handler.close_connection = True
        return True

    client.server.faults.append(garble)
    assert client.get() == CONTENT


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.root + PATH
    waits: list[float] = []
    with pytest.raises(UserError, match=r"127.0.0.1:[0-9]+"):
        download(Source(url, url), tmp_path / "x", Patience(sleep=waits.append))
    assert len(waits) == 5


def test_a_name_that_nobody_knows_is_not_waited_for(tmp_path: Path) -> None:
    url = "http://nobody.invalid/x"
    waits: list[float] = []
    with pytest.raises(UserError, match=r"nobody.invalid"):
        download(Source(url, url), tmp_path / "x", Patience(sleep=waits.append))
    assert waits == []


def test_without_room_nothing_is_fetched(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 399_999, 399_999))
    with pytest.raises(UserError, match=r"390.6 KiB.*390.6 KiB"):
        client.get()
    assert not client.path.exists() or not client.path.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 400_000, 400_000))
    assert client.get() == CONTENT


def test_a_disk_that_fills_up_keeps_what_has_come(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    class SmallDisk:
        """A file on a disk that takes 200,000 bytes, the last of them in a piece of a write."""

        def __init__(self, path: Path) -> None:
            self.handle = real(path, "ab", buffering=0)

        def __enter__(self) -> "SmallDisk":
            return self

        def __exit__(self, *_: object) -> None:
            self.handle.close()

        def write(self, block: memoryview) -> int:
            free = 200_000 - self.handle.tell()
            if not free:
                raise OSError(errno.ENOSPC, "full")
            return self.handle.write(block[:free])

    def small_disk(path: Path, mode: str = "r", *args: object, **options: object) -> object:
        return SmallDisk(path) if mode == "ab" else real(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", small_disk)
        with pytest.raises(UserError, match="no space"):
            client.get()
    assert client.get() == CONTENT
    assert client.ranges() == [None, "bytes=200000-"]


FAULTS = st.sampled_from(
    [
        act.piece(0),
        act.piece(1),
        act.piece(90_000),
        act.reset(70_000),
        act.whole,
        act.status(503),
        act.redirect("/elsewhere"),
        act.headers(Content_Range="bytes 5-10/400000"),
        act.headers(ETag='"other"'),
        act.without_length,
    ]
)


@settings(max_examples=25, deadline=None)
@given(st.lists(FAULTS, max_size=12))
def test_whatever_goes_wrong_the_bytes_are_right(
    tmp_path_factory: pytest.TempPathFactory, faults: list[act.Fault]
) -> None:
    with serving() as server:
        server.files |= {PATH: CONTENT, "/elsewhere": CONTENT}
        server.faults.extend(faults)
        client = Client(server, tmp_path_factory.mktemp("any"))
        for _ in range(4):  # a run that gave up is started again
            try:
                assert client.get() == CONTENT
                return
            except UserError:
                continue
        pytest.fail("after every fault has had its turn the download ends")
