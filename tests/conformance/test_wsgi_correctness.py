"""PEP 3333 and HTTP/1.1 as an application and a client meet them under our handler."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import gevent
import gevent.event
import pytest
from support.plain import PlainServer, client_side, serving

pytestmark = pytest.mark.ours

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\n\r\n"

Application = Callable[..., Any]


def answering(*headers: tuple[str, str], status: str = "200 OK", body: Any = (b"hello",)) -> Application:
    """An application that always answers the same."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers))
        return body

    return application


class Iterable:
    """A body that is no list, and notes that it was closed."""

    def __init__(self, *pieces: Any) -> None:
        self.pieces = pieces
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed += 1


# -- the validator


def validated(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    stream = environ["wsgi.input"]
    body = stream.read(2) + stream.readline() + b"".join(stream.readlines(1)) + b"".join(stream)
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET,
        b"GET /%20?x HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        OLD_GET,
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\nContent-Length: 11\r\n\r\nab\nc\nd\ne\nfg",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nab\n\r\n2\r\nc\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_wsgiref_has_nothing_to_complain_about(request_bytes: bytes) -> None:
    with serving(validator(validated)) as server:
        connection = server.connect(request_bytes)
        connection.method = request_bytes.split()[0].decode()
        assert connection.response().status == 200
        assert server.errors.text == ""


# -- how a response ends


def test_a_list_has_a_length() -> None:
    with serving(answering(body=[b"a", b"", b"bc"])) as server:
        connection = server.connect(GET)
        response = connection.response()
        assert (response.header("Content-Length"), response.body) == ("3", b"abc")
        assert response.header("Connection") is None
        assert connection.get("/").body == b"abc"


def test_an_empty_list_has_one_too() -> None:
    with serving(answering(body=[])) as server:
        assert server.connect(GET).response().header("Content-Length") == "0"


def test_an_iterable_is_chunked() -> None:
    body = Iterable(b"a", b"", b"bc")
    with serving(answering(body=body)) as server:
        connection = server.connect(GET + GET)
        response = connection.response()
        assert (response.header("Transfer-Encoding"), response.header("Content-Length")) == ("chunked", None)
        assert response.body == b"abc"
        assert connection.response().body == b"abc"
        assert body.closed == 2


def test_an_iterable_ends_an_old_connection() -> None:
    with serving(answering(body=Iterable(b"a", b"bc"))) as server:
        connection = server.connect(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = connection.response()
        assert response.header("Transfer-Encoding") is None
        assert response.tokens("Connection") == {"close"}
        assert response.body == b"abc"


def test_an_empty_iterable() -> None:
    with serving(answering(body=Iterable())) as server:
        assert server.connect(GET).response().body == b""


def test_an_announced_length_is_kept() -> None:
    with serving(answering(("Content-Length", "3"), body=Iterable(b"a", b"bc"))) as server:
        response = server.connect(GET).response()
        assert (response.header("Transfer-Encoding"), response.body) == (None, b"abc")


@pytest.mark.parametrize("body", [[b"abcdef"], [b"ab", b"cdef"], Iterable(b"ab", b"cdef", b"gh")])
def test_more_than_was_announced_is_cut_off(body: Any) -> None:
    with serving(answering(("Content-Length", "3"), body=body)) as server:
        answer = server.exchange(GET + GET)
        assert answer.count(b"HTTP/1.1 200") == 1
        assert answer.endswith(b"\r\n\r\nabc")
        assert "more than it announced" in server.errors.text


def test_less_than_was_announced_ends_the_connection() -> None:
    with serving(answering(("Content-Length", "9"), body=[b"abc"])) as server:
        answer = server.exchange(GET + GET)
        assert answer.count(b"HTTP/1.1 200") == 1
        assert answer.endswith(b"\r\n\r\nabc")
        assert "announced more than it sent" in server.errors.text


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body(status: str) -> None:
    for body in ([], [b"x"], Iterable(b"x")):
        with serving(answering(status=status, body=body)) as server:
            connection = server.connect(GET + GET)
            for _ in range(2):
                response = connection.response()
                assert f"{response.status} {response.reason}" == status
                assert response.header("Content-Length") is response.header("Transfer-Encoding") is None
            assert server.errors.text == ""


@pytest.mark.parametrize("body", [[b"hello"], Iterable(b"he", b"llo"), []])
def test_head_has_no_body(body: Any) -> None:
    with serving(answering(body=body)) as server:
        connection = server.connect()
        for _ in range(2):
            connection.start("HEAD", "/")
            assert connection.response().status == 200
        assert connection.get("/").body == b"".join(body)
        assert server.errors.text == ""


def test_head_says_how_long_the_body_would_be() -> None:
    with serving(answering(body=[b"hello"])) as server:
        assert server.connect().request("HEAD", "/").header("Content-Length") == "5"


def test_a_large_body_arrives_whole() -> None:
    large = bytes(range(256)) * 20_000
    with serving(answering(body=[large])) as server:
        assert server.connect(GET).response().body == large


def test_one_send_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    from engineio_wsgi.http.connection import HttpConnection

    sent: list[bytes] = []
    send_all = HttpConnection.send_all
    monkeypatch.setattr(
        HttpConnection, "send_all", lambda self, data, timeout: (sent.append(data), send_all(self, data, timeout))
    )
    with serving(answering(("Content-Type", "a/b"), body=[b"hello"])) as server:
        connection = server.connect()
        assert connection.get("/").body == connection.get("/").body == b"hello"
    assert len(sent) == 2


# -- start_response, write, close


def test_write() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [("X-A", "b")])
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"three"]

    with serving(application) as server:
        response = server.connect(GET).response()
        assert (response.header("X-A"), response.body) == ("b", b"one two three")


