"""The worker that leaves: it gives its names, its sessions and its idle connections to an heir.

Owns the channel to the heir, and what was sent over it and is not acknowledged: if the heir fails, that is taken back. Messages
follow each other without waiting for the replies, which come in the same order.
"""

from __future__ import annotations

import _socket
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import gevent
from gevent.event import AsyncResult
from gevent.queue import Queue

from engineio_wsgi.cluster.handover.format import decode, encode
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel
from engineio_wsgi.cluster.messages import MAX_BODY, Kind, Message, Refusal
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.errors import BadMessage
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Stream
from engineio_wsgi.session.movable import SessionSnapshot
from engineio_wsgi.vendors.gevent_sockets import forget_descriptor

__all__ = ["HEIR_GONE", "NOT_TAKEN", "Passage", "close_descriptor"]

logger = logging.getLogger("engine.cluster")


#: why a session stays whose heir has failed
HEIR_GONE = "the other worker is gone"
#: why a session stays that its heir has refused
NOT_TAKEN = "the other worker does not take it"


class _Parcel(NamedTuple):
    """A message to the heir, and what is to be done with its reply."""

    message: Message
    descriptor: int | None
    #: called with whether the heir has taken it; ``None`` if the heir is gone, and has not
    on_reply: Callable[[bool | None], object]
    #: when it was sent, on the monotonic clock
    since: float


class Passage:
    """What goes from one worker to its heir. Implements `Carrier`.

    Args:
        worker: the one that leaves, where sessions go on that the heir does not take.
        channel: to the heir, which has accepted the claim.
        name_of: returns the name that a session belongs to.
    """

    def __init__(self, worker: Worker, channel: Channel, name_of: Callable[[str], str]) -> None:
        self._worker = worker
        self._name_of = name_of
        self._channel = channel
        self._outgoing = Queue()
        self._unacknowledged: deque[_Parcel] = deque()
        #: whether the heir is gone, or silent
        self.is_broken = False
        self._writer = gevent.spawn(self._write)
        self._reader = gevent.spawn(self._read)

    # -- sessions

    def pack(self, snapshot: SessionSnapshot) -> bytes:
        """See `Carrier`."""
        parcel = encode(snapshot)
        if len(parcel) > MAX_BODY:
            raise BadMessage(f"it has {len(parcel)} bytes")
        return parcel

    def take(self, sid: str, parcel: bytes, stream: Stream | None) -> AsyncResult:
        """See `Carrier`."""
        arrival = AsyncResult()

        def on_reply(is_taken: bool | None) -> None:
            if is_taken:
                _close(stream)
                arrival.set(None)
            else:
                self._take_back(parcel, stream)
                arrival.set(HEIR_GONE if is_taken is None else NOT_TAKEN)

        fields = (self._name_of(sid), "" if stream is None else "connection")
        self._send(Message(Kind.SESSION, fields, parcel), None if stream is None else stream.fileno(), on_reply)
        return arrival

    def _take_back(self, parcel: bytes, stream: Stream | None) -> None:
        """Go on with a session here, as an heir would."""
        try:
            self._worker.prepare(decode(parcel), stream).resume()
        except (BadMessage, ValueError):
            # this server has been closed meanwhile
            logger.exception("a session that did not move cannot go on here, either")
            _close(stream)

    # -- the rest

    def ask(self, message: Message, descriptor: int | None = None) -> bool:
        """Send a message, and wait for the reply. Blocks. Returns whether the heir has taken it."""
        replied = AsyncResult()
        self._send(message, descriptor, replied.set)
        return bool(replied.get())

    def tell(self, message: Message) -> None:
        """Send a broadcast, behind the sessions that were sent before. Does not block."""
        self._send(message, None, lambda is_taken: None)

    def _send(self, message: Message, descriptor: int | None, on_reply: Callable[[bool | None], object]) -> None:
        parcel = _Parcel(message, descriptor, on_reply, monotonic())
        if self.is_broken:
            # the caller is in the midst of a step
            gevent.get_hub().loop.run_callback(on_reply, None)
            return
        self._unacknowledged.append(parcel)
        self._outgoing.put(parcel)

    def _write(self) -> None:
        while True:
            parcel: _Parcel = self._outgoing.get()
            try:
                self._channel.send(parcel.message, monotonic() + PATIENCE, parcel.descriptor)
            except (OSError, BadMessage) as error:
                logger.debug("= nothing more can be sent to the heir: %s", error)
                self._channel.shut_down()
                return

    def _read(self) -> None:
        try:
            while True:
                try:
                    reply = self._channel.receive(monotonic() + PATIENCE)
                except TimeoutError:
                    if self._unacknowledged and monotonic() - self._unacknowledged[0].since > PATIENCE:
                        raise
                else:
                    self._on_reply(reply)
        except (OSError, BadMessage) as error:
            self._break(str(error))

    def _on_reply(self, reply: Message) -> None:
        if not self._unacknowledged:
            raise BadMessage("a reply to nothing")
        parcel = self._unacknowledged.popleft()
        is_taken = reply.kind is Kind.TAKEN
        if not is_taken:
            logger.debug("= the heir refuses a %s: %s", parcel.message.kind.name, Refusal.of(reply).value)
        parcel.on_reply(is_taken)

    def _break(self, reason: str) -> None:
        """The heir is gone: whatever it has not acknowledged goes on here. It has touched nothing of that."""
        if self.is_broken:
            return
        self.is_broken = True
        for reply in self._channel.last_messages():
            if self._unacknowledged:
                self._unacknowledged.popleft().on_reply(reply.kind is Kind.TAKEN)
        if self._unacknowledged:
            logger.warning("the worker that takes the sessions is gone (%s): %d of them go on here", reason,
                           sum(parcel.message.kind is Kind.SESSION for parcel in self._unacknowledged))
        while self._unacknowledged:
            self._unacknowledged.popleft().on_reply(None)

    def close(self) -> None:
        """Close the channel. Nothing may be under way."""
        self.is_broken = True
        self._writer.kill()
        self._reader.kill()
        self._channel.close()


def _close(stream: Stream | None) -> None:
    """Close a descriptor of a connection that another process has."""
    if isinstance(stream, _socket.socket):
        close_descriptor(stream.detach())


def close_descriptor(number: int) -> None:
    """Close the descriptor of a connection that another process has."""
    forget_descriptor(number)
    os.close(number)
