"""`SocketIO`, under a real server: contexts and sessions of event handlers, and how it is run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import flask_socketio
import gevent.event
import pytest
from gevent.pywsgi import WSGIServer
from support.deployment import Program, free_port, is_reachable
from support.factories import stopped_afterwards

import engineio_wsgi
from engineio_wsgi.contrib.socketio import SocketIO

pytestmark = pytest.mark.ours


class FlaskSite:
    """A Flask application with handlers, under gevent's server."""

    def __init__(self, **options: Any) -> None:
        self.app = flask.Flask(__name__)
        self.app.secret_key = "secret"
        self.socketio = SocketIO(self.app, **options)
        self.torn_down: list[Any] = []
        self.gate = gevent.event.Event()
        self._add_handlers()
        self.http = WSGIServer(("127.0.0.1", 0), self.app, handler_class=engineio_wsgi.WebSocketHandler, log=None)
        self.http.start()
        self.url = "http://{}:{}".format(*self.http.address)

    def _add_handlers(self) -> None:
        on = self.socketio.on
        self.app.teardown_request(lambda error: self.torn_down.append(flask.request.path))

        @on("seen")
        def seen() -> dict[str, Any]:
            request = flask.request
            return {"args": dict(request.args), "path": request.path, "sid": request.sid, "namespace": request.namespace,  # type: ignore[attr-defined]
                    "app": flask.current_app._get_current_object() is self.app,  # type: ignore[attr-defined]
                    "g": "note" in flask.g, "rule": str(request.url_rule)}

        @on("note")
        def note(number: int) -> None:
            flask.g.note = number

        @on("count")
        def count() -> int:
            flask.session["count"] = flask.session.get("count", 0) + 1
            return int(flask.session["count"])

        @on("slow")
        def slow(number: int) -> Any:
            self.gate.wait()
            return flask.request.event["args"][0]  # type: ignore[attr-defined]

        @on("release")
        def release() -> None:
            self.gate.set()

        @on("fail")
        def fail() -> None:
            raise ValueError("on purpose")

        @self.socketio.on_error()
        def failed(error: Exception) -> str:
            return f"handled: {error}"

    def stop(self) -> None:
        """Close everything."""
        self.socketio.server.eio.engine.close(timeout=0)
        self.http.stop(timeout=1)


@pytest.fixture
def flask_site() -> Iterator[Callable[..., FlaskSite]]:
    """A factory."""
    yield from stopped_afterwards(FlaskSite)


def connect(drive: Any, url: str, transport: str = "websocket") -> Any:
    driver = drive("socket.io-client", url, json.dumps({"transports": [transport], "query": {"color": "red"}}))
    driver.tell("open", nsp="/")
    driver.events.wait("connect")
    return driver


def ask(driver: Any, *args: Any) -> Any:
    before = len(driver.events.of("ack"))
    driver.tell("ask", args=list(args))
    return driver.events.wait("ack", before + 1)["args"][0]


@pytest.mark.parametrize("manage_session", [True, False])
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_each_event_has_a_context_of_its_own(flask_site: Any, drive: Any, transport: str, manage_session: bool) -> None:
    made = flask_site(manage_session=manage_session)
    driver = connect(drive, made.url, transport)
    sid = driver.events.of("connect")[0]["id"]
    for _ in range(3):
        driver.tell("emit", args=["note", 1])
        seen = ask(driver, "seen")
        assert (seen["args"]["color"], seen["path"], seen["sid"], seen["namespace"]) == ("red", "/socket.io/", sid, "/")
        assert (seen["app"], seen["g"], seen["rule"]) == (True, False, "None")
    assert len(made.torn_down) == 6
    if manage_session:
        assert [ask(driver, "count") for _ in range(3)] == [1, 2, 3]
    assert ask(driver, "fail") == "handled: on purpose"


