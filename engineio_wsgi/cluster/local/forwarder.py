"""What a worker does with a request for another worker's session: it gives the connection away, or relays the request.

Owns the conversation with the session's worker. Which of the two is right for a request is decided in ``routing``.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import Any, ClassVar, Protocol
from weakref import WeakSet

from gevent import socket

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel, OwnerGone, connect
from engineio_wsgi.cluster.local.channel_pool import IdleChannels
from engineio_wsgi.cluster.local.names import Names
from engineio_wsgi.cluster.local.pump import Pump
from engineio_wsgi.cluster.messages import Answer, BadMessage, Kind, Message, MovedConnection, Refusal, Request
from engineio_wsgi.errors import ClientGone
from engineio_wsgi.handoff.client_socket import EndWatch
from engineio_wsgi.handoff.detachable import Detachable
from engineio_wsgi.http.body import copy_body
from engineio_wsgi.http.response import Response
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.vendors.gevent_sockets import forget_descriptor

__all__ = ["ClientGone", "Courier", "LocalCourier", "RequestCopy"]




class RequestCopy:
    """A request for other workers to answer. Its body is read once, when it is first asked for, which may block.

    Args:
        environ: of the request.
        terms: what workers that send each other requests have in common.
        sid: the session that it is for.
        body_limit: bytes of a body, with more of which the session refuses it.
    """

    def __init__(self, environ: dict[str, Any], terms: str, sid: str, body_limit: int) -> None:
        self.environ = environ
        self._terms = terms
        self.sid = sid
        self._body_limit = body_limit

    @property
    def texts(self) -> dict[str, str]:
        """What can be told of the environ."""
        return {key: value for key, value in self.environ.items() if type(value) is str}

    @cached_property
    def message(self) -> Message:
        """The message that asks for an answer."""
        texts = self.texts
        texts["CONTENT_LENGTH"], body = self._read_body()
        return Request(self._terms, self.sid, texts).message(body)

    def _read_body(self) -> tuple[str, bytes]:
        """``CONTENT_LENGTH`` and body. What is wrong with it is seen by the session, as if it had read it itself."""
        if self.environ["REQUEST_METHOD"] != "POST":
            return self.environ.get("CONTENT_LENGTH") or "", b""
        return copy_body(self.environ, self._body_limit)


class Courier(Protocol):
    """A way from this worker to others."""

    #: whether any connection can go it, and stay there; if not, only those that become WebSockets
    moves_connections: ClassVar[bool]

    def hand_over(self, owner: str, connection: MovedConnection, detachable: Detachable) -> Refusal | None:
        """Give a connection and its request to their session's worker. Blocks until it has taken them.

        Returns:
            ``None`` if it has: the connection is gone from here. Else it is as it was.

        Raises:
            OwnerGone: there is no such worker, or it does not answer.
        """
        ...

    def relay(self, owner: str, request: RequestCopy) -> Response | Refusal:
        """Have a request answered by its session's worker. Blocks until it is.

        Raises:
            OwnerGone: there is no such worker, it does not answer, or it has ended meanwhile.
            ClientGone: the client has left meanwhile.
        """
        ...


class LocalCourier:
    """The way to the workers of this machine.

    Args:
        names: of their sockets.
        answer_timeout: seconds that the answer to a relayed request may take: as long as a poll can wait.
    """

    moves_connections: ClassVar[bool] = True

    def __init__(self, names: Names, answer_timeout: float) -> None:
        self._names = names
        self._answer_timeout = answer_timeout
        self._idle = IdleChannels()
        #: of TLS connections that became other workers' WebSockets
        self._tunnels: WeakSet[Pump] = WeakSet()

    # -- connections

    def hand_over(self, owner: str, connection: MovedConnection, detachable: Detachable) -> Refusal | None:
        """See :class:`Courier`."""
        if detachable.secure:
            return self._hand_over_secure(owner, connection, detachable)
        refusal = self._offer(owner, connection.message(detachable.as_read()), detachable.sock.fileno())
        if refusal is None:
            wire = detachable.detach()
            forget_descriptor(wire.fileno())
            wire.close()
        return refusal

    def _hand_over_secure(self, owner: str, connection: MovedConnection, detachable: Detachable) -> Refusal | None:
        """The same for a TLS WebSocket, which can go nowhere: the other worker gets the end of a pair of sockets."""
        near, far = socket.socketpair()
        with far:
            try:
                refusal = self._offer(owner, connection.message(detachable.as_read()), far.fileno())
            except BaseException:
                near.close()
                raise
        if refusal is not None:
            near.close()
            return refusal
        self._tunnels.add(Pump(detachable.detach(), Connection(detach(near)), self._answer_timeout))
        return None

    def _offer(self, owner: str, message: Message, descriptor: int | None = None) -> Refusal | None:
        channel, refusal = self._begin(owner, message, descriptor)
        self._idle.keep(owner, channel)
        return refusal

    def _begin(self, owner: str, message: Message, descriptor: int | None = None) -> tuple[Channel, Refusal | None]:
        """Begin a conversation, and learn whether the other worker has taken what it is about."""
        try:
            channel = self._idle.take(owner)
            if channel is not None:
                # if that worker has ended it meanwhile, it has taken nothing, which it would have said
                with suppress(ConnectionError):
                    return channel, _settle(channel, message, descriptor)
            channel = connect(self._names.address(owner), monotonic() + PATIENCE)
            return channel, _settle(channel, message, descriptor)
        except (OSError, BadMessage) as error:
            raise OwnerGone(str(error)) from error

    # -- requests

    def relay(self, owner: str, request: RequestCopy) -> Response | Refusal:
        """See :class:`Courier`."""
        channel, refusal = self._begin(owner, request.message)
        answered = self._await_answer(channel, request.environ) if refusal is None else refusal
        self._idle.keep(owner, channel)
        return answered

    def _await_answer(self, channel: Channel, environ: dict[str, Any]) -> Response:
        left: list[bool] = []

        def leave() -> None:
            left.append(True)
            channel.hang_up()

        watch = EndWatch(environ, leave)
        try:
            message = channel.receive(monotonic() + self._answer_timeout)
            answer = Answer.of(message)
        except BaseException as error:
            channel.close()
            if left:
                raise ClientGone from error
            if isinstance(error, (OSError, BadMessage)):
                raise OwnerGone(f"it has not answered: {error}") from error
            raise
        finally:
            watch.stop()
        return Response(answer.status, answer.headers, message.body)

    def close(self) -> None:
        """Keep nothing open any more. Does not block."""
        self._idle.close()
        for pump in list(self._tunnels):
            pump.close()


def _settle(channel: Channel, message: Message, descriptor: int | None) -> Refusal | None:
    """Send the first message of a conversation, and wait for the reply. A channel where that fails is closed."""
    try:
        reply = _ask(channel, message, descriptor)
        return None if reply.kind is Kind.TAKEN else Refusal.of(reply)
    except BaseException:
        channel.close()
        raise


def _ask(channel: Channel, message: Message, descriptor: int | None) -> Message:
    deadline = monotonic() + PATIENCE
    try:
        channel.send(message, deadline, descriptor)
        return channel.receive(deadline)
    except TimeoutError:
        # the other worker may have taken it just now, and must not do so later
        word = channel.last_word()
        if word is None:
            raise TimeoutError(f"it has not answered for {PATIENCE:g} s") from None
        return word
