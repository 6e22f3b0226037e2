"""The inspector of a Socket.IO server, and of Flask-SocketIO's: they are inspected by their engine."""

from __future__ import annotations

import json
from typing import Any

import flask
import pytest
import socketio
from werkzeug.wrappers import Response

from engineio_wsgi import testing
from engineio_wsgi.contrib.socketio import Server
from engineio_wsgi.contrib.socketio.flask import SocketIO
from engineio_wsgi.contrib.socketio.testing import Client
from engineio_wsgi.inspector import Inspector


def plain() -> tuple[Any, Any]:
    sio = Server()
    return sio.eio.engine, socketio.WSGIApp(sio, Response("a page"))


def with_flask() -> tuple[Any, Any]:
    app = flask.Flask(__name__)
    return SocketIO(app).server.eio.engine, app


@pytest.mark.parametrize("make", [plain, with_flask])
def test_the_engine_of_a_socketio_server(make: Any) -> None:
    engine, app = make()
    mounted = Inspector(engine, allow=lambda request: True).mount(app)
    with Client(mounted), testing.Client(mounted, "/inspector/live/") as page:
        assert json.loads(page.receive())["path"] == "/socket.io"
        page.send('{"type": "look"}')
        rows = json.loads(page.receive())["workers"][0]["sessions"]
        assert [row["transport"] for row in rows] == ["polling"]
