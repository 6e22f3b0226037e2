"""Connections that wait for their next request: a worker that leaves gives them away, too, or a request would meet a closed one.

Owns the way from a server's roster to the message about a connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engineio_wsgi.cluster.listeners import HOPS, Listener
from engineio_wsgi.cluster.messages import Address, MovedConnection
from engineio_wsgi.http.roster import ConnectionRoster, GivenConnection

__all__ = ["IdleConnection", "idle_connections"]


class IdleConnection(NamedTuple):
    """A connection that waits for its next request, and was taken out of its server. The descriptor belongs to who gets this."""

    connection: MovedConnection
    descriptor: int


def idle_connections(listeners: Sequence[tuple[Listener, ConnectionRoster]], fingerprint: str) -> Iterator[IdleConnection]:
    """Take out the connections that wait for a request now, one after the other."""
    for listener, roster in listeners:
        for given in roster.give_away():
            yield IdleConnection(_connection(given, listener.names, fingerprint), given.descriptor)


def _connection(given: GivenConnection, names: tuple[str, str], fingerprint: str) -> MovedConnection:
    origin = {key: value for key, value in given.values.items() if isinstance(value, str)}
    hops = given.values.get(HOPS, 0)
    address: Address = given.address if isinstance(given.address, tuple) else ""
    return MovedConnection(fingerprint, "", address, origin, hops if isinstance(hops, int) else 0, names, None, False)
