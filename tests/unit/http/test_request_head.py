"""Request heads: which are accepted, how they are parsed, and the status of each refusal."""

from __future__ import annotations

import gc
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.http import request_head as requests
from engineio_wsgi.http.request_head import (
    CHUNKED,
    HeadParser,
    InvalidRequest,
    RequestHead,
    check_partial_head,
    fill_environ,
    parse_head,
)


class Limits:
    """The bounds of a head."""

    max_request_line = 100
    max_header_size = 200
    max_header_count = 5


def parse(*lines: str) -> RequestHead:
    return parse_head("\r\n".join([*lines, "", ""]).encode("latin-1"), Limits())


def refusal(*lines: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(*lines)
    return caught.value


def test_an_ordinary_request() -> None:
    request = parse("GET /a%20b?c=%20 HTTP/1.1", "Host: h", "X-Thing:  spaced \t", "X-Empty:")
    assert (request.command, request.path, request.version) == ("GET", "/a%20b?c=%20", "HTTP/1.1")
    assert request.line == "GET /a%20b?c=%20 HTTP/1.1"
    assert request.variables == {"HTTP_HOST": "h", "HTTP_X_THING": "spaced", "HTTP_X_EMPTY": ""}
    assert (request.length, request.close) == (None, False)


def test_the_environ() -> None:
    environ: dict[str, object] = {"SCRIPT_NAME": "stays?"}
    fill_environ(environ, parse("PUT /%C3%A9%2F?x=%20 HTTP/1.0", "Content-Type: a/b", "Content-Length: 3"))
    assert environ == {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/\xc3\xa9/",
        "QUERY_STRING": "x=%20",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "3",
    }


def test_repeated_headers_are_joined() -> None:
    request = parse("GET / HTTP/1.1", "Host: h", "Cookie: a=1", "x-a: 1", "cookie: b=2", "X-A: 2 ")
    assert request.variables == {"HTTP_HOST": "h", "HTTP_COOKIE": "a=1; b=2", "HTTP_X_A": "1,2"}


def test_the_first_content_type_counts() -> None:
    request = parse("POST / HTTP/1.1", "Host: h", "Content-Type: a/b", "Content-Type: c/d")
    assert request.variables["CONTENT_TYPE"] == "a/b"


def test_names_with_underscores_are_dropped() -> None:
    request = parse("GET / HTTP/1.1", "Host: h", "X_Real_Ip: 6.6.6.6", "Content_Length: 5", "X-Real-Ip: 1.1.1.1")
    assert request.variables == {"HTTP_HOST": "h", "HTTP_X_REAL_IP": "1.1.1.1"}
    assert request.length is None


@pytest.mark.parametrize(
    ("version", "connection", "close"),
    [
        ("1.1", None, False),
        ("1.1", "close", True),
        ("1.1", "Close", True),
        ("1.1", "keep-alive", False),
        ("1.1", "upgrade, close", True),
        ("1.0", None, True),
        ("1.0", "keep-alive", False),
        ("1.0", "Keep-Alive, Upgrade", False),
        ("1.0", "keep-alive, close", True),
    ],
)
def test_which_requests_close_the_connection(version: str, connection: str | None, close: bool) -> None:
    lines = [] if connection is None else [f"Connection: {connection}"]
    assert parse(f"GET / HTTP/{version}", "Host: h", *lines).close is close


def test_how_the_body_is_framed() -> None:
    assert parse("POST / HTTP/1.1", "Host: h", "Content-Length: 0").length == 0
    assert parse("POST / HTTP/1.1", "Host: h", "Content-Length: 12").length == 12
    assert parse("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: Chunked").length == CHUNKED


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://other/a?b", "/a?b", "other"),
        ("HTTP://other:80", "/", "other:80"),
        ("https://other?b", "/?b", "other"),
        ("ws://other:80/a", "/a", "other:80"),
        ("wss://[::1]/a", "/a", "[::1]"),
    ],
)
def test_absolute_targets(target: str, path: str, host: str) -> None:
    request = parse(f"GET {target} HTTP/1.1", "Host: h")
    assert request.path == path
    assert request.variables["HTTP_HOST"] == host


