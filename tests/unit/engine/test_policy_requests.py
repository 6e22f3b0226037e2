"""Flash policy requests: what is taken from a connection, what is answered, and who gets the other connections."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from gevent import socket
from support.fakeloop import FakeLoop
from support.fakesession import outcome, started

from engineio_wsgi.engine.policy_requests import POLICY_TIMEOUT, PolicyGate, answer_policy_request
from engineio_wsgi.runtime import deadline
from engineio_wsgi.transports.flashsocket import POLICY_FILE, POLICY_REQUEST

ADDRESS = ("192.0.2.7", 50_000)


@pytest.fixture
def pair() -> Iterator[tuple[Any, Any]]:
    """The server's end of a connection, and the client's."""
    near, far = socket.socketpair()
    far.settimeout(60)
    with near, far:
        yield near, far


def received(near: Any, far: Any) -> bytes:
    """All that the client gets."""
    near.shutdown(socket.SHUT_WR)
    return b"".join(iter(lambda: far.recv(1000), b""))


def test_a_policy_request_gets_the_policy_file(pair: Any) -> None:
    near, far = pair
    far.sendall(POLICY_REQUEST)
    assert answer_policy_request(near) is True
    assert received(near, far) == POLICY_FILE


def test_a_policy_request_may_come_in_pieces(pair: Any) -> None:
    near, far = pair
    far.sendall(POLICY_REQUEST[:5])
    answering = started(answer_policy_request, near)
    far.sendall(POLICY_REQUEST[5:])
    assert outcome(answering) is True
    assert received(near, far) == POLICY_FILE


def test_nothing_is_taken_from_an_http_connection(pair: Any) -> None:
    near, far = pair
    far.sendall(b"GET / HTTP/1.1\r\n")
    assert answer_policy_request(near) is False
    assert near.recv(100) == b"GET / HTTP/1.1\r\n"


def test_a_client_that_sends_nothing_asks_for_no_policy(pair: Any) -> None:
    near, far = pair
    far.shutdown(socket.SHUT_WR)
    assert answer_policy_request(near) is False


@pytest.mark.parametrize("sent", [b"<policy-file-request/>\n", b"<p"], ids=["another word", "the beginning"])
def test_what_only_begins_like_a_policy_request_gets_no_answer(pair: Any, sent: bytes) -> None:
    near, far = pair
    far.sendall(sent)
    far.shutdown(socket.SHUT_WR)
    assert answer_policy_request(near) is True
    assert received(near, far) == b""


# -- slow clients


class SlowSocket:
    """A connection whose client sends a byte every ``period`` seconds and then its end, and does not take the answer."""

    def __init__(self, loop: FakeLoop, period: float, sends: bytes = POLICY_REQUEST) -> None:
        self._loop = loop
        self._period = period
        self._rest = sends
        self._timeout = 0.0
        self.sent: list[bytes] = []

    def settimeout(self, seconds: float) -> None:
        """How long ``recv`` waits."""
        self._timeout = seconds

    def recv(self, size: int, flags: int = 0) -> bytes:
        """The next byte, if it comes in time; the first one is there."""
        if not flags:
            self._loop.advance(min(self._period, self._timeout))
            if self._period > self._timeout:
                raise TimeoutError
        head, self._rest = self._rest[:1], self._rest if flags else self._rest[1:]
        return head

    def sendall(self, data: bytes) -> None:
        """The client has closed its window."""
        self.sent.append(data)
        raise TimeoutError


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    """The clock of all deadlines."""
    made = FakeLoop()
    monkeypatch.setattr(deadline, "monotonic", made.monotonic)
    return made


@pytest.mark.parametrize("period", [1.0, 60.0], ids=["a byte a second", "a byte a minute"])
def test_a_slow_client_gets_no_answer_after_the_timeout(loop: FakeLoop, period: float) -> None:
    sock, began = SlowSocket(loop, period), loop.now
    assert answer_policy_request(sock) is True
    assert sock.sent == []
    assert POLICY_TIMEOUT <= loop.now - began < 2 * POLICY_TIMEOUT + 1


def test_a_client_that_has_ended_is_not_waited_for(loop: FakeLoop) -> None:
    sock, began = SlowSocket(loop, 1.0, sends=b"<p"), loop.now
    assert answer_policy_request(sock) is True
    assert (sock.sent, loop.now - began) == ([], 3.0), "two bytes and the end"


def test_a_client_that_does_not_read_the_file_causes_no_error(loop: FakeLoop) -> None:
    sock = SlowSocket(loop, 0.1)
    assert answer_policy_request(sock) is True
    assert sock.sent == [POLICY_FILE]


# -- the gate of a server


class Gate:
    """A gate, and the connections that it left to the handler before."""

    def __init__(self, answer: Any) -> None:
        self.handled: list[tuple[object, object]] = []
        self.gate = PolicyGate(answer, lambda sock, address: self.handled.append((sock, address)) or "handled")


def test_the_gate_hands_other_connections_on() -> None:
    this, sock = Gate(lambda sock: False), object()
    assert this.gate(sock, ADDRESS) == "handled"
    assert this.handled == [(sock, ADDRESS)]


def test_the_gate_does_not_hand_on_a_connection_that_it_has_answered() -> None:
    this = Gate(lambda sock: True)
    assert this.gate(object(), ADDRESS) is None
    assert this.handled == []


def test_a_client_that_leaves_is_logged_and_not_handled(caplog: pytest.LogCaptureFixture) -> None:
    def answer(sock: object) -> bool:
        raise ConnectionResetError("gone")

    this = Gate(answer)
    with caplog.at_level(logging.DEBUG, "engine"):
        assert this.gate(object(), ADDRESS) is None
    assert (this.handled, caplog.messages) == ([], [f"= {ADDRESS} left: gone"])
