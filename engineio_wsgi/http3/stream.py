"""The bidirectional stream of a session: its bytes in both directions, and their windows.

It has the methods of `runtime.connection.Connection` that a transport uses. aioquic's buffer takes the place of the kernel's:
what it does not take is kept here as ``unsent``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from engineio_wsgi.runtime.deadline import DeadlineTimer
from engineio_wsgi.runtime.loop import Loop

__all__ = ["SEND_BUFFER", "STREAM_WINDOW", "SessionStream", "StreamOwner"]

#: bytes of a stream that wait for the client's acknowledgement, before senders are slowed down
SEND_BUFFER = 262_144
#: bytes that a client may send before they are read
STREAM_WINDOW = 524_288
#: seconds that a closing session waits until its client has acknowledged what was sent
LINGER = 5.0


class StreamOwner(Protocol):
    """What a stream needs of its connection and its session."""

    loop: Loop

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Pass bytes on, to be sent soon."""
        ...

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes that were passed on, and that the client has not acknowledged."""
        ...

    def is_delivered(self, stream_id: int) -> bool:
        """Whether the client has acknowledged all bytes and the end, or has refused them."""
        ...

    def can_send(self, stream_id: int) -> bool:
        """Whether the client still takes bytes."""
        ...

    def on_read(self, stream_id: int, size: int, held: int) -> None:
        """``size`` bytes were read, and ``held`` bytes wait to be read."""
        ...

    def attend(self, stream: SessionStream) -> None:
        """Call ``stream.on_progress()`` whenever the client may have acknowledged something."""
        ...

    def neglect(self, stream: SessionStream) -> None:
        """Do not call it any more."""
        ...

    def close_session(self, stream_id: int, code: int, reason: str) -> None:
        """Close the session of a stream."""
        ...


class SessionStream:
    """See the module. It is at its end when the client has ended it, or its session, or is gone.

    Args:
        owner: its connection.
        number: the stream's id.
    """

    __slots__ = ("_closing", "_ended", "_is_fired", "_linger", "_on_drained", "_on_readable", "_owner", "_received", "_unsent",
                 "closed", "goodbye", "held", "lost", "number", "unsent")

    def __init__(self, owner: StreamOwner, number: int) -> None:
        self._owner = owner
        self.number = number
        self._received: deque[bytes] = deque()
        #: bytes that were received, and not read
        self.held = 0
        self._ended = False
        self._on_readable: Callable[[], object] | None = None
        self._is_fired = False
        self._unsent: deque[bytes] = deque()
        #: bytes that were written here, and that aioquic's buffer has no room for
        self.unsent = 0
        self._on_drained: Callable[[], object] | None = None
        #: the code and the reason with which the client has closed the session
        self.goodbye: tuple[int, str] | None = None
        #: why nothing can be written any more
        self.lost: OSError | None = None
        #: whether this side has closed it
        self.closed = False
        #: closes the session when the client has acknowledged everything, or after a time
        self._linger: DeadlineTimer | None = None
        self._closing = (0, "")

    # -- reading

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; ``b""`` at the end of the stream. Never blocks.

        Raises:
            BlockingIOError: there is nothing to read now.
            OSError: the connection is lost.
        """
        if not self._received:
            return self._at_end()
        data = self._received.popleft()
        if len(data) > size:
            self._received.appendleft(data[size:])
            data = data[:size]
        elif self._received and len(data) + len(self._received[0]) <= size:
            data = self._join(data, size)
        self.held -= len(data)
        self._owner.on_read(self.number, len(data), self.held)
        if self._received or self._ended or self.lost is not None:
            self._fire_soon()
        return data

    def _join(self, data: bytes, size: int) -> bytes:
        """``data``, and the chunks behind it that fit."""
        chunks = [data]
        size -= len(data)
        while self._received and len(self._received[0]) <= size:
            chunks.append(self._received.popleft())
            size -= len(chunks[-1])
        return b"".join(chunks)

    def _at_end(self) -> bytes:
        if self._ended:
            return b""
        if self.lost is not None:
            raise self.lost
        raise BlockingIOError

    def watch(self, on_readable: Callable[[], object]) -> None:
        """Call ``on_readable()`` in the hub, repeatedly, as long as there is something to read."""
        if self.closed:
            return
        self._on_readable = on_readable
        if self._received or self._ended or self.lost is not None:
            self._fire_soon()

    def unwatch(self) -> None:
        """Stop calling back; what arrives is kept, and fills the client's window."""
        self._on_readable = None

    def _fire_soon(self) -> None:
        if self._on_readable is not None and not self._is_fired:
            self._is_fired = True
            self._owner.loop.run_callback(self._fire)

    def _fire(self) -> None:
        self._is_fired = False
        if self._on_readable is not None and (self._received or self._ended or self.lost is not None):
            self._on_readable()

    # -- from the connection

    def on_data(self, data: bytes, ended: bool) -> None:
        """The client has sent ``data``, and nothing behind it if it has ``ended`` the stream."""
        if self.closed:
            self._owner.on_read(self.number, len(data), 0)
            return
        if data:
            self._received.append(data)
            self.held += len(data)
        self._ended = self._ended or ended
        if self._on_readable is not None and not self._is_fired:
            self._on_readable()

    def on_goodbye(self, code: int, reason: str) -> None:
        """The client has closed the session."""
        self.goodbye = (code, reason)
        self._lose(BrokenPipeError("the client has closed the session"))
        self.on_data(b"", True)

    def on_lost(self, error: OSError) -> None:
        """The connection, or the stream, is lost."""
        self._lose(error)
        if self.closed:
            self._end_lingering()
        elif not self._is_fired and self._on_readable is not None:
            self._on_readable()

    def _lose(self, error: OSError) -> None:
        if self.lost is None:
            self.lost = error
        self._owner.neglect(self)
        if self.unsent and self._on_drained is not None:
            self._owner.loop.run_callback(self._on_drained)

    # -- writing

    def write(self, data: bytes) -> None:
        """Pass on what aioquic's buffer has room for, and the rest when the client has acknowledged more. Never blocks.

        Raises:
            OSError: the stream is lost.
        """
        if self.lost is not None:
            raise self.lost
        if not self._owner.can_send(self.number):
            self.lost = BrokenPipeError("the client takes nothing more")
            raise self.lost
        if not self.unsent:
            room = SEND_BUFFER - self._owner.unacknowledged(self.number)
            if len(data) <= room:
                self._owner.send(self.number, data)
                return
            if room > 0:
                self._owner.send(self.number, data[:room])
                data = data[room:]
        self._unsent.append(data)
        self.unsent += len(data)
        self._owner.attend(self)

    def call_when_drained(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` in the hub whenever ``unsent`` becomes 0, and when the stream is lost with bytes unsent."""
        self._on_drained = callback

    def on_progress(self) -> None:
        """The client may have acknowledged something: pass on more."""
        if self.unsent:
            self._pass_on()
            if self.unsent:
                return
            if self._on_drained is not None:
                self._on_drained()
        if self._linger is None:
            if not self.unsent:
                self._owner.neglect(self)
        elif self._owner.is_delivered(self.number):
            self._end_lingering()

    def _pass_on(self) -> None:
        room = SEND_BUFFER - self._owner.unacknowledged(self.number)
        if not self._owner.can_send(self.number):
            self.on_lost(BrokenPipeError("the client takes nothing more"))
            return
        while self._unsent and room > 0:
            data = self._unsent.popleft()
            if len(data) > room:
                self._unsent.appendleft(data[room:])
                data = data[:room]
            self._owner.send(self.number, data)
            self.unsent -= len(data)
            room -= len(data)

    # -- the end

    def finish(self, code: int, reason: str, timeout: float = LINGER) -> None:
        """Close in the background: the session ends when the client has acknowledged what was sent, or after ``timeout`` seconds.

        The capsule that closes a session is on another stream, and would overtake the data.
        """
        if self.closed:
            return
        self._stop_reading()
        if self.lost is not None:
            self._owner.close_session(self.number, code, reason)
            return
        self._linger = DeadlineTimer(self._owner.loop, timeout, self._end_lingering)
        self._on_drained = self._end_stream
        self._closing = (code, reason)
        self._owner.attend(self)
        if not self.unsent:
            self._end_stream()

    def _end_stream(self) -> None:
        self._on_drained = None
        if self.lost is None and self._owner.can_send(self.number):
            self._owner.send(self.number, b"", True)
        else:
            self._end_lingering()

    def _end_lingering(self) -> None:
        linger, self._linger = self._linger, None
        if linger is not None:
            linger.close()
            self._owner.neglect(self)
            self._owner.close_session(self.number, *self._closing)

    def close(self) -> None:
        """Close the session now. Harmless if repeated."""
        if self.closed:
            return
        self._stop_reading()
        self._owner.neglect(self)
        self._owner.close_session(self.number, 0, "")

    def _stop_reading(self) -> None:
        self.closed = True
        self._on_readable = None
        self._received.clear()
        held, self.held = self.held, 0
        self._owner.on_read(self.number, held, 0)
