"""Connections that are taken out of the loops of real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gevent import socket
from gevent.pywsgi import WSGIHandler, WSGIServer
from geventwebsocket.handler import WebSocketHandler as PlainHandler

from engineio_wsgi.errors import ConnectionDetached
from engineio_wsgi.handoff.detachable import Detachable, detachable_of
from engineio_wsgi.handoff.upgrades import can_upgrade, upgrade_of
from engineio_wsgi.http.handler import WebSocketHandler

HANDSHAKE = (b"GET /there HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
GET = b"GET /there?a=1 HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /there?a=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
NAMES = ("an address", "a kind")

Application = Callable[[dict[str, Any], Any], Any]


class Scene:
    """A server on a free port, and one client of it."""

    def __init__(self, handler: type[Any], application: Application) -> None:
        self.failures: list[BaseException] = []
        self._server = WSGIServer(("127.0.0.1", 0), application, handler_class=handler, log=None, error_log=None)
        self._server.start()
        self.client = socket.create_connection(self._server.address)
        self.client.settimeout(60)

    def ask(self, data: bytes) -> bytes:
        """Send ``data``, and return what comes up to the end of the connection."""
        self.client.sendall(data)
        received = b""
        while more := self.client.recv(65536):
            received += more
        return received

    def stop(self) -> None:
        """End both."""
        self.client.close()
        self._server.stop()


@pytest.fixture
def scene() -> Iterator[Callable[[type[Any], Application], Scene]]:
    """A factory of scenes."""
    scenes: list[Scene] = []

    def make(handler: type[Any], application: Application) -> Scene:
        scenes.append(Scene(handler, application))
        return scenes[-1]

    yield make
    for made in scenes:
        made.stop()


def answer_elsewhere(found: Detachable, start_response: Any) -> Any:
    """Do what another process would do with a connection: read the request as it was sent, and answer it."""
    read = found.as_read()
    connection = found.detach()
    connection.write(b"elsewhere: " + read)
    connection.linger()
    return found.end(start_response)


SERVERS = {"own": WebSocketHandler, "pywsgi": WSGIHandler}


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("request_", [GET, POST + b"body"], ids=["GET", "POST"])
def test_a_request_is_answered_elsewhere_and_nothing_else_reaches_the_client(scene: Any, kind: str, request_: bytes) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        found = detachable_of(environ, environ.get("engineio.handler"), NAMES)
        assert found is not None
        assert (found.listener, found.accepted, found.secure) == (NAMES, False, False)
        assert found.address[0] == "127.0.0.1"
        return answer_elsewhere(found, start_response)

    received = scene(SERVERS[kind], application).ask(request_ + GET)
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"elsewhere: " + request_.split(b"\r\n")[0]
    assert rest == request_.partition(b"\r\n\r\n")[2] + GET


@pytest.mark.parametrize("kind", SERVERS)
def test_a_request_whose_body_has_been_read_stays(scene: Any, kind: str) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.input"].read(1)
        found = detachable_of(environ, environ.get("engineio.handler"), NAMES)
        start_response("200 OK", [("Connection", "close")])
        return [b"stays" if found is None else b"moves"]

    assert scene(SERVERS[kind], application).ask(POST + b"body").endswith(b"stays")


def test_a_request_whose_path_was_changed_stays(scene: Any) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environ.update(SCRIPT_NAME="/mounted", PATH_INFO="/there")
        start_response("200 OK", [("Connection", "close")])
        return [b"stays" if detachable_of(environ, None, NAMES) is None else b"moves"]

    assert scene(WSGIHandler, application).ask(GET).endswith(b"stays")


def test_an_accepted_websocket_of_gevent_websocket(scene: Any) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        found = detachable_of(environ, None, NAMES)
        assert found is not None
        assert (found.listener, found.accepted, found.address) == (("", ""), True, "")
        return answer_elsewhere(found, start_response)

    received = scene(PlainHandler, application).ask(HANDSHAKE + b"frames")
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.partition(b"\r\n\r\n")[2] == b"elsewhere: frames"


def test_another_websocket_stays() -> None:
    assert detachable_of({"wsgi.websocket": object()}, None, NAMES) is None


# -- upgrades of servers that know no WebSockets


def test_a_plain_server_upgrades(scene: Any) -> None:
    ended: list[BaseException] = []

    def inner(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.websocket"].send("hello")
        environ["wsgi.websocket"].close()
        return []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        assert can_upgrade(environ)
        upgrade = upgrade_of(environ)
        assert upgrade is not None
        try:
            upgrade.serve(inner, start_response)
        except ConnectionDetached as error:
            ended.append(error)
            raise

    received = scene(WSGIHandler, application).ask(HANDSHAKE)
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.partition(b"\r\n\r\n")[2] == b"\x81\x05hello\x88\x02\x03\xe8"
    assert len(ended) == 1


def test_a_plain_server_refuses_an_upgrade_with_an_ordinary_response(scene: Any) -> None:
    def inner(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("403 Forbidden", [("X-Why", "no")])
        return [b"not here"]

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        upgrade = upgrade_of(environ)
        assert upgrade is not None
        upgrade.serve(inner, start_response)

    received = scene(WSGIHandler, application).ask(HANDSHAKE)
    assert received.startswith(b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\n")
    assert received.endswith(b"\r\n\r\nnot here")


def test_a_request_without_websocket_headers_is_no_upgrade(scene: Any) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Connection", "close")])
        return [b"none" if upgrade_of(environ) is None else b"an upgrade"]

    assert scene(WSGIHandler, application).ask(GET).endswith(b"none")


@pytest.mark.parametrize(("environ", "possible"), [
    ({"engineio.websockets": False, "engineio.socket": object()}, False), ({"engineio.websockets": True}, True),
    ({"engineio.socket": object()}, True), ({"wsgi.websocket": object()}, True), ({}, False),
])
def test_servers_that_can_upgrade(environ: dict[str, Any], possible: bool) -> None:
    assert can_upgrade(environ) is possible
