"""The options with several parts: each part is checked."""

from __future__ import annotations

import re

import pytest

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.values import Cookie, Cors, Deflate, HttpCompression

PARTS = [
    (Cookie, {"name": "a b"}),
    (Cookie, {"path": 5}),
    (Cookie, {"path": "/; Domain=evil.example"}),
    (Cookie, {"domain": "a\r\nX: y"}),
    (Cookie, {"domain": 5}),
    (Cookie, {"samesite": "lax"}),
    (Cookie, {"httponly": "false"}),
    (Cookie, {"secure": 1}),
    (Cookie, {"max_age": "60"}),
    (Cookie, {"max_age": -1}),
    (Cookie, {"expires": "tomorrow"}),
    (Cookie, {"priority": "high"}),
    (Cookie, {"partitioned": 1, "secure": True}),
    (Cookie, {"partitioned": True}),
    (Deflate, {"threshold": -1}),
    (Deflate, {"threshold": True}),
    (Deflate, {"level": 10}),
    (Deflate, {"memory_level": 0}),
    (Deflate, {"context_takeover": None}),
    (HttpCompression, {"threshold": "1024"}),
    (HttpCompression, {"level": -1}),
    (Cors, {"origins": None}),
    (Cors, {"methods": "GET"}),
    (Cors, {"methods": None}),
    (Cors, {"headers": "X-A"}),
    (Cors, {"headers": ("X-A\r\nX-B: c",)}),
    (Cors, {"expose": ("",)}),
    (Cors, {"expose": (5,)}),
    (Cors, {"credentials": "no"}),
    (Cors, {"max_age": 1.5}),
]


@pytest.mark.parametrize(("kind", "arguments"), PARTS)
def test_parts_are_checked_too(kind: type, arguments: dict[str, object]):
    option = {Cookie: "cookie", Cors: "cors", Deflate: "per_message_deflate", HttpCompression: "http_compression"}[kind]
    with pytest.raises(ConfigurationError, match=rf"^{option}: expected .*; got "):
        kind(**arguments)


@pytest.mark.parametrize("kind", [Cookie, Cors, Deflate, HttpCompression])
def test_defaults_are_values_that_are_accepted(kind: type):
    assert kind() == kind()


def test_lists_are_copied_into_tuples():
    cors = Cors(origins=["null", re.compile("x")], methods=["GET"], headers=["X-A"], expose=["X-B"], max_age=-1)
    assert (cors.origins, cors.methods, cors.headers, cors.expose) == (("null", re.compile("x")), ("GET",), ("X-A",), ("X-B",))