@pytest.mark.parametrize("line", ["GET http://other/a HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /a HTTP/1.0", "HEAD /a HTTP/1.1"])
def test_a_request_says_nothing_about_the_next_with_the_same_headers(line: str) -> None:
    parser = HeadParser()
    fields = b"\r\nHost: h\r\nX: y\r\n\r\n"
    for earlier in (line, "GET /a HTTP/1.1", line):
        parser.parse(earlier.encode() + fields, Limits())
        request = parser.parse(b"GET /b HTTP/1.1" + fields, Limits())
        assert (request.path, request.variables["HTTP_HOST"], request.close) == ("/b", "h", False)


def kept(parser: HeadParser, text: bytes) -> bool:
    """Whether a parser still has something of what it has read."""
    return any(text in each for each in gc.get_referents(parser) if isinstance(each, bytes))


def head_with(*lines: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: h", *lines, "", ""]).encode()


def test_the_headers_of_the_last_two_requests_are_kept_for_their_connection() -> None:
    parser = HeadParser()
    poll, post, other = head_with("Cookie: one"), head_with("Cookie: one", "Content-Length: 5"), head_with("Cookie: two")
    first = [parser.parse(head, Limits()).variables for head in (poll, post)]
    again = [parser.parse(head, Limits()).variables for head in (poll, post)]
    assert again == first
    assert all(map(operator.is_, again, first))
    parser.parse(other, Limits())
    assert parser.parse(poll, Limits()).variables is not first[0]
    assert HeadParser().parse(other, Limits()).variables is not parser.parse(other, Limits()).variables


@pytest.mark.parametrize("line", ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "via: 1.1 proxy"])
def test_headers_that_a_proxy_has_sent_are_not_kept(line: str) -> None:
    parser = HeadParser()
    parser.parse(head_with("Cookie: one", line), Limits())
    assert not kept(parser, b"Cookie: one")
    parser.parse(head_with("Cookie: two"), Limits())
    assert kept(parser, b"Cookie: two")


def test_the_limits_hold_for_repeated_headers() -> None:
    parser = HeadParser()
    head = head_with("Cookie: one")
    parser.parse(head, Limits())
    with pytest.raises(InvalidRequest, match="request line"):
        parser.parse(head.replace(b"/ ", b"/" + b"a" * Limits().max_request_line + b" "), Limits())


def test_no_header_name_is_remembered() -> None:
    names = dict(requests._KEYS)
    parse("GET / HTTP/1.1", "Host: h", "X-Api-Key-5ecret: x", "x_y: z")
    assert names == requests._KEYS


