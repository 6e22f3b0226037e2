"""Requests between machines over Redis: sent to the session's worker, and answered for other workers.

Owns the order of messages in a conversation. A plain request is sent, and its answer comes back. A WebSocket stays connected to
the worker that has accepted it, which exchanges its bytes with the session's worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ClassVar

from gevent import socket

from engineio_wsgi.cluster.forwarder import ClientWatch, RequestCopy
from engineio_wsgi.cluster.local.channel import PATIENCE
from engineio_wsgi.cluster.messages import Kind, Message, MovedConnection, Refusal, read_answer
from engineio_wsgi.cluster.pump import Pump
from engineio_wsgi.cluster.redis.links import RedisLinks
from engineio_wsgi.cluster.redis.reliable_link import Conversation
from engineio_wsgi.cluster.redis.stream import Stream
from engineio_wsgi.errors import BadMessage, OwnerGone
from engineio_wsgi.handoff.client_socket import ENDED
from engineio_wsgi.handoff.detachable import Detachable
from engineio_wsgi.http.response import Response
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.runtime.greenlet_pool import GreenletPool

__all__ = ["RedisForwarder", "RedisReceiver"]

logger = logging.getLogger("engine.cluster")

#: seconds within which most answers arrive. The client's connection is watched only after them: a watcher costs 5 % of a request
SOON = 0.05


class RedisForwarder:
    """Forwards requests to the workers of other machines.

    Args:
        links: to those workers.
        answer_timeout: seconds that the answer to a request may take: as long as a poll can wait.
        relay_websockets: whether WebSockets are relayed; if not, their sessions stay with polling.
    """

    #: only those that become WebSockets: the connection itself cannot leave its machine
    moves_connections: ClassVar[bool] = False

    def __init__(self, links: RedisLinks, answer_timeout: float, relay_websockets: bool) -> None:
        self._links = links
        self._answer_timeout = answer_timeout
        self._relay_websockets = relay_websockets

    def hand_over(self, owner: str, connection: MovedConnection, detachable: Detachable) -> None:
        """See :class:`Forwarder`."""
        if not self._relay_websockets:
            raise OwnerGone("it is on another machine, and WebSockets are not relayed (relay_websockets=no)")
        conversation = self._links.begin(owner, connection.message(detachable.as_read()))
        try:
            reply = conversation.receive(monotonic() + PATIENCE)
            if reply.kind is not Kind.TAKEN:
                raise Refusal.of(reply).error
        except (TimeoutError, BadMessage) as error:
            self._links.withdraw(conversation)
            raise OwnerGone(str(error)) from error
        except BaseException:
            conversation.end()
            raise
        Pump(detachable.detach(), Stream(conversation), self._answer_timeout)

    def relay(self, owner: str, request: RequestCopy) -> Response:
        """See :class:`Forwarder`."""
        conversation = self._links.begin(owner, request.message())
        try:
            message = self._await(conversation, request)
            # after its answer, the other worker sends nothing more, and expects nothing
            conversation.end(tell=False)
            if message.kind is Kind.REFUSED:
                raise Refusal.of(message).error
            return read_answer(message)
        except BadMessage as error:
            raise OwnerGone(f"it has not answered: {error}") from error
        finally:
            conversation.end()

    def _await(self, conversation: Conversation, request: RequestCopy) -> Message:
        """The answer. A worker that does not acknowledge the request within :data:`PATIENCE` is not waited for any longer."""
        began = monotonic()
        with suppress(TimeoutError):
            return conversation.receive(began + SOON)
        with ClientWatch(request.environ, conversation.end):
            with suppress(TimeoutError):
                return conversation.receive(began + min(PATIENCE, self._answer_timeout))
            if conversation.is_unacked:
                self._links.withdraw(conversation)
                raise OwnerGone(f"it has not acknowledged the request for {PATIENCE:g} s")
            return conversation.receive(began + self._answer_timeout)


class RedisExchange:
    """A request or connection from a worker of another machine: see :class:`Exchange`.

    Args:
        conversation: with that worker.
        patience: seconds a client may leave received data unread.
    """

    def __init__(self, conversation: Conversation, patience: float) -> None:
        self._conversation = conversation
        self._patience = patience

    @property
    def client(self) -> dict[str, object]:
        """When the client leaves, the other worker ends the conversation."""
        return {ENDED: self._conversation.ended}

    def confirm(self) -> None:
        """Nothing to do: the link acknowledges the request."""

    def take_connection(self) -> int | None:
        """The connection itself stays on its machine: this worker gets one end of a socket pair, which carries its bytes."""
        try:
            near, far = socket.socketpair()
        except OSError:
            return None
        self._conversation.send(Message(Kind.TAKEN))
        Pump(Connection(detach(near)), Stream(self._conversation), self._patience)
        return int(far.detach())

    def finish(self, message: Message) -> None:
        """Send the last message. The other worker need not be told that the conversation ends."""
        self._conversation.send(message)
        self._conversation.end(tell=False)


class RedisReceiver:
    """Takes requests and connections from the workers of other machines, each in a greenlet.

    Args:
        receive: called with each of them. May raise ``OwnerGone`` and ``BadMessage``.
        patience: seconds a client may leave received data unread.
    """

    def __init__(self, receive: Callable[[RedisExchange, Message], object], patience: float) -> None:
        self._receive = receive
        self._patience = patience
        self._greenlets = GreenletPool()

    def begun(self, conversation: Conversation, message: Message) -> None:
        """Another worker has begun a conversation. Does not block."""
        self._greenlets.submit(partial(self._serve, conversation, message))

    def after_fork(self) -> None:
        """In a forked child: drop the requests that the parent has to answer."""
        self._greenlets.after_fork()

    def _serve(self, conversation: Conversation, message: Message) -> None:
        if conversation.withdrawn:
            return
        try:
            self._receive(RedisExchange(conversation, self._patience), message)
        except BadMessage as error:
            logger.warning("a message on Redis was refused: %s", error)
            conversation.end()
        except OwnerGone as error:
            logger.debug("= the worker that sent a request has ended the conversation: %s", error)
            conversation.end()
