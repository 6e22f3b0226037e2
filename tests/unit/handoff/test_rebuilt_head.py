"""Heads of requests that are written anew from their environs."""

from __future__ import annotations

from typing import Any

import pytest

from engineio_wsgi.handoff.rebuilt_head import rebuild_head

ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/engine.io/", "QUERY_STRING": "EIO=4&sid=a%20b",
    "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "example.org", "HTTP_X_FORWARDED_FOR": "192.0.2.7",
    "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "4", "wsgi.url_scheme": "http",
}


def test_a_head() -> None:
    assert rebuild_head(ENVIRON) == (
        b"POST /engine.io/?EIO=4&sid=a%20b HTTP/1.1\r\nHost: example.org\r\nX-Forwarded-For: 192.0.2.7\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\n")


def test_a_target_that_the_server_has_kept() -> None:
    head = rebuild_head({**ENVIRON, "RAW_URI": "/engine%2Eio/?EIO=4"})
    assert head is not None
    assert head.startswith(b"POST /engine%2Eio/?EIO=4 HTTP/1.1\r\n")


def test_a_path_is_escaped() -> None:
    head = rebuild_head({**ENVIRON, "PATH_INFO": "/a b/\xc3\xa4?/"})
    assert head is not None
    assert head.startswith(b"POST /a%20b/%C3%A4%3F/?EIO=4")


@pytest.mark.parametrize("change", [
    {"RAW_URI": "/elsewhere/"}, {"SCRIPT_NAME": "/mounted"}, {"PROXY_PROTOCOL": "TCP4"}, {"HTTP_COOKIE": "a\r\nb: c"},
    {"HTTP_COOKIE": "a\0"}, {"CONTENT_TYPE": "a\nb"},
], ids=lambda change: next(iter(change)))
def test_an_environ_that_no_head_would_give(change: dict[str, str]) -> None:
    assert rebuild_head({**ENVIRON, **change}) is None
