"""Forwards requests to workers of this machine: hands the connection over, or relays the request.

Owns the exchange of messages with the session's worker. The router decides which of the two a request needs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import ClassVar, Protocol
from weakref import WeakSet
from wsgiref.types import WSGIEnvironment

from gevent import socket

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.carriers import as_environ, headers_of
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel, connect
from engineio_wsgi.cluster.local.channel_pool import ChannelPool
from engineio_wsgi.cluster.local.names import Names
from engineio_wsgi.cluster.local.pump import Pump
from engineio_wsgi.cluster.messages import BadMessage, Kind, Message, MovedConnection, Refusal, Request, read_answer
from engineio_wsgi.errors import ClientGone, OwnerGone
from engineio_wsgi.handoff.client_socket import EndWatch
from engineio_wsgi.handoff.detachable import Detachable
from engineio_wsgi.http.body import copy_body
from engineio_wsgi.http.response import Response
from engineio_wsgi.protocol.websocket.handshake import asks_for_websocket
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.vendors.gevent_sockets import forget_descriptor

__all__ = ["ClientWatch", "Forwarder", "LocalForwarder", "RequestCopy"]


class RequestCopy:
    """A request for another worker. Its body is read once, by the first call of :meth:`message`, which may block.

    Args:
        environ: of the request.
        fingerprint: the configuration that workers must share to send each other requests.
        sid: the session that it is for.
        body_limit: bytes of the largest body that the session accepts.
    """

    def __init__(self, environ: WSGIEnvironment, fingerprint: str, sid: str, body_limit: int) -> None:
        #: as it was received, and as it is sent
        self._received = self.environ = environ
        #: whether it asks for a WebSocket
        self.upgrade = asks_for_websocket(environ)
        self._fingerprint = fingerprint
        self.sid = sid
        self._body_limit = body_limit
        #: the headers by which a trace is continued in the other worker
        self.trace: dict[str, str] = {}

    def carry(self, headers: dict[str, str]) -> None:
        """Send these headers in the place of the request's own, because they continue a trace."""
        self.trace = headers
        self.environ = {**self._received, **as_environ(headers)}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that were received, by their names in small letters."""
        return headers_of(self._received)

    @property
    def texts(self) -> dict[str, str]:
        """The part of the environ that is text."""
        return {key: value for key, value in self.environ.items() if type(value) is str}

    def message(self) -> Message:
        """The message that asks for an answer."""
        texts = self.texts
        texts["CONTENT_LENGTH"], body = self._body
        return Request(self._fingerprint, self.sid, texts).message(body)

    @cached_property
    def _body(self) -> tuple[str, bytes]:
        """``CONTENT_LENGTH`` and body. If the body is faulty, they are such that the session's worker refuses it, too."""
        if self.environ["REQUEST_METHOD"] != "POST":
            return self.environ.get("CONTENT_LENGTH") or "", b""
        return copy_body(self.environ, self._body_limit)


class ClientWatch:
    """Ends the wait for the answer to a request when its client leaves. Raises from a failed wait:

    - `ClientGone`: the client has left.
    - `OwnerGone`: the other worker does not answer, or answers with something else.

    Args:
        environ: of the request.
        shut_down: ends the wait with an error. Called in the hub; must not block.
    """

    __slots__ = ("_hang_up", "_left", "_watch")

    def __init__(self, environ: WSGIEnvironment, shut_down: Callable[[], object]) -> None:
        self._hang_up = shut_down
        self._left = False
        self._watch = EndWatch(environ, self._on_end)

    def _on_end(self) -> None:
        self._left = True
        self._hang_up()

    def __enter__(self) -> None:
        """It has been watched since it was made."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Stop watching."""
        self._watch.stop()
        if self._left and error is not None:
            raise ClientGone from error
        if isinstance(error, (OSError, BadMessage)):
            raise OwnerGone(f"it has not answered: {error}") from error


class Forwarder(Protocol):
    """Forwards requests to other workers."""

    #: whether it can hand over any connection; if not, only those that become WebSockets
    moves_connections: ClassVar[bool]

    def hand_over(self, owner: str, connection: MovedConnection, detachable: Detachable) -> None:
        """Hand a connection and its request over to their session's worker. Blocks until that worker has taken them.

        The connection has left this process then. After an error, it is unchanged.

        Raises:
            OwnerGone: there is no such worker, or it does not answer.
            OwnerRefused: it does not take them.
        """
        ...

    def relay(self, owner: str, request: RequestCopy) -> Response:
        """Have a request answered by its session's worker. Blocks until it is.

        Raises:
            OwnerGone: there is no such worker, or it does not answer.
            OwnerRefused: it does not take the request.
            ClientGone: the client has left.
        """
        ...


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
                # if that worker has closed it meanwhile, it has taken nothing: it would have replied
                with suppress(ConnectionError):
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