def test_the_asterisk_is_for_options() -> None:
    assert parse("OPTIONS * HTTP/1.1", "Host: h").path == "*"
    assert refusal("GET * HTTP/1.1", "Host: h").status == "400 Bad Request"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("BREW /pot HTTP/1.1", "501 Not Implemented"),
        ("get / HTTP/1.1", "501 Not Implemented"),
        ("CONNECT host:443 HTTP/1.1", "501 Not Implemented"),
        ("GET / HTTP/2.0", "505 HTTP Version Not Supported"),
        ("GET / HTTP/0.9", "505 HTTP Version Not Supported"),
        ("GET /", "400 Bad Request"),
        ("GET  / HTTP/1.1", "400 Bad Request"),
        ("GET /a b HTTP/1.1", "400 Bad Request"),
        ("GET / HTTP/1.1 ", "400 Bad Request"),
        ("GET\t/ HTTP/1.1", "400 Bad Request"),
        ("G\xe9T / HTTP/1.1", "400 Bad Request"),
        ("GET / HTTP/1.1\xe9", "400 Bad Request"),
        ("GET http://h\xe9/ HTTP/1.1", "400 Bad Request"),
        ("GET \xe9 HTTP/1.1", "400 Bad Request"),
        ("GET path HTTP/1.1", "400 Bad Request"),
        ("GET http://user@host/ HTTP/1.1", "400 Bad Request"),
        ("GET / RTSP/1.0", "400 Bad Request"),
        ("garbage", "400 Bad Request"),
    ],
)
def test_request_lines_that_are_refused(line: str, status: str) -> None:
    assert refusal(line, "Host: h").status == status


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Host: a", "Host: b"),
        ("Host: a", "X : b"),
        ("Host: a", "X: b\x00"),
        ("Host: a", "X: b\rY: c"),
        ("Host: a", "X: b\nY: c"),
        ("Host: a", " folded"),
        ("Host: a", "X: b", "\tfolded"),
        ("Host: a", "no colon"),
        ("Host: a", ": no name"),
        ("Host: a", "\xe9: b"),
    ],
)
def test_headers_that_are_refused(lines: tuple[str, ...]) -> None:
    assert refusal("GET / HTTP/1.1", *lines).status == "400 Bad Request"


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 3", "Content-Length: 3"),
        ("Content-Length: 3, 3",),
        ("Content-Length: +3",),
        ("Content-Length: -3",),
        ("Content-Length: 0x3",),
        ("Content-Length:",),
        ("Content-Length: 99999999999999999999999",),
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 3"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Content-Length: 3", "Connection: upgrade", "Upgrade: h2c, WebSocket"),
        ("Content-Length: 3", "Connection: upgrade", "Upgrade: h2c", "Upgrade: websocket"),
        ("Transfer-Encoding: chunked", "Connection: upgrade", "Upgrade: websocket"),
        ("Content-Length: 3", "Upgrade: websocket"),
    ],
)
def test_framing_that_is_refused(lines: tuple[str, ...]) -> None:
    assert refusal("POST / HTTP/1.1", "Host: h", *lines).status == "400 Bad Request"


def test_more_framing_that_is_refused() -> None:
    assert refusal("HEAD / HTTP/1.1", "Host: h", "Content-Length: 3").status == "400 Bad Request"
    assert refusal("POST / HTTP/1.0", "Transfer-Encoding: chunked").status == "400 Bad Request"
    assert refusal("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip, chunked").status == "501 Not Implemented"


def test_the_limits() -> None:
    line = "GET /" + "a" * (100 - 14) + " HTTP/1.1"
    assert parse(line, "Host: h").path == line.split()[1]
    assert refusal(line.replace("/a", "/aa"), "Host: h").status == "414 URI Too Long"
    filler = "X: " + "a" * (200 - 7 - 5 - 2)
    assert "HTTP_X" in parse("GET / HTTP/1.1", "Host: h", filler).variables
    assert refusal("GET / HTTP/1.1", "Host: h", filler + "aaa").status == "431 Request Header Fields Too Large"
    assert len(parse("GET / HTTP/1.1", "Host: h", *["X: y"] * 4).variables) == 2
    assert refusal("GET / HTTP/1.1", "Host: h", *["X: y"] * 5).status == "431 Request Header Fields Too Large"


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTT",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/1.1\r\nHost: h\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r",
    ],
)
def test_the_beginning_of_a_head_can_be_waited_for(data: bytes) -> None:
    check_partial_head(data, Limits())
    with pytest.raises(InvalidRequest):
        check_partial_head(b"\x00" + data, Limits())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"<policy-file-request/>\0", 400),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\n\n", 400),
        (b"GET /" + b"a" * 100, 414),
        (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 205, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 8, 431),
    ],
)
def test_what_need_not_be_waited_for(data: bytes, status: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_partial_head(data, Limits())
    assert caught.value.status.startswith(str(status))


@given(st.binary(max_size=80))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    for head in (data + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n" + data + b"\r\n\r\n"):
        end = head.find(b"\r\n\r\n") + 4
        try:
            request = parse_head(head[:end], Limits())
        except InvalidRequest as error:
            assert error.status[:3].isdigit()
            assert error.detail
        else:
            assert request.path.startswith(("/", "*"))
            assert all("\n" not in value and "\r" not in value for value in request.variables.values())
