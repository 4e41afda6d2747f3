"""The server of the pages: slow, silent and rude clients cost others nothing, nor threads."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from waitress.channel import HTTPChannel
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from misc import page_server
from misc.page_server import PageServer, file_response
from utils.errors import UserError

SIZE = 8 * 2**20  # more than the buffers of a connection take


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page_server") / "large.mp4"
    path.write_bytes(bytes(SIZE))
    return path


@pytest.fixture(scope="module")
def server(large) -> Iterator[PageServer]:
    """Serves a large file at /file, and the number of threads at /."""

    def answer(request: Request) -> Response:
        if request.path == "/fault":
            raise RuntimeError("secret")
        if request.path == "/file":
            return file_response(request, large)
        if request.path != "/":
            raise NotFound()
        return Response(f"{threading.active_count()}")

    server = PageServer(answer, "127.0.0.1", 0)
    with server.running():
        yield server


def ask(server: PageServer, path: str = "/", method: str = "GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def talk(server: PageServer, *said: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    for part in said:
        client.sendall(part)
    return client


def test_two_hundred_open_connections_and_slow_readers_hold_no_threads(server):
    before = int(ask(server)[1])
    head = b"GET /file HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(talk(server))  # says nothing
            stack.enter_context(talk(server, head))  # never ends its request
        readers = [talk(server, head, b"Range: bytes=1-\r\n\r\n") for _ in range(30)]
        readers += [talk(server, head, b"\r\n") for _ in range(30)]
        for reader in readers:  # which ask for much and read little of it
            stack.enter_context(reader)
            assert reader.recv(12) in (b"HTTP/1.1 206", b"HTTP/1.1 200")
        status, threads = ask(server)
        assert (status, int(threads)) == (200, before)
        status, part = ask(server, "/file", Range="bytes=5-1004")
        assert (status, len(part)) == (206, 1000)


@pytest.mark.parametrize("said", [b"", b"GET /file HTTP/1.1\r\n", b"GET /file HTTP/1.1\r\n\r\n"])
def test_who_says_nothing_or_never_reads_is_disconnected(monkeypatch, large, said):
    monkeypatch.setattr(page_server, "SECONDS_IDLE", 0.1)
    server = PageServer(lambda request: file_response(request, large), "127.0.0.1", 0)
    closed, close = threading.Event(), HTTPChannel.handle_close

    def closing(channel):
        close(channel)
        if channel.server is server._server:
            closed.set()

    monkeypatch.setattr(HTTPChannel, "handle_close", closing)
    with server.running(), talk(server, said):
        assert closed.wait(20)
        assert not server._server.active_channels


def test_a_part_of_a_file_ends_where_it_should_on_a_connection_that_is_kept(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for asked, length in [("bytes=0-9", 10), ("bytes=-7", 7), (f"bytes={SIZE - 3}-", 3)]:
        connection.request("GET", "/file", headers={"Range": asked})
        assert len(connection.getresponse().read()) == length
    connection.close()


def test_requests_that_write_or_are_too_large_are_refused(server):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, method=method)[0] == 405
    assert ask(server, method="POST", body=bytes(page_server.LARGEST_BODY + 1))[0] == 413
    assert ask(server, "/?q=" + "x" * page_server.LARGEST_HEAD)[0] == 431
    assert ask(server, "/other")[0] == 404
    for nonsense in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with talk(server, nonsense) as client:
            assert client.recv(9) in (b"HTTP/1.0 ", b"HTTP/1.1 ", b"HTTP/9.9 ")
    assert ask(server)[0] == 200


def test_a_fault_tells_the_client_nothing(server, caplog):
    status, body = ask(server, "/fault")
    assert status == 500 and b"secret" not in body
    assert "secret" in caplog.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_another_name_for_this_machine_is_refused(server, host):
    status, body = ask(server, Host=host)
    assert status == 400 and b"--host" in body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
def test_the_names_of_this_machine_are_answered(server, host):
    assert ask(server, Host=host)[0] == 200


def test_who_listens_for_others_answers_to_any_name():
    server = PageServer(lambda request: Response("here"), "0.0.0.0", 0)
    assert server.address == f"http://localhost:{server.port}/"
    with server.running():
        assert ask(server, Host="example.org") == (200, b"here")


@pytest.mark.parametrize(
    "host", ["999.0.0.1", "x" * 300, "ü..é", "::zz", "no such name", "unix://x"]
)
def test_what_is_no_address_is_refused_in_one_sentence(host):
    with pytest.raises(UserError, match="there is no such address; choose another with --port"):
        PageServer(lambda request: Response("here"), host, 0)
