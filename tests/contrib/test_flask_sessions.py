"""`contrib.flask` with sessions of other interfaces than Flask's own: nothing is assumed of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import flask
import flask_session
import pytest
from cachelib import FileSystemCache
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from support.clients import open_session
from support.flask_site import Site, logged_in

from engineio_wsgi.contrib.flask_context import SessionWatch

pytestmark = pytest.mark.ours
WARNING = "a handler changed flask.session, and nothing saves it"


class Mixed(SessionMixin):
    """What Flask asks of a session, and no more: its ``modified`` is always true."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._content[key] = value

    def __delitem__(self, key: str) -> None:
        del self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


class Plain(dict[str, Any]):
    """A dict, without ``modified``."""


class Slotted(dict[str, Any]):
    """A dict that takes no attributes at all: ``flask.session`` itself does not work with it in Flask 3.1."""

    __slots__ = ()


class Touchy(Mixed):
    """One that cannot be asked whether it was modified."""

    @property
    def modified(self) -> bool:  # type: ignore[override]
        """Fail."""
        raise RuntimeError("ask the store")


class Dirty(SecureCookieSession):
    """One that has been modified when it is opened."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.modified = True


class Given(SessionInterface):
    """Opens whatever a test says."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def open_session(self, app: flask.Flask, request: flask.Request) -> Any:
        """A session."""
        return self.make()

    def save_session(self, app: flask.Flask, session: Any, response: flask.Response) -> None:
        """Nothing is saved."""


def content() -> dict[str, Any]:
    """Of a session; some of it cannot be copied."""
    return {"user": "tobi", "cart": [1, {"size": 2}], "lock": threading.Lock()}


KINDS: dict[str, Callable[[], Any]] = {
    "SessionMixin alone": lambda: Mixed(content()),
    "a dict": lambda: Plain(content()),
    "modified fails": lambda: Touchy(content()),
    "modified at the beginning": lambda: Dirty(content()),
}


def say_user(site: Site) -> None:
    """Have each message answered with the session's user."""

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        socket.on("message", lambda data: socket.send(flask.session["user"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_that_is_only_read_is_no_warning(site: Site, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    site.app.session_interface = Given(KINDS[kind])
    say_user(site)
    served = site.serve()
    session = open_session(served)
    session.say("who?", "who?")
    assert session.hear_many(2) == ["tobi", "tobi"]
    served.settle()
    assert caplog.text == ""


def add(session: MutableMapping[str, Any]) -> None:
    session["score"] = 1


def replace(session: MutableMapping[str, Any]) -> None:
    session["user"] = "loki"


def remove(session: MutableMapping[str, Any]) -> None:
    del session["user"]


def change_inside(session: MutableMapping[str, Any]) -> None:
    session["cart"][1]["size"] += 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [add, replace, remove, change_inside])
def test_a_change_is_told(site: Site, kind: str, change: Callable[[Any], None], caplog: pytest.LogCaptureFixture) -> None:
    site.app.session_interface = Given(KINDS[kind])

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        change(flask.session)
        socket.send("done")
        socket.receive()
        socket.send("done again")

    session = open_session(site.serve())
    assert session.hear() == "done"
    session.say("go on")
    assert session.hear() == "done again"
    assert caplog.text.count(WARNING) == 1


def test_a_session_that_takes_no_attributes(site: Site) -> None:
    site.app.session_interface = Given(lambda: Slotted(content()))
    site.engineio.on("connection", lambda socket: socket.send(flask.request.args["color"]))
    assert open_session(site.serve(), color="red").hear() == "red"


@pytest.mark.parametrize("change", [add, replace, remove])
def test_a_change_of_flasks_own_session_is_told(site: Site, change: Callable[[Any], None],
                                                caplog: pytest.LogCaptureFixture) -> None:
    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        change(flask.session)
        socket.send("done")

    served = site.serve()
    assert open_session(served, headers=logged_in(served, "tobi")).hear() == "done"
    served.settle()
    assert WARNING in caplog.text


@pytest.mark.parametrize("interface", [Given(lambda: None), SecureCookieSessionInterface()], ids=["none opened", "no key"])
@pytest.mark.complains
def test_without_a_session_one_can_be_read_and_not_changed(site: Site, interface: SessionInterface,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    """As in a view: Flask's null session."""
    site.app.session_interface = interface
    site.app.config["SECRET_KEY"] = None

    @site.engineio.on("connection")
    def connected(socket: Any) -> None:
        socket.on("message", lambda data: socket.send(flask.session.get("user", "nobody")))
        socket.on("message", lambda data: add(flask.session))

    session = open_session(site.serve(), "websocket")
    for _ in range(2):
        session.say("who?")
        assert session.hear() == "nobody"
    site.running.served.settle()
    assert "session is unavailable because no secret key was set" in caplog.text
    assert WARNING not in caplog.text


def test_flask_session(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The extension, which keeps sessions on the server; with its backend of files."""
    site.app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=FileSystemCache(str(tmp_path)))
    flask_session.Session(site.app)
    say_user(site)

    @site.engineio.on("connection")
    def change(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            if data == "change":
                flask.session["score"] = 1

    served = site.serve()
    session = open_session(served, headers=logged_in(served, "tobi"))
    session.say("who?")
    assert session.hear() == "tobi"
    served.settle()
    assert caplog.text == ""
    session.say("change")
    assert session.hear() == "tobi"
    session.say("who?")
    assert session.hear() == "tobi"
    assert caplog.text.count(WARNING) == 1


# -- the comparison by itself


class Incomparable:
    """As numpy's arrays are."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("value", [
    1, float("nan"), (1, [2]), {1, 2}, bytearray(b"x"), object(), threading.Lock(), Incomparable(), iter([1]), [Incomparable()],
], ids=lambda value: type(value).__name__)
def test_what_stays_the_same(value: Any) -> None:
    session = {"value": value}
    watch = SessionWatch(session)
    assert not watch.has_changed()
    session["value"] = None
    assert watch.has_changed()


@pytest.mark.parametrize(("value", "change"), [
    ([1], lambda value: value.append(2)),
    ([[1]], lambda value: value[0].clear()),
    ({1}, lambda value: value.add(2)),
    (bytearray(b"x"), lambda value: value.extend(b"y")),
    ({"a": ({"b": 1},)}, lambda value: value["a"][0].update(b=2)),
    ({"a": 1}, lambda value: value.update(b=2)),
])
def test_a_change_inside(value: Any, change: Callable[[Any], object]) -> None:
    watch = SessionWatch({"value": value})
    change(value)
    assert watch.has_changed()


def test_a_session_that_contains_itself_counts_as_the_same() -> None:
    session: dict[str, Any] = {"a": 1}
    session["self"] = session
    watch = SessionWatch(session)
    session["a"] = 2
    assert not watch.has_changed()


def test_a_session_that_cannot_be_read_counts_as_the_same() -> None:
    assert not SessionWatch(object()).has_changed()
