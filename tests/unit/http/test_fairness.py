"""Sessions do not wait for all of the handshakes that have come at once. What counts is the order, not the time."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from support.clients import PollingSession, Session, WebSocketSession, open_session
from support.rawwebsocket import frame_bytes
from support.serving import PATIENCE, EventLog, Served

from engineio_wsgi import Server, WebSocketHandler
from engineio_wsgi.http.http_server import HttpServer, StoppableServer

#: fewer than the smallest backlog of a listener that systems allow
HANDSHAKES = 100
#: handshakes that may be answered before the message: those of the turn in which it is sent, and of some until it has arrived
MOST = 80
REQUEST = b"GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n"


def stock_server(address: tuple[str, int], application: Any) -> WSGIServer:
    """gevent's own server, with our handler. It accepts 100 connections in a turn."""
    return WSGIServer(address, application, handler_class=WebSocketHandler, log=None)


def pooled_server(address: tuple[str, int], application: Any) -> HttpServer:
    """Its connections keep their greenlets."""
    return HttpServer(address, application, spawn=10_000)


def wrapped(environ: Any, start_response: Any) -> list[bytes]:
    """The application outside the engine."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def fresh(served: Served) -> list[socket.socket]:
    """Connections that wait in the kernel, with a handshake each."""
    clients = [socket.create_connection(served.address) for _ in range(HANDSHAKES)]
    for client in clients:
        client.sendall(REQUEST)
    return clients


def kept_alive(served: Served) -> list[socket.socket]:
    """Connections on which another request has been answered, with a handshake each."""
    clients = []
    for _ in range(HANDSHAKES):
        connection = served.connect()
        connection.get("/")
        clients.append(connection.sock)
    for client in clients:
        client.send(REQUEST)
    return clients


def used_by_sessions(served: Served) -> list[socket.socket]:
    """Connections over which a session has polled, with a handshake each for another one."""
    clients = []
    for _ in range(HANDSHAKES):
        session = PollingSession(served).open()
        session.post("3")
        clients.append(session.posting.sock)
    for client in clients:
        client.send(REQUEST)
    return clients


@contextmanager
def serving(make: Callable[..., Any]) -> Iterator[tuple[Server, Served]]:
    server = Server(ping_interval=300.0)
    http = make(("127.0.0.1", 0), server.wrap(wrapped))
    http.start()
    try:
        yield server, Served(("127.0.0.1", http.server_port), EventLog(), handler="ours", server=server)
    finally:
        server.close(timeout=0)
        http.stop(timeout=0)


def say_at_once(session: Session) -> None:
    """Send a message without giving the server a turn."""
    if isinstance(session, WebSocketSession):
        data, sock = frame_bytes(1, b"4now"), session.ws.http.sock
    else:
        assert isinstance(session, PollingSession)
        sock = session.posting.sock
        data = session.posting.head("POST", session.target(), [("Content-Length", "4"), ("Content-Type", "text/plain")]) + b"4now"
    assert os.write(sock.fileno(), data) == len(data)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("flood", [fresh, kept_alive, used_by_sessions])
@pytest.mark.parametrize("make", [StoppableServer, stock_server, pooled_server])
def test_a_message_is_taken_before_all_handshakes(make: Callable[..., Any], flood: Callable[..., Any], transport: str) -> None:
    with serving(make) as (server, served):
        session = open_session(served, transport)
        session.say("before")
        opened: list[object] = []
        taken: list[int] = []
        done = Event()

        @server.clients[session.sid].on("message")
        def message(data: str) -> None:
            if data == "now":
                taken.append(len(opened))
                done.set()

        clients: list[socket.socket] = []

        @server.on("connection")
        def connected(socket: object) -> None:
            if clients:
                if not opened:
                    say_at_once(session)
                opened.append(socket)

        clients += flood(served)
        assert done.wait(PATIENCE)
        assert taken[0] <= MOST
        with gevent.Timeout(PATIENCE):
            while len(opened) < HANDSHAKES:
                gevent.sleep(0.01)
        for client in clients:
            client.close()
