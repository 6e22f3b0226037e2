"""The client for applications' tests: it goes the way of a real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flask
import flask_socketio
import pytest
import socketio

from engineio_wsgi.contrib.socketio import Server, SocketIO
from engineio_wsgi.contrib.socketio.testing import Client, Event

pytestmark = pytest.mark.ours


@pytest.fixture
def app() -> Iterator[flask.Flask]:
    """An application with handlers, whose engine is closed."""
    made = flask.Flask(__name__)
    made.secret_key = "secret"
    sio = SocketIO(made)

    @sio.on("connect")
    def connect(auth: Any) -> None:
        if auth == {"token": "wrong"}:
            raise flask_socketio.ConnectionRefusedError("wrong token")

    @sio.on("join")
    def join(room: str) -> str:
        flask_socketio.join_room(room)
        return room

    @sio.on("say")
    def say(room: str, text: Any) -> None:
        flask_socketio.emit("said", (flask.request.args["name"], text), to=room)

    @sio.on("ask")
    def ask() -> None:
        sio.emit("answered", sio.server.call("question", 1, to=flask.request.sid))  # type: ignore[attr-defined]

    @sio.on("connect", namespace="/other")
    def connect_other() -> None:
        flask_socketio.emit("welcome")

    yield made
    sio.server.eio.engine.close(timeout=0)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_two_clients(app: flask.Flask, transport: str) -> None:
    with Client(app, query={"name": "tobi"}, transport=transport) as first, Client(app, query={"name": "loki"}) as second:
        assert first.call("join", "lobby") == second.call("join", "lobby") == ["lobby"]
        first.emit("say", "lobby", b"\x00\xff")
        assert first.receive() == second.receive() == Event("said", ["tobi", b"\x00\xff"])
        second.emit("ask")
        question = second.receive()
        second.acknowledge(question, 2)
        assert (question.name, question.args) == ("question", [1])
        assert second.receive() == first.receive() == Event("answered", [2])
        first.connect("/other")
        assert first.receive() == Event("welcome", [], "/other")
        assert set(first.sids) == {"/", "/other"}
        first.disconnect("/other")
        with pytest.raises(TimeoutError):
            first.receive(0.01)


def test_refusals(app: flask.Flask) -> None:
    with pytest.raises(socketio.exceptions.ConnectionError, match="wrong token"):
        Client(app, auth={"token": "wrong"})
    with pytest.raises(socketio.exceptions.ConnectionError, match="Invalid namespace"):
        Client(app, "/nowhere")


def test_python_socketio_alone() -> None:
    sio = Server()
    sio.on("back", lambda sid, *args: args)
    with Client(socketio.WSGIApp(sio)) as client:
        assert client.call("back", {"n": [1]}, b"2") == [{"n": [1]}, b"2"]
        assert sio.manager.is_connected(client.sid, "/")
    sio.eio.engine.close(timeout=0)
