"""The format of the messages between workers: everything comes back as it was, and garbage is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.cluster import messages
from engineio_wsgi.cluster.messages import (
    VERSION,
    Action,
    Call,
    Kind,
    Message,
    MovedConnection,
    Refusal,
    Request,
    read_answer,
    read_result,
    write_answer,
    write_result,
)
from engineio_wsgi.errors import BadMessage
from engineio_wsgi.http.response import Response
from engineio_wsgi.session.delivery import Delivery, OnSlow

#: with lone surrogates and NUL
TEXTS = st.text(st.characters(exclude_categories=()))
HEADERS = st.dictionaries(TEXTS, TEXTS, max_size=5)
ADDRESSES = st.one_of(st.just(""), st.tuples(st.text("0123456789abcdef:.", min_size=1), st.integers(0, 65_535)),
                      st.tuples(st.just("::1"), st.integers(0, 65_535), st.integers(0, 9), st.integers(0, 1 << 31)))
MOVED = st.builds(MovedConnection, TEXTS, TEXTS, ADDRESSES, HEADERS, st.integers(0, 255), st.tuples(TEXTS, TEXTS),
                        st.none() | HEADERS, st.just(False))
READERS: dict[Kind, Callable[[Message], Any]] = {
    Kind.CONNECTION: MovedConnection.of, Kind.REQUEST: Request.of, Kind.REFUSED: Refusal.of, Kind.ANSWER: read_answer,
    Kind.CALL: Call.of, Kind.RESULT: read_result,
}


def sent(message: Message) -> Message:
    """What arrives of it."""
    return Message.parse(message.encode())


@given(st.lists(TEXTS), st.binary())
def test_fields_and_body_come_back(fields: list[str], body: bytes) -> None:
    message = sent(Message(Kind.DATA, fields, body))
    assert (list(message.fields), message.body) == (fields, body)


@given(MOVED)
def test_connection_comes_back(connection: MovedConnection) -> None:
    assert MovedConnection.of(sent(connection.message(b"x"))) == connection


def test_accepted_websocket_comes_back() -> None:
    connection = MovedConnection("terms", "sid", ("127.0.0.1", 1), {}, 0, ("", ""), {"PATH_INFO": "/"}, True)
    assert MovedConnection.of(sent(connection.message(b""))) == connection


@given(HEADERS, st.binary())
def test_request_comes_back(environ: dict[str, str], body: bytes) -> None:
    request = Request("terms", "sid", {"REQUEST_METHOD": "GET", **environ})
    message = sent(request.message(body))
    assert (Request.of(message), message.body) == (request, body)


@given(TEXTS, st.lists(st.tuples(TEXTS, TEXTS)))
def test_answer_comes_back(status: str, headers: list[tuple[str, str]]) -> None:
    answered = Response(status, headers, b"body")
    assert read_answer(sent(write_answer(answered))) == answered


@given(st.none() | TEXTS.filter(bool), st.sets(TEXTS), st.booleans(), st.sampled_from(OnSlow), st.none() | TEXTS.filter(bool))
def test_broadcast_comes_back(to: str | None, exclude: set[str], compress: bool, on_slow: OnSlow, key: str | None) -> None:
    delivery = Delivery(to, frozenset(exclude), compress, on_slow, key)
    assert Call.of(sent(Call.broadcast("group", delivery).message("data"))).delivery == delivery


@given(st.sampled_from(Action), TEXTS, st.one_of(TEXTS, st.binary()), st.booleans())
def test_call_comes_back(action: Action, sid: str, data: str | bytes, compress: bool) -> None:
    message = sent(Call("group", action, (sid,), compress=compress).message(data))
    call = Call.of(message)
    assert call == Call("group", action, (sid,), "text" if isinstance(data, str) else "binary", compress)
    assert call.data(message.body) == data


@pytest.mark.parametrize("refusal", Refusal)
def test_refusal_comes_back(refusal: Refusal) -> None:
    assert Refusal.of(sent(refusal.message())) is refusal


@given(st.integers(0, 1 << 62))
def test_result_comes_back(sessions: int) -> None:
    assert read_result(sent(write_result(sessions))) == sessions


@given(st.binary())
def test_bytes_that_are_not_a_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        Message.parse(data[:messages._PREFIX.size - 1])


@given(st.sampled_from(Kind), st.binary(max_size=100), st.binary(max_size=100))
def test_any_head_is_read_or_refused(kind: Kind, head: bytes, body: bytes) -> None:
    data = messages._PREFIX.pack(VERSION, kind.value, len(head), len(body)) + head + body
    try:
        READERS.get(kind, lambda message: message)(Message.parse(data))
    except BadMessage as error:
        assert str(error)


@given(st.sampled_from([*READERS]), st.lists(st.one_of(TEXTS, st.sampled_from(["1", "2", "handshake", "send", "99999999"])),
                                               max_size=16))
def test_any_fields_are_read_or_refused(kind: Kind, fields: list[str]) -> None:
    try:
        READERS[kind](Message(kind, fields))
    except BadMessage as error:
        assert str(error)


@pytest.mark.parametrize("kind", READERS)
def test_a_message_of_another_kind_is_refused(kind: Kind) -> None:
    with pytest.raises(BadMessage, match=f"expected {kind.name}, got TAKEN"):
        READERS[kind](Message(Kind.TAKEN))


@pytest.mark.parametrize(("message", "why"), [
    (Message(Kind.DATA, ("x" * messages.MAX_HEAD,)), "too large"),
    (Message(Kind.DATA, ("\0" * 10, "x" * messages.MAX_HEAD)), "too large"),
])
def test_a_message_that_is_too_large_is_not_sent(message: Message, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        message.encode()


@pytest.mark.parametrize(("data", "why"), [
    (messages._PREFIX.pack(VERSION - 1, b"D", 0, 0), "run the same version"),
    (messages._PREFIX.pack(VERSION, b"?", 0, 0), "unknown kind"),
    (messages._PREFIX.pack(VERSION, b"D", messages.MAX_HEAD + 1, 0), "too large"),
    (messages._PREFIX.pack(VERSION, b"D", 0, messages.MAX_BODY + 1), "too large"),
    (messages._PREFIX.pack(VERSION, b"D", 0, 1), "not as long as"),
    (messages._PREFIX.pack(VERSION, b"D", 2, 0) + b"\0\xff", "not UTF-8"),
])
def test_why_bytes_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        Message.parse(data)
