"""What the engine uses of a WebTransport session and of its stream, whichever library they are from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from wsgiref.types import WSGIEnvironment

__all__ = ["PacketStream", "WebTransportSession"]


class PacketStream(Protocol):
    """A bidirectional stream of a session. Nothing here blocks."""

    @property
    def unsent(self) -> int:
        """Bytes that were written here, and that the stream has not accepted yet."""
        ...

    @property
    def goodbye(self) -> tuple[int, str] | None:
        """The code and the reason with which the client has closed the session; ``None`` if it has not."""
        ...

    def recv(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; ``b""`` at the end. Raises ``BlockingIOError`` instead of waiting, ``OSError`` if it is lost."""
        ...

    def watch(self, on_readable: Callable[[], object], /) -> None:
        """Call ``on_readable()`` in the hub, repeatedly, as long as there is something to read."""
        ...

    def unwatch(self) -> None:
        """Stop calling back. The client is slowed down when its window is used up."""
        ...

    def write(self, data: bytes, /) -> None:
        """Queue ``data``, and send it. Raises ``OSError`` if the stream is lost."""
        ...

    def call_when_drained(self, callback: Callable[[], object], /) -> None:
        """Call ``callback()`` in the hub whenever ``unsent`` becomes 0, and when the stream is lost with bytes unsent."""
        ...

    def finish(self, code: int, reason: str, /) -> None:
        """Send what is unsent, and then close the session with a code and a reason, in the background."""
        ...

    def close(self) -> None:
        """Close the session now; what the client has not received is lost."""
        ...


class WebTransportSession(Protocol):
    """A session that a client has opened."""

    @property
    def environ(self) -> WSGIEnvironment:
        """The request that has opened it, as a WSGI environ."""
        ...

    def on_stream(self, callback: Callable[[PacketStream], object], /) -> None:
        """Call ``callback(stream)`` once, in the hub, with the first bidirectional stream that the client has opened or opens."""
        ...

    def on_end(self, callback: Callable[[], object] | None, /) -> None:
        """Call ``callback()`` once, in the hub, when the session has ended, on either side.

        At once if it has ended. ``None`` calls nothing any more.
        """
        ...

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the session. Harmless if repeated."""
        ...
