"""A byte stream in a conversation between two workers, with the interface of a :class:`Connection`.

Owns the flow control: the other end says how many bytes it has passed on, to the client or to the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import gevent

from engineio_wsgi.cluster.messages import Kind, Message, read_number
from engineio_wsgi.cluster.redis.reliable_link import Conversation
from engineio_wsgi.errors import OwnerGone
from engineio_wsgi.runtime.loop import IoLoop

__all__ = ["Stream"]


class Stream:
    """One end of a stream: see :class:`Pumped`.

    Args:
        conversation: it belongs to this object now.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._loop: IoLoop = gevent.get_hub().loop
        self._arrived: deque[bytes] = deque()
        self._ended = False
        self._on_readable: Callable[[], object] | None = None
        #: bytes that the other end has not passed on yet
        self.unsent = 0
        #: the reason why nothing can be written any more
        self.lost: OSError | None = None
        self._on_drained: Callable[[], object] | None = None
        conversation.begin_callbacks(self._take)

    def _take(self, message: Message | None) -> None:
        """A message has arrived; ``None`` is the end."""
        if message is None:
            self._ended = True
            self.lost = ConnectionResetError("the other worker has ended the connection")
        elif message.kind is Kind.DATA:
            self._arrived.append(message.body)
        elif message.kind is Kind.ROOM:
            self._make_room(read_number("".join(message.fields)))
            return
        self._fire()

    def _make_room(self, size: int) -> None:
        if size > self.unsent:
            return
        self.unsent -= size
        if not self.unsent and self._on_drained is not None:
            self._on_drained()

    # -- reading

    def watch(self, on_readable: Callable[[], object]) -> None:
        """Call ``on_readable()`` in the hub, soon if there is something to read, and whenever more arrives."""
        self._on_readable = on_readable
        if self._arrived or self._ended:
            self._loop.run_callback(self._fire)

    def unwatch(self) -> None:
        """Stop calling back."""
        self._on_readable = None

    def _fire(self) -> None:
        if self._on_readable is not None:
            self._on_readable()

    def recv(self, size: int) -> bytes:
        """The next bytes, ``b""`` at the end. ``size`` is ignored: the other end limits it.

        Raises:
            BlockingIOError: there are none now.
        """
        if self._arrived:
            data = self._arrived.popleft()
            self._send(Message(Kind.ROOM, (str(len(data)),)))
            return data
        if self._ended:
            return b""
        raise BlockingIOError

    # -- writing

    def call_when_drained(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` in the hub whenever ``unsent`` becomes 0."""
        self._on_drained = callback

    def write(self, data: bytes) -> None:
        """Send bytes. Never blocks.

        Raises:
            OSError: the stream is lost.
        """
        if self.lost is not None:
            raise self.lost
        self.unsent += len(data)
        self._send(Message(Kind.DATA, body=data))
        if self.lost is not None:
            raise self.lost

    def _send(self, message: Message) -> None:
        try:
            self._conversation.send(message)
        except OwnerGone as error:
            self.lost = ConnectionResetError(str(error))

    # -- the end

    def linger(self) -> None:
        """Close: written bytes arrive before the end."""
        self.close()

    def close(self) -> None:
        """End the stream. Harmless if repeated."""
        self._on_readable = self._on_drained = None
        self.lost = self.lost or ConnectionResetError("closed")
        self._conversation.end()
