"""Refusals that an option or a proxy's setting cures: one warning a minute says what came, what was expected, and the cure."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support.clients import open_session
from support.rawhttp import Headers
from support.rawwebsocket import Closed, Refused, WebSocketClient

from engineio_wsgi.log import Throttle
from engineio_wsgi.session import first_message

pytestmark = pytest.mark.ours

HANDSHAKE = "?EIO=4&transport=polling"
PROXY_FIX = "wrap the application in werkzeug's ProxyFix(app, x_for=1, x_proto=1, x_host=1)"
#: a page's origin, the headers of its request, what was expected, and what the cure begins with
ORIGINS: dict[str, tuple[str, Headers, str, str]] = {
    "a proxy that speaks TLS": (
        "https://shop.example", [("Host", "shop.example")], "http://shop.example",
        f"a proxy ends TLS in front of this server, and the server is not told: {PROXY_FIX}"),
    "one on another port": (
        "https://shop.example:8443", [("Host", "shop.example"), ("X-Forwarded-Proto", "https")], "http://shop.example",
        f"a proxy ends TLS in front of this server, and the server is not told: {PROXY_FIX}"),
    "one that names the host": (
        "https://shop.example", [("Host", "127.0.0.1:8000"), ("X-Forwarded-Host", "shop.example")], "http://127.0.0.1:8000",
        f"a proxy forwards to this server, which does not trust its headers: {PROXY_FIX}"),
    "one that hides the host": (
        "http://shop.example", [("Host", "backend"), ("X-Forwarded-For", "192.0.2.1")], "http://backend",
        f"a proxy forwards to this server, and does not send the host of the request: {PROXY_FIX}"),
    "another site": (
        "https://evil.example", [("Host", "shop.example")], "http://shop.example",
        "if pages of that site may use the engine, set the option cors='https://evil.example'"),
    "another site, by a proxy": (
        "https://evil.example", [("Host", "shop.example"), ("X-Forwarded-For", "192.0.2.1")], "http://shop.example",
        "if pages of that site may use the engine, set the option cors='https://evil.example'"),
    "two names of this machine": (
        "http://localhost:8000", [("Host", "127.0.0.1:8000")], "http://127.0.0.1:8000",
        "to a browser, these are two origins: open the page and the engine under one name, or set cors='http://localhost:8000'"),
    "two servers of this machine": (
        "http://localhost:3000", [("Host", "localhost:8000")], "http://localhost:8000",
        "if pages of that site may use the engine, set the option cors='http://localhost:3000'"),
}


def warnings(caplog: Any) -> list[str]:
    """What was logged at WARNING."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("name", ORIGINS)
def test_a_page_of_another_origin(serve: Any, caplog: Any, name: str) -> None:
    origin, headers, expected, cure = ORIGINS[name]
    served = serve()
    for _ in range(3):
        assert served.connect().get(served.path + HANDSHAKE, [("Origin", origin), *headers]).status == 403
    (text,) = warnings(caplog)
    assert text.startswith(f"a page of {origin} was refused; expected: {expected}; {cure}")


def test_what_the_option_allows_is_told(serve: Any, caplog: Any) -> None:
    served = serve(cors=["https://shop.example"])
    served.connect().get(served.path + HANDSHAKE, [("Origin", "https://evil.example"), ("Host", "api.example")])
    (text,) = warnings(caplog)
    assert text.startswith("a page of https://evil.example was refused; expected: http://api.example, or "
                           "('https://shop.example',); ")


def test_a_minute_later_it_is_told_again(serve: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Throttle, "passes", lambda self, key, now: True)
    served = serve()
    for _ in range(2):
        served.connect().get(served.path + HANDSHAKE, [("Origin", "https://evil.example")])
    assert len(warnings(caplog)) == 2


def test_a_host_that_is_not_allowed(serve: Any, caplog: Any) -> None:
    served = serve(allowed_hosts=["shop.example"])
    assert served.connect().get(served.path + HANDSHAKE, [("Host", "www.shop.example")]).status == 403
    assert warnings(caplog) == [
        "a request to the host 'www.shop.example' was refused: if it is this server's, add it to the option allowed_hosts"]


