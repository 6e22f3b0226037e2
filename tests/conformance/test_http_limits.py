"""The handler's limits: each with its own status, one line of log, and the end of that connection only."""

from __future__ import annotations

import socket
from typing import Any

import gevent
import gevent.event
import pytest
from support.plain import PlainServer, records_of, serving

from engineio_wsgi import log
from engineio_wsgi.log import Throttle

pytestmark = pytest.mark.ours

#: seconds of a limit that is to be exceeded. The client's first bytes come within it: the same loop sends and awaits them
SHORT = 0.2


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def careless(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Reads no bodies."""
    start_response("200 OK", [])
    return [b"ok"]


def refused(server: PlainServer, data: bytes) -> tuple[int, str]:
    """The status and the log's line of a request that is refused; another connection does not notice."""
    other = server.connect()
    assert other.get("/").status == 200
    # it would be told once a minute
    log._violations = Throttle()
    with records_of("engine.http") as records:
        connection = server.connect(data)
        response = connection.response()
        assert connection.read_to_end() == b""
    assert other.get("/").status == 200
    assert response.tokens("Connection") == {"close"}
    assert [(record.levelname, record.exc_info) for record in records] == [("INFO", None)]
    assert str(response.status) in records[0].getMessage()
    assert response.text in records[0].getMessage()
    assert server.errors.text == ""
    return response.status, response.text


def test_the_request_line() -> None:
    with serving(application, max_request_line=100) as server:
        assert server.connect(b"GET /" + b"a" * 86 + b" HTTP/1.1\r\nHost: h\r\n\r\n").response().status == 200
        for data in (b"GET /" + b"a" * 87 + b" HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /" + b"a" * 200):
            assert refused(server, data) == (414, "the request line is longer than 100 bytes")


def test_the_size_of_the_headers() -> None:
    with serving(application, max_header_size=1000) as server:
        lines = b"GET / HTTP/1.1\r\nHost: h\r\nX: "
        assert server.connect(lines + b"a" * 900 + b"\r\n\r\n").response().status == 200
        for data in (lines + b"a" * 1000 + b"\r\n\r\n", lines + b"a" * 2000):
            assert refused(server, data) == (431, "the headers are larger than 1000 bytes")


def test_the_number_of_headers() -> None:
    with serving(application, max_header_count=10) as server:
        lines = b"GET / HTTP/1.1\r\nHost: h\r\n"
        assert server.connect(lines + b"X: y\r\n" * 9 + b"\r\n").response().status == 200
        for data in (lines + b"X: y\r\n" * 10 + b"\r\n", lines + b"X: y\r\n" * 20):
            assert refused(server, data) == (431, "there are more than 10 headers")


@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\nHost: h\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r"])
def test_the_time_to_the_end_of_the_headers(data: bytes) -> None:
    with serving(application, header_timeout=SHORT) as server:
        assert refused(server, data) == (408, f"the headers were not complete after {SHORT:g} s")


def test_a_trickle_does_not_put_the_end_off() -> None:
    with serving(application, header_timeout=SHORT) as server:
        connection = server.connect(b"GET / HTTP/1.1\r\n")

        def trickle() -> None:
            for number in range(1000):
                connection.send(b"X-%d: y\r\n" % number)
                gevent.sleep(0.01)

        sending = gevent.spawn(trickle)
        assert connection.response().status == 408
        sending.kill()


def test_the_time_between_two_requests() -> None:
    with serving(application, keepalive_timeout=SHORT) as server:
        connection = server.connect()
        with records_of("engine.http") as records:
            assert connection.get("/").status == 200
            assert connection.get("/").status == 200
            assert connection.read_to_end() == b""
        assert records == []


def test_a_connection_on_which_nothing_comes() -> None:
    with serving(application, header_timeout=SHORT) as server, records_of("engine.http") as records:
        assert server.connect().read_to_end() == b""
        assert records == []
        assert server.log.lines == []


@pytest.mark.parametrize("head", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\na\r\nabc"])
def test_a_body_that_stops_coming(head: bytes) -> None:
    with serving(application, body_timeout=SHORT) as server:
        status, text = refused(server, b"POST / HTTP/1.1\r\nHost: h\r\n" + head)
        assert (status, text) == (408, f"the request's body stopped: nothing came for {SHORT:g} s")


@pytest.mark.parametrize("head", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\na\r\nabc"])
def test_a_body_that_ends_early(head: bytes) -> None:
    with serving(application) as server:
        with records_of("engine.http") as records:
            connection = server.connect(b"POST / HTTP/1.1\r\nHost: h\r\n" + head)
            connection.finish()
            assert connection.read_to_end().startswith(b"HTTP/1.1 400 ")
        assert [record.levelname for record in records] == ["INFO"]
        assert server.errors.text == ""


@pytest.mark.parametrize("head", [b"Content-Length: 1000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n100000\r\n"],
                         ids=["sized", "chunked"])
def test_a_client_that_goes_on_sending_what_is_not_read(head: bytes) -> None:
    """It is not reset, and gets the response when it looks for it."""
    with serving(careless) as server:
        connection = server.connect(b"POST / HTTP/1.1\r\nHost: h\r\n" + head)
        assert connection.sock.recv(1, socket.MSG_PEEK), "the response has arrived"
        for _ in range(20):
            connection.send(bytes(10_000))
            server.connect().get("/")
        assert connection.read_to_end().startswith(b"HTTP/1.1 200 ")


def test_a_client_that_takes_nothing() -> None:
    ended = gevent.event.Event()

    def endless(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 100_000
        finally:
            ended.set()

    with serving(endless, write_timeout=SHORT) as server:
        server.connect(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", receive_buffer=4096)
        assert ended.wait(60)
        assert server.errors.text == ""


def test_clients_that_go_away_leave_no_trace() -> None:
    with serving(application) as server, records_of("engine.http") as records:
        for data in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"):
            server.connect(data).close()
            server.connect(data).reset()
        assert server.connect().get("/").status == 200
        assert server.errors.text == ""
        assert records == []


def test_the_defaults_are_those_of_the_documentation() -> None:
    from engineio_wsgi.http.handler import WebSocketHandler as Handler

    assert (Handler.max_request_line, Handler.max_header_size, Handler.max_header_count) == (8_192, 32_768, 100)
    assert (Handler.header_timeout, Handler.keepalive_timeout) == (20.0, 75.0)
    assert (Handler.body_timeout, Handler.write_timeout) == (60.0, 60.0)
    assert Handler.max_discarded_body == 65_536
    assert (Handler.max_message_size, Handler.per_message_deflate) == (1_000_000, False)
