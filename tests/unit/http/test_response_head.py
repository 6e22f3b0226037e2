"""Response heads: statuses, headers, and how the end of a response is framed."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from engineio_wsgi.http import response_head as response_heads
from engineio_wsgi.http.response_head import ResponseHead, date_line, keep_header

DATED = ("Date", "now")


def framed(
    status: str,
    headers: list[tuple[str, str]],
    length: int | None = None,
    *,
    version: str = "HTTP/1.1",
    close: bool = False,
    is_head: bool = False,
) -> tuple[list[str], ResponseHead]:
    head = ResponseHead(status, [DATED, *headers])
    data = head.frame(length, version, close, is_head)
    assert data.endswith(b"\r\n\r\n")
    lines = data.decode("latin-1").split("\r\n")
    assert lines[:2] == ["HTTP/1.1 " + status, "Date: now"]
    return lines[2:-2], head


def test_the_date() -> None:
    line = date_line().decode()
    assert line.startswith("Date: ")
    assert line.endswith(" GMT\r\n")
    assert parsedate_to_datetime(line[6:].strip())
    assert date_line() is date_line()


def test_an_announced_length_stands() -> None:
    lines, head = framed("200 OK", [("Content-Length", "5"), ("X", "\xe9")], 99)
    assert lines == ["Content-Length: 5", "X: \xe9"]
    assert (head.left, head.chunked, head.close) == (5, False, False)


def test_a_known_length_is_announced() -> None:
    lines, head = framed("200 OK", [], 5)
    assert lines == ["Content-Length: 5"]
    assert head.left == 5


def test_an_unknown_length_goes_out_in_chunks() -> None:
    lines, head = framed("200 OK", [])
    assert lines == ["Transfer-Encoding: chunked"]
    assert (head.left, head.chunked, head.close) == (None, True, False)


def test_an_unknown_length_ends_an_old_connection() -> None:
    lines, head = framed("200 OK", [], version="HTTP/1.0")
    assert lines == ["Connection: close"]
    assert (head.left, head.chunked, head.close) == (None, False, True)


def test_an_old_connection_that_is_kept_is_told_so() -> None:
    lines, head = framed("200 OK", [], 0, version="HTTP/1.0")
    assert lines == ["Content-Length: 0", "Connection: keep-alive"]
    assert head.close is False


def test_the_end_is_announced() -> None:
    assert framed("200 OK", [], 0, close=True)[0] == ["Content-Length: 0", "Connection: close"]


def test_the_application_may_end_the_connection() -> None:
    lines, head = framed("200 OK", [("Connection", "Close")], 0)
    assert lines == ["Connection: Close", "Content-Length: 0"]
    assert head.close is True


def test_the_application_cannot_keep_a_connection_that_ends() -> None:
    assert framed("200 OK", [("Connection", "keep-alive")], close=True)[1].close is True


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_no_body_no_framing(status: str) -> None:
    lines, head = framed(status, [])
    assert lines == []
    assert (head.left, head.chunked, head.close) == (0, False, False)


def test_head_is_answered_as_get_would_be_but_for_the_body() -> None:
    lines, head = framed("200 OK", [], 5, is_head=True)
    assert lines == ["Content-Length: 5"]
    assert head.left == 0
    assert framed("200 OK", [], 0, is_head=True)[0] == []
    assert framed("200 OK", [("Content-Length", "7")], 0, is_head=True)[0] == ["Content-Length: 7"]


def test_the_server_frames_what_it_sends() -> None:
    lines, head = framed("200 OK", [("Transfer-Encoding", "chunked")], 3)
    assert lines == ["Content-Length: 3"]
    assert head.chunked is False


def test_switching_protocols_has_no_framing() -> None:
    lines, head = framed("101 Switching Protocols", [("Upgrade", "x")])
    assert lines == ["Upgrade: x"]
    assert head.close is True


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK", [("X", "a\r\nY: b")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X\r\nY", "a")]),
        ("200 OK\r\nX: y", []),
        ("OK", []),
        ("200 OK", [("X", "\u20ac")]),
        ("200 OK", [("Content-Length", "many")]),
        ("200 OK", [("Content-Length", "-1")]),
    ],
)
def test_values_that_would_break_the_head(status: str, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError):
        ResponseHead(status, headers)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (b"200 OK", []),
        ("200 OK", [("X", 1)]),
        ("200 OK", [("X", b"a")]),
        ("200 OK", [(1, "a")]),
        (200, []),
    ],
)
def test_types(status: Any, headers: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        ResponseHead(status, headers)


# -- heads that are kept


@pytest.mark.parametrize("header", [("Set-Cookie", "a=b"), ("Location", "/a"), ("ETag", '"a"'), ("X-Token", "a"),
                                    ("Access-Control-Allow-Origin", "https://of-one-client.example")])
def test_no_head_with_something_of_one_client_is_kept(header: tuple[str, str]) -> None:
    known = dict(response_heads._KNOWN)
    ResponseHead("200 OK", [("Content-Type", "text/plain"), header])
    assert known == response_heads._KNOWN


def test_heads_of_what_the_application_has_configured_are_kept() -> None:
    header = ("Access-Control-Allow-Origin", "https://configured.example")
    keep_header(*header)
    ResponseHead("200 OK", [("Content-Type", "text/plain"), header])
    assert ("200 OK", ("Content-Type", "text/plain"), header) in response_heads._KNOWN
    assert framed("200 OK", [header], 0)[0] == [": ".join(header), "Content-Length: 0"]


def test_no_number_of_heads_fills_the_memory() -> None:
    for length in range(2 * response_heads.MAX_KNOWN):
        ResponseHead("200 OK", [("Content-Length", str(length))])
    assert len(response_heads._KNOWN) <= response_heads.MAX_KNOWN
