"""http3/session.py: a session's request and its answer, its stream and its end, with a connection that records what is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engineio_wsgi.http.response import Response
from engineio_wsgi.http3.capsules import CapsuleReader, encode_close
from engineio_wsgi.http3.offer import OFFER, SessionOffer, offer_in
from engineio_wsgi.http3.session import Session

OK = Response("200 OK", [], b"")
NUMBER = 4


class Owner:
    """A connection."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        #: whether the response has ended
        self.ended = False
        self.refused: list[int] = []
        self.closed: list[Session] = []

    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]], end: bool) -> None:
        """The answer to the request."""
        assert (stream_id, self.headers, self.ended) == (NUMBER, [], False)
        self.headers, self.ended = headers, end

    def send_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """A part of its body."""
        assert (stream_id, self.ended) == (NUMBER, False)
        self.body += data
        self.ended = end

    def refuse_stream(self, stream_id: int) -> None:
        """Take nothing of a stream."""
        self.refused.append(stream_id)

    def flush(self) -> None:
        """Everything is sent at once."""

    def on_session_closed(self, session: Session) -> None:
        """The session has ended."""
        self.closed.append(session)


class FakeStream:
    """The stream of a session."""

    def __init__(self) -> None:
        self.goodbye: tuple[int, str] | None = None
        self.lost: OSError | None = None

    def on_goodbye(self, code: int, reason: str) -> None:
        """The client has closed the session."""
        self.goodbye = (code, reason)

    def on_lost(self, error: OSError) -> None:
        """Nothing more comes."""
        self.lost = error


class Made:
    """A session of a connection, which the application may have admitted."""

    def __init__(self, admitted: bool = True, response: Response | None = OK) -> None:
        self.owner = Owner()
        self.offer = SessionOffer()
        self.session = Session(self.owner, NUMBER, {OFFER: self.offer}, self.offer)
        self.served: list[Any] = []
        self.events: list[Any] = []
        self.session.on_end(lambda: self.events.append("end"))
        if admitted:
            self.offer.admit(self.served.append)
        if response is not None:
            self.session.answer(response)

    def stream(self) -> FakeStream:
        """The client opens a stream."""
        stream: Any = FakeStream()
        assert self.session.on_new_stream(stream)
        return stream

    @property
    def closing(self) -> tuple[int, str] | None:
        """The code and the reason with which the session was closed."""
        return CapsuleReader().feed(self.owner.body)


# -- the answer


def test_an_offer_is_in_the_environ_of_a_request_for_a_session() -> None:
    made = Made(response=None)
    assert offer_in(made.session.environ) is made.offer
    assert offer_in({}) is None


