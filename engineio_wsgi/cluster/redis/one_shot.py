"""One-shot cluster client over Redis, for processes that are no workers.

Owns the connections of one call. Keeps nothing between two calls.
"""

from __future__ import annotations

import secrets

from redis.exceptions import NoPermissionError

from engineio_wsgi.cluster.messages import Message, read_result
from engineio_wsgi.cluster.redis.calls import RedisCaller
from engineio_wsgi.cluster.redis.envelope import Envelope
from engineio_wsgi.cluster.redis.login import LOST, RedisConnector, RedisPyConnection
from engineio_wsgi.cluster.rpc import CALL_TIMEOUT
from engineio_wsgi.errors import BadMessage, Unreachable
from engineio_wsgi.options.redis_url import RedisLocation
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.vendors.redis_connections import set_timeout

__all__ = ["OneShotClient"]

#: the first character of the name of a process that only makes calls; no worker's id begins with it
CLIENT_MARK = "~"
#: random bytes of the name under which a client gets its answers
NAME_BYTES = 8


class OneShotClient(RedisCaller):
    """Asks the workers of all machines. From any thread, with gevent and without it.

    Args:
        location: of Redis.
        group: of workers that serve each other's sessions.
    """

    def __init__(self, location: RedisLocation, group: str) -> None:
        super().__init__(group)
        self._connector = RedisConnector(location, self._channels.slot_key, in_hub=False)

    def _ask(self, channel: bytes, message: Message) -> dict[str, int]:
        """See :class:`RedisCaller`.

        Raises:
            ConnectionError: Redis cannot be reached, or was lost.
        """
        name = CLIENT_MARK + secrets.token_urlsafe(NAME_BYTES)
        data = Envelope(name, conversation=1).pack(message.encode())
        connector = self._connector
        connections: list[RedisPyConnection] = []
        try:
            connections.append(listener := connector.connect())
            listener.send_command(connector.subscribe, self._channels.of(name))
            listener.read_response()
            connections.append(sender := connector.connect())
            sender.send_command(connector.publish, channel, data)
            return _collect(listener, sender.read_response())
        except Unreachable as error:
            raise ConnectionError(str(error)) from error
        except NoPermissionError as error:
            raise ConnectionError(connector.refused(error)) from error
        except LOST as error:
            raise ConnectionError(f"the connection to Redis was lost, and the call may have been carried out: {error}") from error
        finally:
            for connection in connections:
                connection.disconnect()


def _collect(listener: RedisPyConnection, expected: int) -> dict[str, int]:
    """The results of so many workers, by their ids, without those that do not answer in time."""
    sessions: dict[str, int] = {}
    deadline = monotonic() + CALL_TIMEOUT
    while expected:
        try:
            # the answers that have arrived are read, even if it is late
            set_timeout(listener, max(deadline - monotonic(), 0.001))
            _, _, data = listener.read_response(disable_decoding=True)
            envelope, message = Envelope.open(data)
            if message is not None:
                sessions[envelope.origin] = read_result(message)
        except (BadMessage, *LOST):
            break
        expected -= 1
    return sessions
