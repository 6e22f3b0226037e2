"""The error tree: what catches what, and what a client and an operator are told."""

from __future__ import annotations

import ast
import builtins
import errno
from collections.abc import Iterator
from pathlib import Path

import geventwebsocket.exceptions
import pytest

import engineio_wsgi
from engineio_wsgi import errors
from engineio_wsgi.errors import (
    ChunkedError,
    ConfigurationError,
    EngineError,
    ErrorCode,
    Forbidden,
    FrameError,
    HandshakeRefused,
    HttpRefusal,
    InvalidRequest,
    PayloadTooLarge,
    PeerError,
    ProtocolError,
    RequestRefused,
    ServerClosing,
    SocketClosed,
    UsageError,
    WriteTimeout,
)

#: the protocol's table
TABLE = {
    0: "Transport unknown",
    1: "Session ID unknown",
    2: "Bad handshake method",
    3: "Bad request",
    4: "Forbidden",
    5: "Unsupported protocol version",
}


def test_the_table() -> None:
    assert {int(code): code.message for code in ErrorCode} == TABLE


@pytest.mark.parametrize("code", ErrorCode)
def test_the_status_of_a_code(code: ErrorCode) -> None:
    status = "403 Forbidden" if code == 4 else "400 Bad Request"
    assert code.status == status
    assert RequestRefused(code).status == status


# -- what catches what


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "ErrorCode"])
def test_everything_is_an_engine_error(name: str) -> None:
    assert issubclass(getattr(errors, name), EngineError)
    assert issubclass(getattr(errors, name), Exception)


def is_exception(name: str) -> bool:
    """Whether a class of this name is an exception: one of Python's, or of the tree."""
    kind = getattr(errors, name, None) or getattr(builtins, name, None) or getattr(geventwebsocket.exceptions, name, None)
    return isinstance(kind, type) and issubclass(kind, BaseException)


def exception_classes(path: Path) -> Iterator[str]:
    """The exception classes that a module defines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and any(is_exception(ast.unparse(base).rpartition(".")[2]) for base in node.bases):
            yield f"{path.name}: {node.name}"


def test_every_exception_class_of_the_package_is_here() -> None:
    package = Path(errors.__file__).parent
    elsewhere = [path for path in package.rglob("*.py") if path != Path(errors.__file__)]
    assert [name for path in elsewhere for name in exception_classes(path)] == []
    here = {name.removeprefix("errors.py: ") for name in exception_classes(Path(errors.__file__))}
    assert here == set(errors.__all__) - {"ErrorCode"}


@pytest.mark.parametrize(("kind", "base"), [
    (ConfigurationError, ValueError), (WriteTimeout, TimeoutError), (WriteTimeout, UsageError), (SocketClosed, UsageError),
    (ProtocolError, PeerError), (PayloadTooLarge, ProtocolError), (RequestRefused, PeerError), (Forbidden, RequestRefused),
    (ServerClosing, RequestRefused), (HandshakeRefused, RequestRefused), (FrameError, ProtocolError), (InvalidRequest, OSError),
    (ChunkedError, ValueError), (HttpRefusal, PeerError), (RequestRefused, HttpRefusal), (InvalidRequest, HttpRefusal),
    (PayloadTooLarge, HttpRefusal),
])
def test_what_else_it_is(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, base)


@pytest.mark.parametrize("kind", [ConfigurationError, SocketClosed, UsageError, WriteTimeout])
def test_what_an_application_did_is_not_the_peers_fault(kind: type[Exception]) -> None:
    assert not issubclass(kind, PeerError)


@pytest.mark.parametrize("name", ["EngineError", "ConfigurationError", "SocketClosed", "WriteTimeout", "Forbidden",
                                  "ProtocolError", "PayloadTooLarge"])
def test_the_public_ones(name: str) -> None:
    assert getattr(engineio_wsgi, name) is getattr(errors, name)
    assert name in engineio_wsgi.__all__


# -- what they say


@pytest.mark.parametrize(("error", "text", "reason"), [
    (SocketClosed(), "the session is closed", None),
    (SocketClosed(reason="ping timeout"), "the session is closed (ping timeout)", "ping timeout"),
    (SocketClosed("it is over"), "it is over", None),
    (SocketClosed("it is over", "forced close"), "it is over (forced close)", "forced close"),
])
def test_socket_closed(error: SocketClosed, text: str, reason: str | None) -> None:
    assert (str(error), error.reason) == (text, reason)


def test_payload_too_large_names_size_limit_and_option() -> None:
    error = PayloadTooLarge(2_000_001, 1_000_000)
    assert str(error) == "2000001 bytes were sent or announced, at most 1000000 are accepted (max_http_buffer_size)"
    assert (error.size, error.limit) == (2_000_001, 1_000_000)


def test_close_codes() -> None:
    assert (ProtocolError("x").close_code, PayloadTooLarge(2, 1).close_code) == (1002, 1009)


# -- refusals


def test_a_refusal_says_what_the_table_says() -> None:
    refusal = RequestRefused(ErrorCode.BAD_REQUEST)
    assert (refusal.code, refusal.message, str(refusal)) == (3, "Bad request", "Bad request")
    assert (refusal.context, refusal.headers, refusal.request) == ({}, (), None)


def test_a_refusal_in_words_of_its_own() -> None:
    refusal = RequestRefused(ErrorCode.BAD_REQUEST, "Bad request: no", {"name": "NO"})
    assert (refusal.message, str(refusal), refusal.context) == ("Bad request: no", "Bad request: no", {"name": "NO"})


def test_a_refusals_context_is_its_own() -> None:
    context = {"name": "NO"}
    refusal = RequestRefused(ErrorCode.BAD_REQUEST, None, context)
    refusal.context["more"] = 1
    assert context == {"name": "NO"}


@pytest.mark.parametrize(("refusal", "message"), [(Forbidden(), "Forbidden"), (Forbidden("log in first"), "log in first"),
                                                  (Forbidden(""), "Forbidden")])
def test_forbidden(refusal: Forbidden, message: str) -> None:
    assert (refusal.code, refusal.status, refusal.message) == (4, "403 Forbidden", message)


def test_an_invalid_upgrade_has_the_status_and_headers_of_the_rfc() -> None:
    refusal = HandshakeRefused("426 Upgrade Required", "version 8", [("Sec-WebSocket-Version", "13")])
    assert (refusal.code, refusal.status) == (3, "426 Upgrade Required")
    assert (refusal.message, refusal.detail) == ("Bad request: version 8", "version 8")
    assert refusal.headers == (("Sec-WebSocket-Version", "13"),)
    assert refusal.context == {"name": "TRANSPORT_HANDSHAKE_ERROR", "error": "version 8"}


def test_a_server_that_closes_is_unavailable() -> None:
    refusal = ServerClosing(3)
    assert (refusal.code, refusal.status) == (3, "503 Service Unavailable")
    assert refusal.message == "Bad request: the server is shutting down"
    assert refusal.headers == (("Retry-After", "3"),)


def test_what_ends_a_foreign_loop_is_a_lost_connection_to_it() -> None:
    error = errors.ConnectionDetached(errno.ENOTCONN, "taken")
    assert isinstance(error, EngineError)
    assert isinstance(error, OSError)
    assert error.errno == error.args[0] == errno.ENOTCONN
