"""`contrib.flask`: an application with a login, under gevent's server, gunicorn and ``flask run``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import flask
import gevent
import pytest
from support.clients import PollingSession, WebSocketSession, open_session, upgrade
from support.flask_site import Site, logged_in
from support.processes import ServerProcess
from support.rawhttp import HttpConnection
from support.serving import Served
from support.workers import Nomad

from engineio_wsgi import ConfigurationError, Forbidden, Server
from engineio_wsgi.contrib.flask import EngineIO
from engineio_wsgi.errors import UsageError
from engineio_wsgi.testing import Client, hand_over

pytestmark = pytest.mark.ours
ROOT = Path(__file__).resolve().parents[2]


def test_handlers_know_who_has_logged_in(site: Site, transport: str) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        socket.send(f"hello {flask.session['user']} of {flask.current_app.name}, {flask.request.args['color']}")
        socket.on("message", lambda data: socket.send(f"{flask.session['user']}: {data}"))

    served = site.serve()
    sessions = [open_session(served, transport, headers=logged_in(served, user), color="red") for user in ("tobi", "loki")]
    for session, user in zip(sessions, ("tobi", "loki"), strict=True):
        assert session.hear() == f"hello {user} of site, red"
        session.say("hi")
        assert session.hear() == f"{user}: hi"


def test_every_kind_of_handler_has_the_context(site: Site) -> None:
    seen: list[tuple[str, str]] = []

    def note(what: str) -> None:
        seen.append((what, flask.session["user"]))

    site.engineio = engineio = EngineIO(allow_request=lambda request: note("allow_request") is None,
                                        generate_id=lambda request: note("generate_id") or "an id of its own")

    for event in ("initial_headers", "headers"):
        engineio.on(event, lambda headers, request, event=event: note(event))

    @engineio.on("connection")
    def connected(socket: Any) -> None:
        note("connection")
        for event in ("message", "packet_create", "drain", "upgrade", "close"):
            socket.on(event, lambda *_, event=event: note(event))
        socket.once("message", lambda _: note("once"))
        socket.send("x", callback=lambda: note("callback"))
        socket.spawn(note, "spawn")

    served = site.serve()
    session = PollingSession(served, headers=logged_in(served, "tobi")).open()
    assert session.hear() == "x"
    session.say("y")
    moved = upgrade(session)
    moved.close()
    served.events.wait("close")
    assert {user for _, user in seen} == {"tobi"}
    assert {what for what, _ in seen} == {
        "allow_request", "generate_id", "initial_headers", "headers", "connection", "message", "packet_create", "drain",
        "upgrade", "close", "once", "callback", "spawn"}


def test_a_subscriber_of_a_topic_has_an_application_context(site: Site) -> None:
    site.engineio = engineio = EngineIO(cluster=f"local:{uuid4()}")
    assert engineio.cluster is not None

    def subscriber(data: str | bytes) -> str:
        flask.g.name = "subscriber"
        return f"{flask.current_app.name} {flask.has_request_context()}"

    engineio.cluster.subscribe("news", subscriber)
    session = open_session(site.serve())
    assert list(engineio.cluster.ask("news", "?", timeout=60.0, session=session.sid).values()) == ["site False"]
    assert "subscriber" in site.ended
    session.close()


def test_an_event_that_is_about_no_request_has_an_application_context(site: Site) -> None:
    seen: list[tuple[str, bool, object]] = []
    for event in ("cluster_back", "shop:sold"):
        site.engineio.on(event, lambda data: seen.append((flask.current_app.name, flask.has_request_context(), data)))
    site.serve()
    site.engineio.emit("cluster_back", 1.5)
    site.engineio.emit("shop:sold", 5)
    assert seen == [("site", False, 1.5), ("site", False, 5)]


def test_refusals_have_the_context_of_their_request(site: Site) -> None:
    seen: list[str] = []
    site.engineio = EngineIO(allow_request=lambda request: "user" in flask.session)
    site.engineio.on("connection_error", lambda error: seen.append(flask.request.args["transport"]))
    served = site.serve()
    assert served.connect().get("/engine.io/?EIO=4&transport=polling").status == 403
    assert served.connect().get("/engine.io/?EIO=4&transport=nonsense").json()["code"] == 0
    assert seen == ["polling", "nonsense"]
    assert open_session(served, headers=logged_in(served, "tobi")).sid


def test_a_refusal_with_a_text(site: Site) -> None:
    def log_in_first(request: flask.Request) -> bool:
        raise Forbidden("log in first")

    site.engineio = EngineIO(allow_request=log_in_first)
    assert site.serve().connect().get("/engine.io/?EIO=4&transport=polling").json() == {"code": 4, "message": "log in first"}


def test_a_context_ends_with_its_handler(site: Site) -> None:
    """``g`` is a handler's own, and teardown functions run at its end."""

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        flask.g.name = "connection"

        @socket.on("message")
        def message(data: str) -> None:
            assert "name" not in flask.g
            flask.g.name = data

    served = site.serve()
    session = open_session(served, headers=logged_in(served, "tobi"))
    session.say("one", "two")
    with gevent.Timeout(60):
        while not {"connection", "one", "two"} <= set(site.ended):
            gevent.sleep(0.01)


def test_contexts_of_handlers_that_block_do_not_mix(site: Site) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            gevent.sleep(0.01)
            socket.send(flask.session["user"])
            assert not flask.current_app.testing

    served = site.serve()
    users = [f"user{number}" for number in range(10)]
    sessions = [WebSocketSession(served, headers=logged_in(served, user)).open() for user in users]
    for _ in range(3):
        for session in sessions:
            session.say("who?")
    assert [session.hear_many(3) for session in sessions] == [[user] * 3 for user in users]


