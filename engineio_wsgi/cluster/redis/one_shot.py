"""One-shot cluster client over Redis, for processes that are no workers.

Owns the connections of one call. Keeps nothing between two.
"""

from __future__ import annotations

import secrets
from typing import Any

from redis.exceptions import NoPermissionError

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.messages import Action, BadMessage, Call, Message, Result
from engineio_wsgi.cluster.redis.links import GUEST_MARK, Channels
from engineio_wsgi.cluster.redis.login import LOST, RedisLink, Unreachable
from engineio_wsgi.cluster.redis.reliable_link import NO_LINK, Envelope
from engineio_wsgi.cluster.rpc import CALL_TIMEOUT
from engineio_wsgi.options.redis_url import RedisLocation
from engineio_wsgi.vendors.redis_connections import set_timeout

__all__ = ["Guest"]

#: random bytes of a guest's name
NAME_BYTES = 8


class Guest:
    """Reaches the workers of all machines. From any thread; with gevent and without it.

    Args:
        location: of Redis.
        group: of workers that serve each other's sessions.
    """

    def __init__(self, location: RedisLocation, group: str) -> None:
        self._group = group
        self._channels = Channels(group)
        self._link = RedisLink(location, self._channels.slot_key, in_hub=False)

    def workers(self) -> list[str]:
        """The ids of all workers. Blocks until they have answered.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        return sorted(self._ask(self._channels.all, Call(self._group, Action.COUNT).message()))

    def ask(self, worker: str, message: Message) -> int:
        """Have one worker carry out a call. Blocks. Returns how many sessions it concerned; 0 if nobody has answered.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        return sum(self._ask(self._channels.of(worker), message).values())

    def ask_all(self, message: Message) -> int:
        """The same of all workers."""
        return sum(self._ask(self._channels.all, message).values())

    def _ask(self, channel: str, message: Message) -> dict[str, int]:
        """How many sessions a call has concerned at each worker that has answered."""
        name = GUEST_MARK + secrets.token_urlsafe(NAME_BYTES)
        data = Envelope(name, NO_LINK, 1, 0, NO_LINK, 0, 1).pack(message.encode())
        verbs = ("SSUBSCRIBE", "SPUBLISH") if self._link.sharded else ("SUBSCRIBE", "PUBLISH")
        connections: list[Any] = []
        try:
            connections.append(self._link.connect())
            listener = connections[0]
            listener.send_command(verbs[0], self._channels.of(name))
            listener.read_response()
            connections.append(self._link.connect())
            connections[1].send_command(verbs[1], channel, data)
            return _collect(listener, connections[1].read_response())
        except Unreachable as error:
            raise ConnectionError(str(error)) from error
        except NoPermissionError as error:
            raise ConnectionError(self._link.refused(error)) from error
        except LOST as error:
            raise ConnectionError(f"Redis was lost, and nobody knows what was done: {error}") from error
        finally:
            for connection in connections:
                connection.disconnect()


def _collect(listener: Any, expected: int) -> dict[str, int]:
    """What so many answer, by their ids; those who do not in time are left out."""
    sessions: dict[str, int] = {}
    deadline = monotonic() + CALL_TIMEOUT
    while expected:
        try:
            # the answers that have arrived are read, even if it is late
            set_timeout(listener, max(deadline - monotonic(), 0.001))
            _, _, data = listener.read_response(disable_decoding=True)
            envelope, message = Envelope.open(data)
            if message is not None:
                sessions[envelope.origin] = Result.of(message).sessions
        except (BadMessage, *LOST):
            break
        expected -= 1
    return sessions