def test_what_is_written_is_sent_at_once() -> None:
    go = gevent.event.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"first"
        assert go.wait(60)
        yield b"second"

    with serving(application) as server:
        connection = server.connect(GET)
        connection.read_until(b"5\r\nfirst\r\n")
        go.set()
        connection.read_until(b"6\r\nsecond\r\n0\r\n\r\n")


def test_the_start_may_wait_for_the_first_piece() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        yield b""
        start_response("201 Created", [])
        yield b"late"

    with serving(application) as server:
        response = server.connect(GET).response()
        assert (response.status, response.body) == (201, b"late")


def test_a_second_start_needs_a_reason() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("X-A", "b")])
        try:
            raise ValueError("why")
        except ValueError as error:
            start_response("503 Nope", [], (type(error), error, error.__traceback__))
        return [b"x"]

    with serving(application) as server:
        response = server.connect(GET).response()
        assert (response.status, response.header("X-A")) == (503, None)


def test_close_is_called_whatever_happens() -> None:
    for body in (Iterable(b"x"), Iterable(), Iterable(b"x", b"y")):
        with serving(answering(body=body)) as server:
            server.exchange(GET_CLOSE)
        assert body.closed == 1


def test_close_is_called_when_the_client_goes_away() -> None:
    closed = gevent.event.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 10_000
        finally:
            closed.set()

    with serving(application) as server:
        connection = server.connect(GET)
        connection.read(10)
        connection.reset()
        assert closed.wait(60)
        assert server.errors.text == ""


def test_a_file_wrapper() -> None:
    files: list[io.BytesIO] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        files.append(io.BytesIO(b"content" * 10_000))
        start_response("200 OK", [("Content-Length", "70000")])
        return environ["wsgi.file_wrapper"](files[0], 1000)

    with serving(application) as server:
        assert server.connect(GET).response().body == b"content" * 10_000
        assert files[0].closed


# -- failures of the application


@pytest.mark.complains
@pytest.mark.parametrize(
    "application",
    [
        answering(body=Iterable(RuntimeError("at the first piece"))),
        answering(body=["text"]),
        answering(body=None),
        answering(("X", "a\r\nSet-Cookie: b")),
        answering(("X\nY", "a")),
        answering(("X", 1)),  # type: ignore[arg-type]
        answering(("X", "\u20ac")),
        answering(status="200 OK\r\nX: y"),
        answering(status="fine"),
        lambda environ, start_response: [b"no start"],
        lambda environ, start_response: 1 / 0,
        lambda environ, start_response: start_response("200 OK", []) and start_response("200 OK", []),
    ],
)
def test_a_bug_before_anything_was_sent_is_a_500(application: Application) -> None:
    with serving(application) as server:
        connection = server.connect(GET)
        response = connection.response()
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert response.tokens("Connection") == {"close"}
        assert response.header("X") is response.header("Set-Cookie") is None
        assert connection.read_to_end() == b""
        assert server.log.lines[0].split('"')[2].split()[0] == "500"


@pytest.mark.complains
@pytest.mark.parametrize("headers", [(), (("Content-Length", "100"),)])
def test_a_bug_in_the_middle_ends_the_connection(headers: Any) -> None:
    body = Iterable(b"begun", RuntimeError("in the middle"))
    with serving(answering(*headers, body=body)) as server:
        answer = server.exchange(GET + GET)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.endswith((b"begun", b"begun\r\n"))
        assert body.closed == 1


@pytest.mark.complains
def test_a_bug_in_close() -> None:
    class Broken(Iterable):
        def close(self) -> None:
            raise RuntimeError("in close")

    with serving(answering(body=Broken(b"x"))) as server:
        assert b"1\r\nx\r\n0\r\n\r\n" in server.exchange(GET + GET)


