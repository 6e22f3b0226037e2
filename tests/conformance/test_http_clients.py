"""What well-behaved clients and proxies send that a strict server could refuse: answered, and so is the next request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.plain import PlainServer

pytestmark = pytest.mark.ours

HOST = b"Host: host\r\n"
H2C = HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
POST = b"POST /open HTTP/1.1\r\n"
GET = b"GET /open HTTP/1.1\r\n"
ABC = b"Content-Length: 3\r\n\r\nabc"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NEXT = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"

#: the request, and the body that the application reads
REQUESTS = {
    "curl --http2, Java's and Ktor's default clients": (POST + H2C + ABC, "abc"),
    "the same in chunks": (POST + H2C + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n", "abc"),
    "the same without a body": (GET + H2C + b"\r\n", ""),
    "the same with an empty body": (POST + H2C + b"Content-Length: 0\r\n\r\n", ""),
    "an upgrade to TLS": (POST + HOST + b"Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n" + ABC, "abc"),
    "an upgrade that only a proxy was meant to see": (POST + HOST + b"Upgrade: h2c\r\n" + ABC, "abc"),
    "empty headers": (GET + HOST + b"Accept:\r\nUpgrade:\r\nConnection: \r\nExpect:\r\nCookie:\r\n\r\n", ""),
    "an empty host": (GET + b"Host:\r\n\r\n", ""),
    "bytes beyond ASCII in a header": (GET + HOST + b"X-Name: \xff\xe9\xc3\xa0\r\nCookie: n=\xc3\xa9\r\n\r\n", ""),
    "bytes beyond ASCII in a target": (b"GET /\xc3\xa9?n=\xe4 HTTP/1.1\r\n" + HOST + b"\r\n", ""),
    "a host in upper case with a dot": (GET + b"Host: EXAMPLE.org.:8000\r\n\r\n", ""),
    "an IPv6 host": (GET + b"Host: [fe80::1%25eth0]:8000\r\n\r\n", ""),
    "a host with an underscore": (GET + b"Host: my_service\r\n\r\n", ""),
    "through an old proxy": (b"GET http://host/open HTTP/1.1\r\n" + HOST + b"Proxy-Connection: keep-alive\r\n\r\n", ""),
    "a WebSocket URL through a proxy": (b"GET ws://host:80/open HTTP/1.1\r\n" + HOST + b"\r\n", ""),
    "HTTP/1.0 with keep-alive": (b"POST /open HTTP/1.0\r\nConnection: Keep-Alive\r\n" + ABC, "abc"),
    "trailers": (POST + HOST + b"Trailer: Checksum\r\nTE: trailers\r\n" + CHUNKED
                 + b"\r\n3;a=b\r\nabc\r\n0\r\nChecksum: 1\r\n\r\n", "abc"),
    "trailers of framing": (POST + HOST + CHUNKED
                            + b"\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n", "abc"),
    "an unknown expectation": (POST + HOST + b"Expect: the-best\r\n" + ABC, "abc"),
    "a body that did not wait": (POST + HOST + b"Expect: 100-Continue\r\n" + ABC, "abc"),
    "a GET with a body": (GET + HOST + ABC, "abc"),
    "a HEAD with an empty body": (b"HEAD /open HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n", ""),
    "blanks around a length": (POST + HOST + b"Content-Length:   3  \r\n\r\nabc", "abc"),
    "an empty line behind a body": (POST + HOST + ABC + b"\r\n", "abc"),
}


class Application:
    """Keeps the paths and bodies."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read().decode()
        self.seen.append((environ["PATH_INFO"], body))
        answer = b"" if environ["REQUEST_METHOD"] == "HEAD" else json.dumps(body).encode()
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def server(application: Application) -> Iterator[PlainServer]:
    running = PlainServer(application)
    yield running
    running.stop()


@pytest.mark.parametrize(("request_bytes", "body"), REQUESTS.values(), ids=REQUESTS)
def test_answered(server: PlainServer, application: Application, request_bytes: bytes, body: str) -> None:
    connection = server.connect(request_bytes + NEXT)
    assert [connection.response().status, connection.response().status] == [200, 200]
    assert [seen for _, seen in application.seen] == [body, ""]
    assert application.seen[1][0] == "/next"
    assert server.errors.text == ""


def test_an_upgrade_that_waits_for_its_body_to_be_asked_for(server: PlainServer, application: Application) -> None:
    connection = server.connect(POST + H2C + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
    connection.send(b"abc" + NEXT)
    assert [connection.response().status, connection.response().status] == [200, 200]
    assert application.seen == [("/open", "abc"), ("/next", "")]


def test_a_poll_of_a_client_that_asks_for_http2(serve: Any) -> None:
    """The engine ignores an upgrade that it does not take, as the server does."""
    served = serve()
    headers = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]
    connection = served.connect()
    target = f"{served.path}?EIO=4&transport=polling"
    sid = json.loads(connection.get(target, headers).body[1:])["sid"]
    assert connection.post(f"{target}&sid={sid}", b"4hello", headers).body == b"ok"
    assert connection.get(f"{target}&sid={sid}", headers).body == b"4hello"


def test_what_could_control_a_terminal_is_escaped_in_the_log(server: PlainServer) -> None:
    server.connect(b"GET /\xc2\x9b31m HTTP/1.1\r\n" + HOST + b"\r\n").response()
    assert '"GET /\\xc2\\x9b31m HTTP/1.1" 200' in server.log.lines[-1]
