"""Forwards requests to workers of this machine: hands the connection over, or relays the request.

Owns the channels to those workers, and the exchange of messages over them. The router decides which of the two a request needs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar
from weakref import WeakSet

from gevent import socket

from engineio_wsgi.cluster.forwarder import ClientWatch, RequestCopy
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel, connect
from engineio_wsgi.cluster.local.channel_pool import ChannelPool
from engineio_wsgi.cluster.local.names import Names
from engineio_wsgi.cluster.messages import Kind, Message, MovedConnection, Refusal, read_answer
from engineio_wsgi.cluster.pump import Pump
from engineio_wsgi.errors import BadMessage, OwnerGone, SessionMoves
from engineio_wsgi.handoff.detachable import Detachable
from engineio_wsgi.http.response import Response
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.vendors.gevent_sockets import forget_descriptor

__all__ = ["LocalForwarder"]


class LocalForwarder:
    """Forwards requests to the workers of this machine.

    Args:
        names: of their sockets.
        answer_timeout: seconds that the answer to a relayed request may take: as long as a poll can wait.
    """

    moves_connections: ClassVar[bool] = True

    def __init__(self, names: Names, answer_timeout: float) -> None:
        self._names = names
        self._answer_timeout = answer_timeout
        self._channels = ChannelPool()
        #: of TLS connections that became WebSockets of other workers
        self._tunnels: WeakSet[Pump] = WeakSet()

    # -- connections

    def hand_over(self, owner: str, connection: MovedConnection, detachable: Detachable) -> None:
        """See :class:`Forwarder`."""
        message = connection.message(detachable.as_read())
        if detachable.secure:
            # such a connection cannot leave this process: the other worker gets one end of a socket pair
            near, far = socket.socketpair()
            with near, far:
                self._channels.keep(owner, self._begin(owner, message, far.fileno()))
                self._tunnels.add(Pump(detachable.detach(), Connection(detach(near)), self._answer_timeout))
        else:
            self._channels.keep(owner, self._begin(owner, message, detachable.sock.fileno()))
            detached = detachable.detach()
            forget_descriptor(detached.fileno())
            detached.close()

    def _begin(self, owner: str, message: Message, descriptor: int | None = None) -> Channel:
        """Send the first message. Returns the channel when the other worker has taken the connection or request."""
        deadline = monotonic() + PATIENCE
        try:
            channel = self._channels.take(owner)
            if channel is not None:
                # if that worker has closed it meanwhile, it has taken nothing: it would have replied. If its name has moved, the
                # process behind a new channel is another one
                with suppress(ConnectionError, SessionMoves):
                    return self._offer(owner, channel, message, deadline, descriptor)
            channel = connect(self._names.address(owner), deadline)
            return self._offer(owner, channel, message, deadline, descriptor)
        except TimeoutError as error:
            raise OwnerGone(f"it has not answered for {PATIENCE:g} s") from error
        except (OSError, BadMessage) as error:
            raise OwnerGone(str(error)) from error

    def _offer(self, owner: str, channel: Channel, message: Message, deadline: float, descriptor: int | None) -> Channel:
        try:
            reply = channel.ask(message, deadline, descriptor)
            refusal = None if reply.kind is Kind.TAKEN else Refusal.of(reply)
        except BaseException:
            channel.close()
            raise
        if refusal is Refusal.MOVED:
            channel.close()
            raise refusal.error
        if refusal is not None:
            self._channels.keep(owner, channel)
            raise refusal.error
        return channel

    # -- requests

    def relay(self, owner: str, request: RequestCopy) -> Response:
        """See :class:`Forwarder`."""
        channel = self._begin(owner, request.message())
        try:
            with ClientWatch(request.environ, channel.shut_down):
                answered = read_answer(channel.receive(monotonic() + self._answer_timeout))
        except BaseException:
            channel.close()
            raise
        self._channels.keep(owner, channel)
        return answered

    def close(self) -> None:
        """Close the idle channels and the TLS connections. Does not block."""
        self._channels.close()
        for pump in list(self._tunnels):
            pump.close()
