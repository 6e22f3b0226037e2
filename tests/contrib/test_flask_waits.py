"""`contrib.flask`: what teardown functions free is free while a handler waits, and the context is there again after it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import flask_login
import gevent
import pytest
from flask_sqlalchemy import SQLAlchemy
from gevent.event import Event
from support.clients import PollingSession, WebSocketSession, open_session
from support.flask_site import Site, logged_in
from support.rawhttp import HttpConnection
from support.serving import PATIENCE

pytestmark = pytest.mark.ours

#: how a handler waits, each in a way that ends when the test says so
WAITS: dict[str, Callable[[Any], object]] = {
    "iteration": lambda socket: next(iter(socket)),
    "receive": lambda socket: socket.receive(),
    "receive, with a timeout": lambda socket: socket.receive(timeout=PATIENCE),
    "flush": lambda socket: socket.send("not polled for yet").flush(),
    "wait_closed": lambda socket: socket.wait_closed(),
}


def wait_until(condition: Callable[[], object]) -> None:
    """Return when ``condition()`` is true."""
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.005)


def go_on(session: PollingSession, wait: str) -> None:
    """Let a handler's wait end."""
    if wait == "flush":
        assert session.hear() == "not polled for yet"
    elif wait == "wait_closed":
        session.close()
    else:
        session.say("go on")


@pytest.mark.parametrize("wait", WAITS)
def test_a_handler_that_waits_holds_no_context(site: Site, wait: str) -> None:
    after: list[Any] = []

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        request, session = (each._get_current_object() for each in (flask.request, flask.session))
        flask.g.name = "before"
        WAITS[wait](socket)
        same = flask.request == request and flask.session._get_current_object() is session  # type: ignore[attr-defined]
        after.append((same, "name" in flask.g, flask.current_app.name, flask.session["user"]))
        flask.g.name = "after"

    served = site.serve()
    client = PollingSession(served, headers=logged_in(served, "tobi")).open()
    wait_until(lambda: "before" in site.ended)
    assert not after
    go_on(client, wait)
    wait_until(lambda: "after" in site.ended)
    assert after == [(True, False, "site", "tobi")]
    assert (site.ended.count("before"), site.ended.count("after")) == (1, 1)


def test_a_message_that_is_there_already_begins_a_context_too(site: Site) -> None:
    """Whether ``g`` is kept does not depend on how fast the client is."""

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        for message in socket:
            assert "name" not in flask.g
            flask.g.name = message
            gevent.sleep(0)

    session = open_session(site.serve(), "websocket")
    session.say("one", "two", "three")
    wait_until(lambda: {"one", "two", "three"} <= set(site.ended))


def test_what_is_spawned_holds_no_context_while_it_waits(site: Site) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        def background() -> None:
            flask.g.name = "before"
            socket.wait_closed()

        socket.spawn(background)

    open_session(site.serve())
    wait_until(lambda: "before" in site.ended)


def test_a_handler_that_waits_for_something_else(site: Site) -> None:
    arrived = Event()

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        flask.g.name = "before"
        with site.engineio.outside_context():
            assert not flask.has_app_context()
            assert not flask.has_request_context()
            arrived.wait()
        socket.send(flask.request.args["color"])

    session = open_session(site.serve(), color="red")
    wait_until(lambda: "before" in site.ended)
    arrived.set()
    assert session.hear() == "red"


def test_outside_of_a_handler_nothing_ends(site: Site) -> None:
    site.engineio.init_app(site.app)
    with site.app.app_context(), site.engineio.outside_context():
        assert flask.current_app.name == "site"
    with site.engineio.outside_context():
        assert not flask.has_app_context()


# -- contexts within contexts


def push_app_context(site: Site) -> Any:
    return site.app.app_context()


def push_another_request(site: Site) -> Any:
    return site.app.test_request_context("/?color=blue")


def push_the_same_once_more(site: Site) -> Any:
    return flask.globals.request_ctx._get_current_object()  # type: ignore[attr-defined]


def push_a_copy(site: Site) -> Any:
    return flask.globals.request_ctx.copy()


