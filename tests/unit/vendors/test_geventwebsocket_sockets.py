"""The insides of gevent-websocket's WebSocket that this package relies on."""

from __future__ import annotations

import errno
from typing import Any

from gevent import socket
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import Client, WebSocketHandler

from engineio_wsgi.vendors import geventwebsocket_sockets as vendors
from engineio_wsgi.vendors.gevent_servers import reader_socket

HANDSHAKE = (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


def test_a_websocket_knows_its_connection_and_writes_nothing_once_it_is_closed() -> None:
    seen: list[Any] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        websocket = environ["wsgi.websocket"]
        sock = vendors.socket_of(websocket)
        seen.extend([vendors.is_plain(websocket), sock.getpeername(), reader_socket(vendors.reader_of(websocket)) is sock])
        vendors.mark_closed(websocket)
        websocket.close()
        sock.sendall(b"the application's own")
        return []

    server = WSGIServer(("127.0.0.1", 0), application, handler_class=WebSocketHandler, log=None)
    server.start()
    with socket.create_connection(server.address) as client:
        client.sendall(HANDSHAKE)
        received = b""
        while data := client.recv(1000):
            received += data
        assert seen == [True, client.getsockname(), True]
    server.stop()
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.partition(b"\r\n\r\n")[2] == b"the application's own"


def test_another_object_is_not_gevent_websockets() -> None:
    assert not vendors.is_plain(object())


def test_the_handler_has_what_ours_inherits() -> None:
    assert errno.EPIPE in WebSocketHandler.ignored_socket_errors
    assert callable(WebSocketHandler.log_error)
    assert isinstance(WebSocketHandler.logger, property)


def test_a_client_is_an_address_and_its_websocket() -> None:
    client = Client(("192.0.2.7", 5021), "a websocket")
    assert (client.address, client.ws) == (("192.0.2.7", 5021), "a websocket")
