"""Requests between machines: asked of a session's worker over Redis, and answered for others.

Owns what is said in the conversations of an exchange. A plain request is sent there and its answer comes back. A WebSocket
stays connected to the worker that has accepted it, and its bytes go to and fro; the session's worker serves them as if the
connection were its own.
"""

from __future__ import annotations

import logging
from typing import ClassVar

import gevent
from gevent import socket

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.incoming import Owner
from engineio_wsgi.cluster.local.channel import PATIENCE, OwnerGone
from engineio_wsgi.cluster.local.forwarder import ClientGone, RequestCopy
from engineio_wsgi.cluster.local.pump import Pump
from engineio_wsgi.cluster.messages import Answer, BadMessage, Kind, Message, MovedConnection, Refusal, Request
from engineio_wsgi.cluster.redis.links import Exchange
from engineio_wsgi.cluster.redis.reliable_link import Conversation
from engineio_wsgi.cluster.redis.stream import Stream
from engineio_wsgi.handoff.client_socket import ENDED, EndWatch
from engineio_wsgi.handoff.detachable import Detachable
from engineio_wsgi.http.response import Response
from engineio_wsgi.runtime.connection import Connection, detach

__all__ = ["RemoteCourier", "RemoteOwner"]

logger = logging.getLogger("engine.cluster")


class RemoteCourier:
    """The way to the workers of other machines.

    Args:
        exchange: to reach them by.
        answer_timeout: seconds that the answer to a request may take: as long as a poll can wait.
        relay_websockets: whether a WebSocket can go this way; if not, its session stays with polling.
    """

    #: only what becomes a WebSocket: every other request can come to its session's machine by itself the next time
    moves_connections: ClassVar[bool] = False

    def __init__(self, exchange: Exchange, answer_timeout: float, relay_websockets: bool) -> None:
        self._exchange = exchange
        self._answer_timeout = answer_timeout
        self._relay_websockets = relay_websockets

    def hand_over(self, owner: str, connection: MovedConnection, detachable: Detachable) -> Refusal | None:
        """See :class:`Courier`."""
        if not self._relay_websockets:
            raise OwnerGone("it is on another machine, and WebSockets are not relayed (relay_websockets=no)")
        conversation = self._exchange.begin(owner, connection.message(detachable.as_read()))
        try:
            reply = conversation.receive(monotonic() + PATIENCE)
            if reply.kind is not Kind.TAKEN:
                refusal = Refusal.of(reply)
                conversation.end()
                return refusal
        except (TimeoutError, BadMessage) as error:
            self._exchange.take_back(conversation)
            raise OwnerGone(str(error)) from error
        except BaseException:
            conversation.end()
            raise
        Pump(detachable.detach(), Stream(conversation), self._answer_timeout)
        return None

    def relay(self, owner: str, request: RequestCopy) -> Response | Refusal:
        """See :class:`Courier`."""
        conversation = self._exchange.begin(owner, request.message)
        left: list[bool] = []

        def leave() -> None:
            left.append(True)
            conversation.end()

        watch = EndWatch(request.environ, leave)
        try:
            message = self._await(conversation)
            # whoever answers has nothing more to say, and knows that nobody listens any more
            conversation.end(tell=False)
            return _answer_in(message)
        except (OwnerGone, BadMessage) as error:
            if left:
                raise ClientGone from error
            raise OwnerGone(str(error)) from error
        finally:
            watch.stop()
            conversation.end()

    def _await(self, conversation: Conversation) -> Message:
        """The answer. Who has not even acknowledged the request after a while is not waited for any longer."""
        deadline = monotonic() + self._answer_timeout
        try:
            return conversation.receive(min(deadline, monotonic() + PATIENCE))
        except TimeoutError:
            if conversation.is_unacked:
                self._exchange.take_back(conversation)
                raise OwnerGone(f"it was not reached for {PATIENCE:g} s") from None
        try:
            return conversation.receive(deadline)
        except TimeoutError as error:
            raise OwnerGone(f"it has not answered: {error}") from error


def _answer_in(message: Message) -> Response | Refusal:
    if message.kind is Kind.REFUSED:
        return Refusal.of(message)
    answer = Answer.of(message)
    return Response(answer.status, answer.headers, message.body)


class RemoteOwner:
    """What this worker does for those of other machines.

    Args:
        owner: does the same for those of this one.
        patience: seconds for which a client may leave lying what has come for it.
    """

    def __init__(self, owner: Owner, patience: float) -> None:
        self._owner = owner
        self._patience = patience

    def begun(self, conversation: Conversation, message: Message) -> None:
        """Another worker asks for something. Does not block."""
        gevent.spawn(self._converse, conversation, message)

    def _converse(self, conversation: Conversation, message: Message) -> None:
        if conversation.taken_back:
            return
        try:
            if message.kind is Kind.REQUEST:
                self._answer(conversation, Request.of(message), message.body)
            else:
                self._take(conversation, MovedConnection.of(message), message.body)
        except BadMessage as error:
            logger.warning("a message on Redis was refused: %s", error)
            conversation.end()
        except OwnerGone as error:
            logger.debug("= a worker that had asked for something is gone: %s", error)
            conversation.end()

    def _answer(self, conversation: Conversation, request: Request, body: bytes) -> None:
        refusal = self._owner.refusal(request.terms, request.sid)
        if refusal is not None:
            conversation.send(refusal.message())
        else:
            conversation.send(self._owner.answer(request, body, {ENDED: conversation.ended}))
        conversation.end(tell=False)

    def _take(self, conversation: Conversation, connection: MovedConnection, read_ahead: bytes) -> None:
        refusal = self._owner.refusal_of(connection)
        if refusal is not None:
            conversation.send(refusal.message())
            conversation.end(tell=False)
            return
        near, far = socket.socketpair()
        conversation.send(Message(Kind.TAKEN))
        Pump(Connection(detach(near)), Stream(conversation), self._patience)
        self._owner.take(far.detach(), connection, read_ahead)