@pytest.mark.parametrize("push", [push_app_context, push_another_request, push_the_same_once_more, push_a_copy])
def test_contexts_of_the_handlers_own_are_left_alone(site: Site, push: Callable[[Site], Any]) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        with push(site):
            flask.g.name = "inner"
            color = flask.request.args["color"]
            socket.send(socket.receive())
            assert (flask.g.name, flask.request.args["color"]) == ("inner", color)
            assert "inner" not in site.ended
            flask.g.name = "outer"
        socket.send(socket.receive() + flask.request.args["color"])

    session = open_session(site.serve(), color="red")
    session.say("one")
    assert session.hear() == "one"
    session.say("two ")
    assert session.hear() == "two red"
    wait_until(lambda: site.ended.count("outer") == 1)


def test_a_listener_that_runs_within_a_wait_has_a_context_of_its_own(site: Site) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        def written() -> None:
            assert "name" not in flask.g
            flask.g.name = "callback"

        flask.g.name = "handler"
        socket.send("hello", callback=written)
        socket.send(f"{socket.receive()} {'name' in flask.g}")

    session = open_session(site.serve())
    assert session.hear() == "hello"
    wait_until(lambda: {"handler", "callback"} <= set(site.ended))
    session.say("hi")
    assert session.hear() == "hi False"


def test_another_greenlet_does_not_end_the_handlers_context(site: Site) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        flask.g.name = "handler"
        greenlet = gevent.Greenlet(socket.wait_closed, timeout=0)
        greenlet.gr_context = gevent.getcurrent().gr_context.copy()
        greenlet.start()
        greenlet.get()
        socket.send(flask.g.name)

    assert open_session(site.serve()).hear() == "handler"


# -- teardown functions


@pytest.mark.complains
def test_a_teardown_function_that_fails_is_logged_and_the_handler_goes_on(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @site.app.teardown_appcontext
    def teardown(error: BaseException | None) -> None:
        raise LookupError("the pool is gone")

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        for message in socket:
            socket.send(message + flask.request.args["color"])

    session = open_session(site.serve(), color="red")
    for _ in range(2):
        session.say("still ")
        assert session.hear() == "still red"
    assert "the end of a handler's Flask context failed" in caplog.text
    assert "LookupError: the pool is gone" in caplog.text


@pytest.mark.complains
def test_teardown_functions_are_told_of_the_handlers_error_only(site: Site) -> None:
    told: list[BaseException | None] = []
    ended = Event()

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        site.app.teardown_request_funcs.setdefault(None, []).append(told.append)
        try:
            raise KeyError("handled")
        except KeyError:
            socket.receive()
        socket.on("close", lambda *_: ended.set())
        raise ZeroDivisionError("not handled")

    session = open_session(site.serve(), "websocket")
    session.say("go on")
    assert ended.wait(PATIENCE)
    assert list(map(type, told)) == [type(None), ZeroDivisionError, type(None)], "a wait, the handler's end, the close listener"


def test_a_time_out_round_a_wait_leaves_the_context_as_it_was(site: Site) -> None:
    """Also where it comes while the teardown functions themselves wait."""
    site.app.teardown_appcontext(lambda error: flask.g.pop("slow", 0) and gevent.sleep(PATIENCE))

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        for slow in (False, True):
            flask.g.slow = slow
            with gevent.Timeout(0.01, False):
                socket.receive()
            socket.send(flask.request.args["color"])

    assert open_session(site.serve(), "websocket", color="red").hear_many(2) == ["red", "red"]


@pytest.mark.complains
def test_a_session_that_cannot_be_opened_leaves_no_context_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = site.app.session_interface.open_session
    broken = Event()

    def open_session_(app: flask.Flask, request: flask.Request) -> Any:
        if broken.is_set():
            raise ConnectionError("the store is away")
        return opened(app, request)

    monkeypatch.setattr(site.app.session_interface, "open_session", open_session_)

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        socket.on("message", lambda data: socket.send(f"{data} {flask.g.pop('name', 'new')}"))
        socket.on("message", lambda data: setattr(flask.g, "name", "old"))

    session = open_session(site.serve(), "websocket")
    session.say("one")
    assert session.hear() == "one new"
    broken.set()
    session.say("lost")
    site.running.served.settle()
    broken.clear()
    session.say("two")
    assert session.hear() == "two new"


# -- what people use


class Shop:
    """A site with users in a database behind a pool of five connections, and flask-login."""

    def __init__(self, site: Site, folder: Path) -> None:
        site.app.config.update(SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/shop.db", SQLALCHEMY_ENGINE_OPTIONS={
            "pool_size": 5, "max_overflow": 0, "pool_timeout": 0.1})
        self.db = db = SQLAlchemy(site.app)

        class User(flask_login.UserMixin, db.Model):  # type: ignore[name-defined,misc]
            id = db.Column(db.Integer, primary_key=True)
            name = db.Column(db.String)

        self.login = flask_login.LoginManager(site.app)
        self.login.user_loader(lambda user_id: db.session.get(User, user_id))
        site.app.add_url_rule("/enter", view_func=lambda: str(flask_login.login_user(db.session.get(User, 1), remember=True)))
        site.app.add_url_rule("/page", view_func=self.one)
        with site.app.app_context():
            db.create_all()
            db.session.add(User(name="tobi"))
            db.session.commit()

    def one(self) -> str:
        """Use a connection."""
        return str(self.db.session.execute(self.db.text("select 1")).scalar())