def test_events_at_once_do_not_share_their_requests(flask_site: Any, drive: Any) -> None:
    driver = connect(drive, flask_site().url)
    ask(driver, "seen")
    for number in range(5):
        driver.tell("ask", args=["slow", number])
    driver.tell("emit", args=["release"])
    driver.events.wait("ack", 6)
    assert sorted(event["args"][0] for event in driver.events.of("ack")[1:]) == list(range(5))


def test_the_test_client_of_flask_socketio(flask_site: Any) -> None:
    made = flask_site()
    client = made.socketio.test_client(made.app)
    assert client.is_connected()
    assert client.emit("seen", callback=True)["app"] is True
    made.socketio.emit("news", {"n": 1})
    assert client.get_received() == [{"name": "news", "args": [{"n": 1}], "namespace": "/"}]
    client.disconnect()


RUN = """
import sys
from flask import Flask
from engineio_wsgi.contrib.socketio import SocketIO
app = Flask(__name__)
socketio = SocketIO(app)
socketio.on("back")(lambda data: data)
app.get("/")(lambda: "a page")
if __name__ == "__main__":
    socketio.run(app, port=int(sys.argv[1]), debug=len(sys.argv) > 2, use_reloader=False, log_output=False)
"""


@pytest.mark.parametrize("how", ["run", "debug", "flask"])
def test_ways_to_run_it(tmp_path: Path, drive: Any, how: str) -> None:
    (tmp_path / "app.py").write_text(RUN)
    port = str(free_port())
    command = [sys.executable, "-m", "flask", "run", "-p", port] if how == "flask" else [sys.executable, "app.py", port]
    program = Program(tmp_path / "logs", [*command, *(["debug"] if how == "debug" else [])],
                      lambda: is_reachable(f"127.0.0.1:{port}"), cwd=tmp_path)
    try:
        # Werkzeug's own server speaks no WebSocket, and the client stays on polling
        driver = drive("socket.io-client", f"http://127.0.0.1:{port}", json.dumps({"transports": ["polling", "websocket"]}))
        driver.tell("open", nsp="/")
        driver.events.wait("connect")
        assert ask(driver, "back", {"n": 1}) == {"n": 1}
        if how != "flask":
            assert driver.events.wait("upgrade")["transport"] == "websocket"
        assert "Traceback" not in program.output.read_text()
    finally:
        program.stop()


RELOADED = """
import sys
from flask import Flask
from engineio_wsgi.contrib.socketio import SocketIO
app = Flask(__name__)
socketio = SocketIO(app)
socketio.on("version")(lambda: "one")
socketio.run(app, port=int(sys.argv[1]), debug=True)
"""


def test_the_reloader(tmp_path: Path, drive: Any) -> None:
    (tmp_path / "app.py").write_text(RELOADED)
    port = str(free_port())
    address = f"127.0.0.1:{port}"
    program = Program(tmp_path / "logs", [sys.executable, "app.py", port], lambda: is_reachable(address), cwd=tmp_path)
    try:
        driver = connect(drive, f"http://{address}")
        assert ask(driver, "version") == "one"
        # it says so when the process before has gone, which may have been reachable until then
        (tmp_path / "app.py").write_text('print("the new version starts", flush=True)\n' + RELOADED.replace("one", "two"))
        driver.events.wait("disconnect")
        program.until(lambda: "the new version starts" in program.output.read_text() and is_reachable(address),
                      program.output.read_text)
        assert ask(connect(drive, f"http://{address}"), "version") == "two"
    finally:
        program.stop()


def test_names_of_flask_socketio_work_with_it(flask_site: Any, drive: Any) -> None:
    made = flask_site()

    @made.socketio.on("enter")
    def enter(room: str) -> None:
        flask_socketio.join_room(room)
        flask_socketio.emit("said", flask_socketio.rooms(), to=room)

    driver = connect(drive, made.url)
    driver.tell("emit", args=["enter", "kitchen"])
    assert "kitchen" in driver.events.wait("said")["args"][0]
    made.socketio.close_room("kitchen")
    made.socketio.emit("said", "to all")
    assert driver.events.wait("said", 2)["args"] == ["to all"]


