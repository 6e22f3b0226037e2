"""A client's goodbye is told apart from a lost connection: both have the reason "transport close"."""

from __future__ import annotations

import copy
import socket as plain_socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from support.clients import PollingSession, Session, WebSocketSession, open_session, probe, upgrade

import engineio_wsgi
from engineio_wsgi import GOODBYE, ClientClose
from engineio_wsgi.engine.middleware import not_implemented
from engineio_wsgi.testing import Client

pytestmark = pytest.mark.ours


def description_of(session: Session) -> object:
    """The description of the close."""
    closed = session.served.events.wait("close")
    assert closed["reason"] == "transport close"
    return closed["description"]


def test_a_close_packet_is_a_goodbye(serve: Any, transport: str, eio: int) -> None:
    session = open_session(serve(app="silent"), transport, eio)
    session.send("1")
    description = description_of(session)
    assert description == GOODBYE
    assert isinstance(description, ClientClose)
    assert (description.code, description.reason) == (None, "")


def test_a_close_packet_after_an_upgrade_is_a_goodbye(serve: Any, eio: int) -> None:
    session = upgrade(PollingSession(serve(app="silent"), eio).open())
    session.send("1")
    assert description_of(session) == GOODBYE


def test_a_close_packet_during_an_upgrade_is_a_goodbye(serve: Any) -> None:
    session = PollingSession(serve(app="silent")).open()
    probe(session)
    session.close()
    assert description_of(session) == GOODBYE


def test_a_close_packet_while_the_session_is_closing_is_a_goodbye(serve: Any) -> None:
    session = PollingSession(serve(app="silent")).open()
    socket = session.served.socket(session.sid)
    socket.send("never fetched")
    socket.close()
    session.close()
    assert description_of(session) == socket.close_description == GOODBYE


@pytest.mark.parametrize("code", [None, 1000, 1001])
def test_a_close_frame_of_a_client_that_leaves_is_a_goodbye(serve: Any, code: int | None) -> None:
    session = WebSocketSession(serve(app="silent")).open()
    session.ws.close(code, "" if code is None else "gone fishing")
    description = description_of(session)
    assert description == GOODBYE
    assert isinstance(description, ClientClose)
    assert (description.code, description.reason) == (code, "" if code is None else "gone fishing")


@pytest.mark.parametrize(("code", "reason", "text"), [
    (1011, "", "close code 1011"), (4001, "too old", "close code 4001: too old"),
])
def test_a_close_frame_with_another_code_is_none(serve: Any, code: int, reason: str, text: str) -> None:
    session = WebSocketSession(serve(app="silent")).open()
    session.ws.close(code, reason)
    description = description_of(session)
    assert description != GOODBYE
    assert isinstance(description, ClientClose)
    assert (description, description.code, description.reason) == (text, code, reason)


def test_a_lost_connection_is_none(serve: Any, transport: str, eio: int) -> None:
    session = open_session(serve(app="silent"), transport, eio)
    session.vanish()
    assert not isinstance(description_of(session), ClientClose)


def test_a_connection_that_was_reset_is_none(serve: Any) -> None:
    session = WebSocketSession(serve(app="silent")).open()
    # with such a linger time, closing sends RST
    session.ws.http.sock.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.vanish()
    assert not isinstance(description_of(session), ClientClose)


def test_a_close_of_the_server_is_none(serve: Any, transport: str) -> None:
    session = open_session(serve(app="silent"), transport)
    socket = session.served.socket(session.sid)
    socket.close(discard=True)
    session.served.events.wait("close")
    assert (socket.close_reason, socket.close_description) == ("forced close", None)


@pytest.mark.parametrize("description", [GOODBYE, ClientClose(1001, "bye"), ClientClose(4000, "bye")])
def test_a_copy_is_the_same(description: ClientClose) -> None:
    other = copy.copy(description)
    assert (other, repr(other), hash(other)) == (description, repr(description), hash(description))


def end_of(end: Callable[[Client], object], transport: str) -> object:
    """The description of the close when the client for tests ends its session."""
    client = Client(engineio_wsgi.Server().wrap(not_implemented), transport=transport)
    end(client)
    assert client.wait_closed() == "transport close"
    assert client.socket is not None
    return client.socket.close_description


def test_the_client_for_tests_says_goodbye(transport: str) -> None:
    assert end_of(Client.close, transport) == GOODBYE


def test_the_client_for_tests_vanishes() -> None:
    assert end_of(Client.vanish, "websocket") != GOODBYE
