"""Options in python-engineio's spelling, and what a client sees of them."""

from __future__ import annotations

import logging
from typing import Any

import engineio
import flask
import flask_socketio
import pytest
import socketio
from support.rawhttp import HttpConnection

from engineio_wsgi.contrib.socketio import Server, SocketIO

pytestmark = pytest.mark.ours

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
PAGE = "https://shop.example"


def handshake(site: Any, *headers: tuple[str, str]) -> Any:
    connection = HttpConnection(site.address)
    return connection.get(HANDSHAKE, list(headers))


def test_options_are_read_back_in_the_spelling_in_which_they_were_given() -> None:
    sio = Server(cookie="io", ping_interval=(10, 3), ping_timeout=7, allow_upgrades=False, transports="polling")
    assert (sio.eio.cookie, sio.eio.allow_upgrades, sio.eio.ping_interval, sio.eio.ping_timeout) == ("io", False, 10, 7)
    assert sio.eio.async_mode == sio.async_mode == "gevent"
    # the grace is the client's: the sum of both counts for it
    options = sio.eio.engine.options
    assert (options.ping_interval, options.ping_timeout, options.transports) == (10, 10, ("polling",))
    assert options.path == "/socket.io"


@pytest.mark.parametrize("mode", [None, "gevent", "threading"])
def test_the_modes_that_there_are_need_no_warning(mode: str | None, caplog: Any) -> None:
    assert Server(async_mode=mode).async_mode == "gevent"
    assert caplog.records == []


def test_an_option_that_cannot_be_honoured_is_one_warning_that_names_it(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "engine.socketio"):
        Server(async_mode="eventlet", ping_intervall=3)
    assert [record.getMessage().split(":")[0].split("=")[0] for record in caplog.records] == ["async_mode", "ping_intervall"]
    assert "did you mean ping_interval" in caplog.text or "there are" in caplog.text
    with pytest.raises(ValueError, match="async_mode: expected None or one of"):
        Server(async_mode="asyncio")
    with pytest.raises(ValueError, match="transports: expected one or both of"):
        Server(transports=["carrier pigeon"])


def test_flask_socketio_leaves_no_option_to_warn_of(caplog: Any) -> None:
    SocketIO(flask.Flask(__name__), message_queue=None, channel="ours", manage_session=False)
    assert caplog.records == []


def test_a_cookie_has_any_attributes(site: Any) -> None:
    numbers = iter(range(1, 9))
    made = site(cookie={"name": "io", "path": "/", "Partitioned": True, "Max-Age": lambda: str(next(numbers)), "Secure": False})
    first, second = (handshake(made) for _ in range(2))
    sid = first.text[1:].partition('"sid":"')[2].partition('"')[0]
    assert first.header("Set-Cookie") == f"io={sid}; path=/; Partitioned; Max-Age=1"
    assert second.header("Set-Cookie").endswith("Max-Age=2")
    assert "SameSite=Lax" in handshake(site(cookie="io")).header("Set-Cookie")
    assert handshake(site()).headers("Set-Cookie") == []


@pytest.mark.parametrize(("origins", "status", "allowed"), [
    (None, 403, None), ("*", 200, PAGE), (PAGE, 200, PAGE), ([PAGE, "https://other.example"], 200, PAGE),
    (["https://other.example"], 403, None), ([], 200, None), (lambda origin: origin == PAGE, 200, PAGE),
    (lambda origin, environ: environ["PATH_INFO"] == "/nowhere", 403, None),
    (lambda origin, environ: environ["PATH_INFO"] == "/socket.io/", 200, PAGE),
])
def test_origins(site: Any, origins: Any, status: int, allowed: str | None) -> None:
    response = handshake(site(cors_allowed_origins=origins), ("Origin", PAGE))
    assert response.status == status
    if status == 200:
        assert response.headers("Access-Control-Allow-Origin") == ([allowed] if allowed else [])
        assert bool(response.headers("Access-Control-Allow-Credentials")) is bool(allowed)


def test_no_credentials(site: Any) -> None:
    response = handshake(site(cors_allowed_origins=PAGE, cors_credentials=False), ("Origin", PAGE))
    assert response.headers("Access-Control-Allow-Credentials") == []


def test_a_proxy_is_trusted_only_if_the_option_says_so(site: Any, caplog: Any) -> None:
    forwarded = (("Origin", PAGE), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example"))
    with caplog.at_level(logging.WARNING, "engine.socketio"):
        assert handshake(site(), *forwarded).status == 403
    assert "trust_forwarded=True" in caplog.text
    trusting = site(trust_forwarded=True)
    assert handshake(trusting, *forwarded).status == 200
    assert handshake(trusting, ("Origin", "https://evil.example"), *forwarded[1:]).status == 403
    # the application sees the request as it came
    environ = next(iter(trusting.sio.environ.values()))
    assert environ["HTTP_ORIGIN"] == PAGE


def test_nothing_of_theirs_is_changed() -> None:
    class Json:
        dumps = loads = staticmethod(lambda *args, **kwargs: "ours")

    before = socketio.packet.Packet.json, engineio.packet.Packet.json, flask_socketio.socketio, socketio.Server
    made = SocketIO(flask.Flask(__name__), json=Json)
    assert (socketio.packet.Packet.json, engineio.packet.Packet.json, flask_socketio.socketio, socketio.Server) == before
    assert made.server.packet_class.json is Json
    assert Server().packet_class.json is not Json
    theirs = flask_socketio.SocketIO(flask.Flask(__name__), async_mode="threading")
    assert type(theirs.server) is socketio.Server
    assert type(theirs.server.eio) is engineio.Server


def test_two_servers_of_a_process_have_their_paths() -> None:
    made = [SocketIO(flask.Flask(__name__), path=path) for path in ("/one", "two/", None)]
    assert [each.server.eio.engine.options.path for each in made] == ["/one", "/two", "/socket.io"]
