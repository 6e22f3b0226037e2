"""Connections are served in the order in which their bytes have arrived."""

from __future__ import annotations

import gevent
from gevent import socket
from support.lateness import block_loop

from engineio_wsgi.http.connection import HttpConnection


def test_what_becomes_readable_in_one_turn_is_served_in_order() -> None:
    pairs = [socket.socketpair() for _ in range(10)]
    connections = [HttpConnection(server) for _, server in pairs]
    served: list[int] = []

    def serve(number: int) -> None:
        while connections[number].receive(60):
            served.append(number)

    greenlets = [gevent.spawn(serve, number) for number in range(10)]
    gevent.sleep(0)
    for order in ([*range(10)], [*reversed(range(10))], [3, 1, 4, 0, 5, 9, 2, 6]):
        served.clear()
        # a poll that finds nothing: until then, the kernel keeps the order of what it has reported before
        gevent.idle()
        for number in order:
            pairs[number][0].sendall(b"x")
        while len(served) < len(order):
            gevent.sleep(0)
        assert served == order
    for client, _ in pairs:
        client.close()
    gevent.joinall(greenlets, raise_error=True)
    for connection in connections:
        connection.close()


def test_a_deadline_that_passes_meanwhile_changes_nothing() -> None:
    client, server = socket.socketpair()
    connection = HttpConnection(server)
    waiting = gevent.spawn(connection.receive, 0.05)
    gevent.sleep(0)
    block_loop(0.2, lambda: client.sendall(b"in time"))
    assert waiting.get() == b"in time"
    client.close()
    connection.close()