@pytest.mark.parametrize("query", ["EIO=3&transport=polling", "transport=polling"])
def test_a_client_of_an_old_revision(serve: Any, caplog: Any, query: str) -> None:
    served = serve(allow_eio3=False)
    response = served.connect().get(f"{served.path}?{query}")
    assert response.json() == {"code": 5, "message": "Unsupported protocol version"}
    assert response.header("Engineio-Reason") == (
        "the client speaks 3, this server 4; the server's option allow_eio3=True adds 1 to 3")
    assert warnings(caplog) == [
        "a client of revision 3 of the protocol was refused; expected: 4. For clients of Socket.IO 2 and older (Engine.IO 3), "
        "set the option allow_eio3=True"]


def test_a_client_that_speaks_nothing_that_there_is(serve: Any, caplog: Any) -> None:
    served = serve(allow_eio3=False)
    assert served.connect().get(f"{served.path}?EIO=7&transport=polling").status == 400
    assert warnings(caplog) == []


def test_jsonp_that_is_off(serve: Any, caplog: Any) -> None:
    served = serve()
    assert served.connect().get(served.path + HANDSHAKE + "&j=0").status == 400
    assert warnings(caplog) == ["a client that polls by JSONP was refused: set the option jsonp=True if there are such clients"]


def test_an_allow_request_that_says_nothing(serve: Any, caplog: Any) -> None:
    served = serve(allow_request=lambda request: print(end=""))
    response = served.connect().get(served.path + HANDSHAKE)
    assert (response.status, response.json()) == (403, {"code": 4, "message": "Forbidden"})
    assert warnings(caplog) == [
        "allow_request returned None, and the handshake was refused: it must return True or False"]


@pytest.mark.complains
def test_a_cors_callable_that_returns_an_awaitable_lets_nobody_in(serve: Any, caplog: Any) -> None:
    class Awaitable:
        def __await__(self) -> Any:
            yield

    served = serve(cors=lambda origin: Awaitable())
    assert served.connect().get(served.path + HANDSHAKE, [("Origin", "https://evil.example")]).status == 403
    assert "the cors callable failed" in caplog.text
    assert "it returned an awaitable (Awaitable), which nothing awaits" in caplog.text


def test_a_plain_websocket(serve: Any, caplog: Any) -> None:
    served = serve()
    # gevent-websocket's handler accepts the handshake first
    with pytest.raises((Refused, Closed)):
        WebSocketClient.open(served.connect(), served.path).recv()
    assert warnings(caplog) == [
        f"a WebSocket client that does not speak Engine.IO was refused at '{served.path}'; expected: the query "
        "?EIO=4&transport=websocket, which engine.io-client adds. A plain WebSocket is for another path of the application"]


# -- the first message


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_message, "_throttle", Throttle())


@pytest.mark.parametrize("sent", ["0", '0{"token":"secret"}', "0/admin,"])
def test_a_socket_io_client(serve: Any, transport: str, caplog: Any, sent: str) -> None:
    served = serve()
    for count in (1, 2):
        session = open_session(served, transport)
        session.say(sent)
        assert session.hear() == sent
        session.close()
        served.events.wait("close", count)
    assert warnings(caplog) == [
        "the one message of a session was that with which Socket.IO clients connect: this is an Engine.IO server at /engine.io, "
        "the transport below Socket.IO, and such a client reports a parse error; use engine.io-client, or serve Socket.IO on top"]


@pytest.mark.parametrize("sent", [["00"], ["hello"], [""], [b"0"], ["10"], ["0", "1"], ["hello", "0"]])
def test_another_client(serve: Any, transport: str, caplog: Any, sent: Any) -> None:
    served = serve()
    session = open_session(served, transport)
    for data in sent:
        session.say(data)
        assert session.hear() == data
    session.close()
    served.events.wait("close")
    assert warnings(caplog) == []


def test_a_socket_io_server_on_top(serve: Any, transport: str, caplog: Any) -> None:
    served = serve(path="/socket.io")
    session = open_session(served, transport)
    session.say("0")
    assert session.hear() == "0"
    session.close()
    served.events.wait("close")
    assert warnings(caplog) == []