# -- bodies of requests


def reading(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def test_a_body_that_comes_later_than_the_application_is_called() -> None:
    called = gevent.event.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        called.set()
        return reading(environ, start_response)

    with serving(application) as server:
        connection = server.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n")
        assert called.wait(60)
        connection.send(b"abc")
        connection.send(b"def")
        assert connection.response().body == b"abcdef"


@pytest.mark.parametrize("coded", [False, True])
def test_a_large_body(coded: bool) -> None:
    large = bytes(range(256)) * 8_000
    with serving(reading) as server:
        connection = server.connect()
        chunked = (
            b"".join(b"%x\r\n%b\r\n" % (1000, large[i : i + 1000]) for i in range(0, len(large), 1000)) + b"0\r\n\r\n"
        )
        head = b"POST / HTTP/1.1\r\nHost: h\r\n"
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if coded else b"Content-Length: %d\r\n\r\n" % len(large)
        sending = gevent.spawn(connection.send, head + framing + (chunked if coded else large))
        assert connection.response().body == large
        sending.get(timeout=60)
        assert connection.post("/", b"next").body == b"next"


def test_a_body_that_is_refused_unread() -> None:
    with serving(answering(status="413 Too Large", body=[b"no"])) as server:
        connection = server.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        sending = gevent.spawn(connection.send, b"x" * 10_000_000)
        response = connection.response()
        assert (response.status, response.body) == (413, b"no")
        assert connection.read_to_end() == b""
        sending.kill()


def test_a_client_that_waits_is_asked_for_the_body() -> None:
    with serving(reading) as server:
        connection = server.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert connection.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"abc")
        assert connection.response().body == b"abc"
        assert connection.get("/").status == 200


def test_a_client_that_waits_and_is_not_asked() -> None:
    with serving(answering()) as server:
        answer = server.exchange(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in answer


def test_no_100_continue_in_the_middle_of_a_response() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"begun"
        environ["wsgi.input"].read()
        yield b"never"

    with serving(application) as server:
        answer = server.exchange(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert b"100 Continue" not in answer
        assert b"never" not in answer
        assert server.errors.text == ""


def test_an_old_client_is_not_asked() -> None:
    with serving(reading) as server:
        connection = server.connect(b"POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        connection.send(b"abc")
        assert connection.read_to_end().startswith(b"HTTP/1.1 200 OK")


# -- connections


def test_pipelining() -> None:
    paths: list[str] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        return reading(environ, start_response)

    posts = [b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n%d" % (number, number) for number in range(9)]
    with serving(application) as server:
        connection = server.connect(b"".join(posts))
        assert [connection.response().body for _ in posts] == [b"%d" % number for number in range(9)]
        assert paths == [f"/{number}" for number in range(9)]


@pytest.mark.parametrize(
    ("request_bytes", "kept"),
    [
        (GET, True),
        (GET_CLOSE, False),
        (OLD_GET, False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_which_requests_keep_the_connection(request_bytes: bytes, kept: bool) -> None:
    with serving(answering()) as server:
        connection = server.connect(request_bytes)
        response = connection.response()
        if kept:
            assert response.tokens("Connection") <= {"keep-alive"}
            assert connection.get("/").status == 200
        else:
            assert response.tokens("Connection") == {"close"}
            assert connection.read_to_end() == b""


def test_the_application_may_close_the_connection() -> None:
    with serving(answering(("Connection", "close"))) as server:
        assert server.exchange(GET + GET).count(b"HTTP/1.1 ") == 1


def test_the_client_may_be_done_sending() -> None:
    with serving(answering()) as server:
        connection = server.connect(GET)
        connection.finish()
        assert connection.read_to_end().endswith(b"hello")


def test_a_date_of_its_own() -> None:
    with serving(answering(("Date", "Thu, 01 Jan 1970 00:00:00 GMT"))) as server:
        assert server.connect(GET).response().headers("Date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]


# -- TLS


def test_all_of_it_over_tls(certificate: dict[str, str]) -> None:
    large = b"x" * 3_000_000
    with serving(reading, tls=certificate) as server:
        connection = server.connect(tls=client_side(certificate))
        assert connection.get("/").status == 200
        sending = gevent.spawn(connection.start, "POST", "/", (), large)
        assert connection.response().body == large
        sending.get(timeout=60)
        # without a goodbye the client would have to think that it was cut off
        connection.sock.suppress_ragged_eofs = False
        assert connection.get("/", [("Connection", "close")]).status == 200
        assert connection.read_to_end() == b""


def test_the_scheme_over_tls(certificate: dict[str, str]) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.url_scheme"].encode()]

    server = PlainServer(application, tls=certificate)
    assert server.connect(tls=client_side(certificate)).get("/").body == b"https"
    server.stop()