@pytest.fixture
def shop(site: Site, tmp_path: Path) -> Shop:
    """One of the test's own."""
    return Shop(site, tmp_path)


def loop(socket: Any, shop: Shop) -> None:
    """A handler in straight lines."""
    socket.send(f"hello {shop.one()}")
    for message in socket:
        socket.send(f"{message} {shop.one()}")


def callbacks(socket: Any, shop: Shop) -> None:
    """The same in the other style."""
    socket.send(f"hello {shop.one()}")
    socket.on("message", lambda message: socket.send(f"{message} {shop.one()}"))


@pytest.mark.parametrize("handler_style", [loop, callbacks])
def test_sixty_sessions_share_five_connections(site: Site, shop: Shop, handler_style: Callable[[Any, Shop], None]) -> None:
    site.engineio.on("connection", lambda socket: handler_style(socket, shop))
    served = site.serve()
    sessions = [WebSocketSession(served).open() for _ in range(60)]
    assert [session.hear() for session in sessions] == ["hello 1"] * 60
    for number in range(2):
        for session in sessions:
            session.say(str(number))
        assert served.connect().get("/page").body == b"1"
        assert [session.hear() for session in sessions] == [f"{number} 1"] * 60


def test_the_current_user_is_there_after_a_wait(site: Site, shop: Shop) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        for _ in socket:
            socket.send(f"{flask_login.current_user.name} {flask_login.current_user.is_authenticated}")

    served = site.serve()
    session = open_session(served, headers=cookies_of(served.connect(), "/enter"))
    for _ in range(3):
        session.say("who am I?")
        assert session.hear() == "tobi True"


def cookies_of(connection: HttpConnection, path: str) -> list[tuple[str, str]]:
    """The cookies that a page sets."""
    return [("Cookie", "; ".join(value.split(";")[0] for value in connection.get(path).headers("Set-Cookie")))]


# -- changes to the session that nothing saves


def test_a_remembered_login_is_one_warning_a_minute(site: Site, shop: Shop, caplog: pytest.LogCaptureFixture,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """flask-login takes the remember cookie by a change of the session: in each handler, since none is saved."""
    now = [1000.0]
    monkeypatch.setattr("engineio_wsgi.contrib.flask.monotonic", lambda: now[0])

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        socket.on("message", lambda data: socket.send(flask_login.current_user.name))

    served = site.serve()
    (_, cookies), = cookies_of(served.connect(), "/enter")
    remembered = next(each for each in cookies.split("; ") if each.startswith("remember_token="))
    session = open_session(served, headers=[("Cookie", remembered)])
    with caplog.at_level(logging.WARNING, "engine"):
        for passed, lines in ((0, 1), (1, 1), (58, 1), (2, 2), (1, 2)):
            now[0] += passed
            session.say("who am I?")
            assert session.hear() == "tobi"
            served.settle()
            assert caplog.text.count("a handler changed flask.session, and nothing saves it") == lines
