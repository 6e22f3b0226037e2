"""``Server.listen``: which greenlets serve its connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from geventwebsocket.handler import WebSocketHandler as PlainHandler

from engineio_wsgi import Server

ASK = b"GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def server() -> Iterator[Any]:
    """A server that notes in which greenlet each handshake is decided about."""

    def allow(request: object) -> bool:
        this.seen.append(gevent.getcurrent())
        return True

    this: Any = Server(allow_request=allow)
    this.seen = []
    yield this
    this.close(0)


def ask(server: Any) -> bytes:
    """The status line of the answer to a handshake on a new connection."""
    with socket.create_connection(server.address[:2], timeout=60) as client:
        client.sendall(ASK)
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    return answer.partition(b"\r\n")[0]


def test_connections_one_after_the_other_share_a_greenlet(server: Any) -> None:
    server.listen(("127.0.0.1", 0))
    assert [ask(server) for _ in range(3)] == [b"HTTP/1.1 200 OK"] * 3
    assert len(set(map(id, server.seen))) < 3


@pytest.mark.parametrize("options", [{"spawn": 5}, {"spawn": "default"}, {"handler_class": PlainHandler}])
def test_the_options_of_gevents_server_decide(server: Any, options: dict[str, Any]) -> None:
    server.listen(("127.0.0.1", 0), **options)
    assert ask(server) == b"HTTP/1.1 200 OK"
    assert all(isinstance(each, gevent.Greenlet) for each in server.seen)
