"""http/response.py: the engine's own responses."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.errors import ErrorCode, Forbidden, HandshakeRefused, PayloadTooLarge, RequestRefused, ServerClosing
from engineio_wsgi.http.response import Response, finish, payload, refused
from engineio_wsgi.options.values import HttpCompression

SETTINGS = HttpCompression(threshold=1024)


def headers_of(response: Response) -> dict[str, str]:
    """Its headers by name; none is there twice, and none could become two."""
    headers = dict(response.headers)
    assert len(headers) == len(response.headers)
    assert all(text.isprintable() for header in response.headers for text in header)
    assert headers["Content-Length"] == str(len(response.body))
    return headers


@pytest.mark.parametrize("compression", [SETTINGS, None])
@pytest.mark.parametrize("content_type", ["text/plain; charset=UTF-8", "application/octet-stream", "text/html"])
def test_an_answer(content_type: str, compression: HttpCompression | None) -> None:
    response = finish(payload(b"4hello", content_type, True), {"HTTP_ACCEPT_ENCODING": "gzip"}, compression)
    assert (response.status, response.body) == ("200 OK", b"4hello")
    assert headers_of(response) == {
        "Content-Type": content_type,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Length": "6",
    }


def test_a_compressed_answer() -> None:
    body = b"4" + b"x" * 2000
    response = finish(payload(body, "text/plain; charset=UTF-8", True), {"HTTP_ACCEPT_ENCODING": "gzip"}, SETTINGS)
    assert gzip.decompress(response.body) == body
    headers = headers_of(response)
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("environ", [{}, {"HTTP_ACCEPT_ENCODING": "br"}])
def test_an_answer_that_could_have_been_compressed_varies(environ: dict[str, str]) -> None:
    response = finish(payload(b"x" * 2000, "text/plain", True), environ, SETTINGS)
    assert response.body == b"x" * 2000
    headers = headers_of(response)
    assert headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize(("allowed", "compression"), [(True, None), (False, SETTINGS)])
def test_an_answer_that_must_not_be_compressed(allowed: bool, compression: HttpCompression | None) -> None:
    response = finish(payload(b"x" * 2000, "text/plain", allowed), {"HTTP_ACCEPT_ENCODING": "gzip"}, compression)
    assert response.body == b"x" * 2000
    assert "Content-Encoding" not in headers_of(response)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (0, "Transport unknown"),
        (1, "Session ID unknown"),
        (2, "Bad handshake method"),
        (3, "Bad request"),
        (4, "Forbidden"),
        (5, "Unsupported protocol version"),
    ],
)
def test_the_error_table(code: int, message: str) -> None:
    response = refused(RequestRefused(ErrorCode(code)))
    assert response.status == ("403 Forbidden" if code == 4 else "400 Bad Request")
    assert json.loads(response.body) == {"code": code, "message": message}
    headers = headers_of(response)
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"


def test_a_refusal_keeps_its_context_to_itself() -> None:
    response = refused(Forbidden("log in first", {"user": "secret"}))
    assert json.loads(response.body) == {"code": 4, "message": "log in first"}
    assert b"secret" not in response.body


def test_a_refusals_message_stays_in_the_body() -> None:
    message = 'a"b\r\nSet-Cookie: x=y\r\n\r\n</script>\u2028\ud800'
    response = refused(Forbidden(message))
    headers_of(response)
    assert json.loads(response.body)["message"] == message
    assert b"\n" not in response.body


def test_a_body_is_spelt_as_the_reference_servers() -> None:
    assert refused(RequestRefused(ErrorCode(1))).body == b'{"code":1,"message":"Session ID unknown"}'
    assert refused(Forbidden('"\u00fc"')).body == '{"code":4,"message":"\\"\u00fc\\""}'.encode()


def test_an_explanation_goes_into_a_header() -> None:
    response = refused(RequestRefused(ErrorCode.BAD_REQUEST, "Bad request: the moon is full"))
    assert response.body == b'{"code":3,"message":"Bad request"}'
    assert headers_of(response)["Engineio-Reason"] == "the moon is full"


def test_there_is_no_header_without_an_explanation() -> None:
    for refusal in (RequestRefused(ErrorCode.BAD_REQUEST), Forbidden("log in first")):
        assert "Engineio-Reason" not in headers_of(refused(refusal))


@given(st.text(max_size=500))
def test_an_explanation_is_a_header_whatever_it_says(text: str) -> None:
    reason = headers_of(refused(RequestRefused(ErrorCode.BAD_REQUEST, text))).get("Engineio-Reason", "")
    assert len(reason) <= 200
    assert reason.isascii()
    assert reason.isprintable()


def test_a_refusal_without_a_body() -> None:
    response = refused(RequestRefused(ErrorCode.BAD_REQUEST, "Bad request: twice", bare=True))
    assert (response.status, response.body) == ("400 Bad Request", b"")
    assert ("Engineio-Reason", "twice") in response.headers
    assert ("Content-Length", "0") in response.headers


def test_a_refusal_with_a_status_of_its_own() -> None:
    assert refused(ServerClosing(3)).status == "503 Service Unavailable"


def test_a_refusal_with_headers_of_its_own() -> None:
    response = refused(HandshakeRefused("426 Upgrade Required", "version 12", [("Sec-WebSocket-Version", "13")]))
    assert response.status == "426 Upgrade Required"
    assert headers_of(response)["Sec-WebSocket-Version"] == "13"


def test_too_large() -> None:
    response = refused(PayloadTooLarge(2_000_000, 1_000_000))
    assert response.status.startswith("413 ")
    assert response.body == b""
    reason = headers_of(response)["Engineio-Reason"]
    assert "2000000" in reason and "1000000" in reason
    assert "max_http_buffer_size" in reason
    assert "Connection" not in headers_of(response), "hop-by-hop headers are the HTTP server's (PEP 3333)"