def test_a_session_that_is_admitted_is_served_once_the_client_knows() -> None:
    made = Made(response=None)
    assert made.served == []
    made.session.answer(Response("200 OK", [("Content-Length", "0"), ("X-A", "b"), ("Connection", "close")], b""))
    assert made.served == [made.session]
    assert made.owner.headers == [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02"), (b"x-a", b"b")]
    assert (made.owner.ended, made.session.closed, made.events) == (False, False, [])


@pytest.mark.parametrize("body", [b"", b"not you"])
def test_a_refusal(body: bytes) -> None:
    made = Made(response=Response("403 Forbidden", [("Content-Type", "text/plain")], body))
    assert made.owner.headers == [(b":status", b"403"), (b"content-type", b"text/plain")]
    assert (made.owner.body, made.owner.ended) == (body, True)
    assert (made.served, made.session.closed, made.events, made.owner.closed) == ([], True, ["end"], [made.session])


def test_an_application_that_knows_no_sessions() -> None:
    made = Made(admitted=False)
    assert made.owner.headers == [(b":status", b"404")]
    assert made.session.closed


def test_an_answer_that_comes_too_late() -> None:
    made = Made(response=None)
    made.session.on_goodbye(0, "")
    made.session.answer(OK)
    made.session.fail()
    assert (made.owner.headers, made.owner.body, made.served) == ([], b"", [])


def test_an_application_that_fails_before_the_answer() -> None:
    made = Made(response=None)
    made.session.fail()
    assert (made.owner.headers, made.owner.ended) == ([(b":status", b"500")], True)
    assert made.session.closed


def test_an_application_that_fails_behind_it() -> None:
    made = Made()
    made.session.fail()
    assert made.closing == (1011, "")
    assert made.owner.ended


# -- the stream


@pytest.mark.parametrize("asked", ["before", "behind"])
def test_the_first_stream_is_the_session_s(asked: str) -> None:
    made = Made()
    streams: list[Any] = []
    if asked == "before":
        made.session.on_stream(streams.append)
    stream = made.stream()
    if asked == "behind":
        made.session.on_stream(streams.append)
    assert streams == [stream]
    other: Any = FakeStream()
    assert not made.session.on_new_stream(other)
    assert streams == [stream]


def test_a_session_that_has_ended_gets_no_stream() -> None:
    made = Made()
    made.session.close()
    stream: Any = FakeStream()
    assert not made.session.on_new_stream(stream)


# -- the end


@pytest.mark.parametrize(("data", "ended", "goodbye"), [
    (encode_close(4000, "done"), False, (4000, "done")), (encode_close(0, ""), True, (0, "")), (b"", True, (0, "")),
    (b"\x68\x43\x01x", False, (0, "")),
], ids=["capsule", "capsule and end", "end", "short capsule"])  # fmt: skip
def test_the_client_closes(data: bytes, ended: bool, goodbye: tuple[int, str]) -> None:
    made = Made()
    stream = made.stream()
    made.session.on_capsules(data, ended)
    assert (stream.goodbye, made.events) == (goodbye, ["end"])
    assert (made.owner.body, made.owner.ended) == (b"", True)
    # a second goodbye, or the end of the connection, says nothing new
    made.session.on_goodbye(1, "again")
    assert stream.goodbye == goodbye


def test_a_capsule_in_pieces_and_unknown_ones() -> None:
    made = Made()
    stream = made.stream()
    capsule = encode_close(7, "bye")
    made.session.on_capsules(b"\x21\x02xx" + capsule[:5], False)
    assert not made.session.closed
    made.session.on_capsules(capsule[5:], False)
    assert stream.goodbye == (7, "bye")


@pytest.mark.parametrize("has_stream", [True, False])
def test_the_server_closes(has_stream: bool) -> None:
    made = Made()
    stream = made.stream() if has_stream else None
    made.session.close(1001, "server shutting down")
    made.session.close(1, "again")
    assert made.closing == (1001, "server shutting down")
    assert (made.owner.ended, made.events, made.owner.closed) == (True, ["end"], [made.session])
    if stream is not None:
        assert isinstance(stream.lost, BrokenPipeError)


def test_a_session_that_is_closed_before_it_was_answered_says_nothing() -> None:
    made = Made(response=None)
    made.session.close(1, "x")
    assert (made.owner.headers, made.owner.body, made.session.closed) == ([], b"", True)


@pytest.mark.parametrize("closed_before", [True, False])
def test_a_connection_that_is_lost(closed_before: bool) -> None:
    made = Made()
    stream = made.stream()
    if closed_before:
        made.session.close()
    error = ConnectionResetError("lost")
    made.session.on_lost(error)
    assert stream.lost is error
    assert made.events == ["end"]


def test_who_asks_for_the_end_behind_it_is_told_at_once() -> None:
    made = Made()
    made.session.on_end(None)
    made.session.close()
    assert made.events == []
    told: list[str] = []
    callback: Callable[[], object] = lambda: told.append("end")  # noqa: E731
    made.session.on_end(callback)
    made.session.on_end(None)
    assert told == ["end"]


def test_a_session_without_a_stream_may_be_lost() -> None:
    made = Made()
    made.session.on_lost(ConnectionResetError("lost"))
    assert made.session.closed
