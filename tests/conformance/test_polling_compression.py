"""Compression of poll responses."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from support.clients import PollingSession
from support.rawhttp import Response

LONG = "compressible " * 200


def answer(served: Any, accept: str | None, message: str = LONG) -> Response:
    """The raw response that carries ``message``."""
    session = PollingSession(served).open()
    session.say(message)
    return session.getting.get(session.target(), [] if accept is None else [("Accept-Encoding", accept)])


@pytest.mark.parametrize("accept", ["gzip", "deflate, gzip", "gzip;q=1.0, identity;q=0.5", "br, gzip"])
def test_gzip(serve: Any, accept: str) -> None:
    response = answer(serve(), accept)
    encoding = response.header("Content-Encoding")
    assert encoding in ("gzip", "deflate")
    plain = gzip.decompress(response.body) if encoding == "gzip" else zlib.decompress(response.body)
    assert plain.decode() == "4" + LONG
    assert len(response.body) < 500


def test_deflate(serve: Any) -> None:
    response = answer(serve(), "deflate")
    assert response.header("Content-Encoding") == "deflate"
    assert zlib.decompress(response.body).decode() == "4" + LONG


@pytest.mark.parametrize("accept", [None, "identity", "br", "gzip;q=0, deflate;q=0"])
def test_not_acceptable(serve: Any, accept: str | None) -> None:
    response = answer(serve(), accept)
    assert response.header("Content-Encoding") is None
    assert response.text == "4" + LONG


def test_below_the_threshold(serve: Any) -> None:
    response = answer(serve(), "gzip", "x" * 1022)
    assert response.header("Content-Encoding") is None
    assert response.text == "4" + "x" * 1022


def test_at_the_threshold(serve: Any) -> None:
    assert answer(serve(), "gzip", "x" * 1024).header("Content-Encoding") == "gzip"


def test_switched_off(serve: Any) -> None:
    response = answer(serve(http_compression=False), "gzip")
    assert response.header("Content-Encoding") is None
    assert response.text == "4" + LONG


@pytest.mark.ours
def test_other_threshold(serve: Any) -> None:
    import engineio_wsgi

    served = serve(http_compression=engineio_wsgi.HttpCompression(threshold=10))
    assert answer(served, "gzip", "x" * 20).header("Content-Encoding") == "gzip"


@pytest.mark.differs("sends no Vary")
def test_caches_are_told(serve: Any) -> None:
    assert "accept-encoding" in answer(serve(), "gzip").tokens("Vary")


@pytest.mark.ours
def test_a_message_may_be_sent_uncompressed(serve: Any) -> None:
    session = PollingSession(serve(app="silent")).open()
    session.served.socket(session.sid).send(LONG, compress=False)
    response = session.getting.get(session.target(), [("Accept-Encoding", "gzip")])
    assert response.header("Content-Encoding") is None
