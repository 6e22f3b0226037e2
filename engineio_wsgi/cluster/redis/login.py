"""Connections to Redis: redis-py's, over gevent's sockets where there is a hub.

Owns the search for the server of the channels: by Sentinel, or by the nodes of a Redis Cluster. Knows nothing of the messages.
redis-py's pools, and its parser over hiredis, are not used: their waits block all other greenlets.
"""

from __future__ import annotations

import re
from typing import Any

from gevent.socket import socket as GeventSocket
from redis.backoff import NoBackoff
from redis.connection import Connection as RedisConnection
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from engineio_wsgi.errors import Unreachable
from engineio_wsgi.http.hub_thread import has_hub
from engineio_wsgi.options.redis_url import RedisLocation
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.runtime.forks import hold
from engineio_wsgi.vendors.redis_connections import (
    GeventConnection,
    GeventSSLConnection,
    GeventUnixConnection,
    Parser,
    detach_socket,
)

__all__ = ["LOST", "TIMEOUT", "RedisConnector", "RedisPyConnection", "missing_right"]

#: host and port, or the path of a Unix socket
Address = tuple[str, int] | str
#: a connection of redis-py. Any: its methods have no types
RedisPyConnection = Any
#: the errors of a lost connection; `OSError` where redis-py does not convert one
LOST = (RedisError, OSError)
#: the right to the channels of all groups, in an ACL
CHANNEL_RIGHT = "&engineio:*"
#: the command in an error of Redis 6 and 7, and Valkey, about a missing right
_COMMAND = re.compile(r"the '([a-z|]+)' command")
#: seconds that Redis has for any reply
TIMEOUT = 5.0


class _Held:
    """The base class of connections whose sockets have no use in a forked child."""

    def on_socket(self, sock: GeventSocket) -> None:
        hold(sock)


class _GeventConnection(_Held, GeventConnection):
    """redis-py's connection over a gevent socket, which blocks the calling greenlet only."""


class _GeventSSLConnection(_Held, GeventSSLConnection):
    """The same with TLS."""


class _GeventUnixConnection(_Held, GeventUnixConnection):
    """The same over a Unix socket."""


class RedisConnector:
    """Makes connections to one Redis, and keeps none.

    Args:
        location: of the server.
        slot_key: the part of the channels' names by which a Redis Cluster chooses their node.
        in_hub: whether all connections are for greenlets. If not, a thread without a hub gets blocking connections, and no hub.
    """

    def __init__(self, location: RedisLocation, slot_key: str, in_hub: bool = True) -> None:
        self.location = location
        self._in_hub = in_hub
        self._slot_key = slot_key
        #: the commands for channels. In a Redis Cluster, a channel belongs to a node; elsewhere there is only one
        self.publish, self.subscribe = ("SPUBLISH", "SSUBSCRIBE") if location.finder == "cluster" else ("PUBLISH", "SUBSCRIBE")

    def connect(self) -> RedisPyConnection:
        """A connection of redis-py to the server of the channels. Blocks, as its methods do, for :data:`TIMEOUT` at most.

        Raises:
            Unreachable: no server accepts one.
        """
        address, reasons = self._find()
        if address is not None:
            connection = self._connection(address, self.location.username, self.location.password)
            try:
                connection.connect()
            except LOST as error:
                reasons.append(_reason(error))
            else:
                return connection
        raise Unreachable(f"{self.location} cannot be reached: {'; '.join(reasons)}")

    def open(self, *commands: tuple[str | bytes, ...]) -> tuple[Connection, list[object]]:
        """The same, taken from redis-py after it has logged in. Blocks.

        Args:
            commands: to send first, one after the other. Each must have exactly one reply.

        Returns:
            The connection, and the replies.

        Raises:
            Unreachable: no server accepts one, or a command is refused.
        """
        connection = self.connect()
        replies = [_reply(connection, command) for command in commands]
        refusals = [reply for reply in replies if isinstance(reply, Exception)]
        if refusals:
            connection.disconnect()
            raise Unreachable(self.refused(*refusals))
        # all replies have been read, so nothing has been read ahead
        detached = Connection(detach(detach_socket(connection)))
        hold(detached)
        return detached, replies

    def refused(self, *errors: BaseException) -> str:
        """One line for the operator: the errors, and the rights that the user lacks on Redis."""
        return f"{self.location}: {'; '.join(dict.fromkeys(map(_reason, errors)))}"

    def _find(self) -> tuple[Address | None, list[str]]:
        """The server's address, and the errors on the way to it."""
        location = self.location
        if not location.finder:
            return location.socket_path or location.addresses[0], []
        # the password is the server's: Sentinel has its own, if any
        by_sentinel = location.finder == "sentinel"
        ask = self._ask_sentinel if by_sentinel else self._ask_node
        login = ("", "") if by_sentinel else (location.username, location.password)
        reasons: list[str] = []
        for address in location.addresses:
            connection = self._connection(address, *login)
            try:
                return ask(connection), reasons
            except LOST as error:
                reasons.append(f"{address[0]}:{address[1]}: {_reason(error)}")
            finally:
                connection.disconnect()
        return None, reasons

    def _ask_sentinel(self, connection: RedisPyConnection) -> tuple[str, int]:
        reply = _ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.location.service)
        if not reply:
            raise RedisError(f"Sentinel has no service {self.location.service!r}")
        return reply[0].decode(), int(reply[1])

    def _ask_node(self, connection: RedisPyConnection) -> tuple[str, int]:
        slot = key_slot(self._slot_key.encode())
        for first, last, (host, port, *_), *_ in _ask(connection, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                # a node that does not know its own name leaves it out
                return host.decode() or connection.host, port
        raise RedisError(f"no node serves the slot {slot}")

    def _connection(self, address: Address, username: str, password: str) -> RedisPyConnection:
        plain = not self._in_hub and not has_hub()
        # Any: each setting of redis-py has a type of its own
        settings: dict[str, Any] = dict(self.location.settings)
        kind: type[RedisConnection | SSLConnection | UnixDomainSocketConnection]
        if isinstance(address, str):
            kind = UnixDomainSocketConnection if plain else _GeventUnixConnection
            settings["path"] = address
        else:
            kind = RedisConnection if plain else _GeventConnection
            if self.location.secure:
                kind = SSLConnection if plain else _GeventSSLConnection
            settings |= {"host": address[0], "port": address[1], "socket_keepalive": True}
        return kind(username=username or None, password=password or None, protocol=2, socket_timeout=TIMEOUT,
                    socket_connect_timeout=TIMEOUT, parser_class=Parser, retry=Retry(NoBackoff(), 0), **settings)


def _ask(connection: RedisPyConnection, *command: str | bytes) -> Any:  # the reply, whose form depends on the command
    connection.send_command(*command)
    return connection.read_response(disable_decoding=True)


def _reply(connection: RedisPyConnection, command: tuple[str | bytes, ...]) -> object:
    try:
        return _ask(connection, *command)
    except LOST as error:
        return error


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    right = missing_right(text)
    return f"{text} (add {right} to the user's ACL)" if right else text


def missing_right(text: str) -> str:
    """The right that an error of Redis names as missing, in the syntax of ``ACL SETUSER``; empty for other errors."""
    if "permission" not in text:
        return ""
    command = _COMMAND.search(text)
    if command is not None:
        return f"+{command[1]}"
    return CHANNEL_RIGHT if "channel" in text else ""