@pytest.mark.complains
def test_a_handler_that_fails(site: Site) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            socket.send(flask.session.get("user", "nobody") if data == "who?" else flask.session["no such key"])

    served = site.serve()
    session = open_session(served, "websocket", headers=logged_in(served, "tobi"))
    session.say("fail", "who?")
    assert session.hear() == "tobi"
    assert site.ended, "what belongs to the failed handler has been torn down"


# -- options


def test_options_of_the_configuration(site: Site) -> None:
    site.app.config.update(ENGINEIO_PING_INTERVAL=7, ENGINEIO_PING_TIMEOUT=3, ENGINEIO_PATH="/live", OTHER=1)
    site.engineio = EngineIO(ping_timeout=4)
    site.engineio.on("connection", lambda socket: socket.send("hello"))
    session = open_session(site.serve())
    assert (session.info["pingInterval"], session.info["pingTimeout"]) == (7000, 4000)
    assert site.running.served.path == "/live/"
    assert session.hear() == "hello"


@pytest.mark.parametrize(("key", "value", "text"), [
    ("ENGINEIO_PING_INTERVALL", 1, r"app\.config\['ENGINEIO_PING_INTERVALL'\]: .*ping_interval"),
    ("ENGINEIO_PING_INTERVAL", "soon", r"app\.config\['ENGINEIO_PING_INTERVAL'\]: expected a number of seconds"),
])
def test_a_configuration_that_is_wrong(site: Site, key: str, value: Any, text: str) -> None:
    site.app.config[key] = value
    with pytest.raises(ConfigurationError, match=text):
        site.engineio.init_app(site.app)
    assert "engineio" not in site.app.extensions


def test_what_is_wrong_with_an_argument_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match="ping_interval"):
        EngineIO(ping_interval="soon")


def test_an_application_has_one_engine(site: Site) -> None:
    site.engineio.init_app(site.app)
    with pytest.raises(UsageError, match="'site' has an EngineIO already"):
        EngineIO(site.app)
    assert site.app.extensions["engineio"] is site.engineio
    assert isinstance(site.engineio, Server)


def test_a_factory_that_is_called_for_each_test() -> None:
    """The extension is made once; each application is its handlers' current_app."""
    engineio = EngineIO()
    engineio.on("connection", lambda socket: socket.send(flask.current_app.name))
    for name in ("first", "second"):
        app = flask.Flask(name)
        engineio.init_app(app)
        with Client(app) as client:
            assert client.receive() == name
    other = flask.Flask("other")
    other.config["ENGINEIO_PING_INTERVAL"] = 1
    with pytest.raises(ConfigurationError, match="the options of the application 'other' are not those of the first"):
        engineio.init_app(other)


def test_without_flask() -> None:
    script = "import sys; sys.modules['flask'] = None; import engineio_wsgi.contrib.flask"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ)
    assert "needs Flask: pip install 'engineio-wsgi[flask]'" in done.stderr.splitlines()[-1]


# -- servers

APPLICATION = '''
import flask, os
from engineio_wsgi.contrib.flask import EngineIO

engineio = EngineIO()

@engineio.on("connection")
def connected(socket):
    socket.send("hello " + flask.request.args.get("name", "nobody"))
    socket.on("message", socket.send)

def create_app():
    app = flask.Flask(__name__)
    app.add_url_rule("/", view_func=lambda: {"pid": os.getpid()})
    engineio.init_app(app)
    return app

app = create_app()
'''


def test_gunicorn(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, "engineio_wsgi.gunicorn.Worker", application=APPLICATION)
    try:
        session = PollingSession(server.served, name="tobi").open()
        assert session.hear() == "hello tobi"
        moved = upgrade(session)
        moved.say("x")
        assert moved.hear() == "x"
    finally:
        server.stop()
    assert not server.complaints(), server.logs()


@pytest.mark.parametrize("more", [[], ["--debug"]])
def test_flask_run(tmp_path: Path, more: list[str]) -> None:
    """The development server: polling, the upgrade and what follows work, and the log complains of nothing."""
    (tmp_path / "app.py").write_text(APPLICATION)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "app:create_app", "run", "--port", "0", *more], cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        with gevent.Timeout(60):
            while not (match := re.search(r"Running on http://127.0.0.1:(\d+)", log.read_text())):
                gevent.sleep(0.05)
        served = Served(("127.0.0.1", int(match[1])), None, handler="ours")
        session = Nomad(served, name="tobi").open()
        assert session.info["upgrades"] == ["websocket"]
        assert session.hear() == "hello tobi"
        for number in range(3):
            session.say(str(number))
            assert session.hear() == str(number)
        websocket = session.upgrade()
        websocket.send("5")
        websocket.send("4later")
        assert websocket.recv() == "4later"
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        HttpConnection.close_all()
    text = log.read_text()
    assert "WARNING in" not in text
    assert "only polling" not in text
    assert "Traceback" not in text


def test_handlers_of_a_session_that_has_moved_know_who_has_logged_in(transport: str) -> None:
    servers = []
    for _ in range(2):
        app = flask.Flask("site")
        app.secret_key = "for the tests only"
        servers.append(engineio := EngineIO(app, handover=True))
        for event in ("connection", "resume"):
            engineio.on(event, lambda socket, event=event: socket.send(f"{event}: {flask.session['user']}, {flask.request.path}"))
    with app.test_request_context():
        serializer = app.session_interface.get_signing_serializer(app)
        cookie = serializer.dumps({"user": "tobi"})
    old, new = servers
    with Client(old._app, transport=transport, cookies={"session": cookie}) as client:
        assert client.receive() == "connection: tobi, /engine.io/"
        assert hand_over(old, new) == {}
        assert client.receive() == "resume: tobi, /engine.io/"
