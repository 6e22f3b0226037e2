"""What is used of gevent's watchers and of sockets, neither of which has types of its own; `clock` has the loop's timers."""

from __future__ import annotations

from typing import Protocol

from engineio_wsgi.clock import Loop, Timer

__all__ = ["READ", "WRITE", "IoLoop", "Stream", "Watcher"]

#: what an I/O watcher waits for
READ, WRITE = 1, 2


class Watcher(Timer, Protocol):
    """A watcher of the event loop: for a file descriptor, or a timer. It can be stopped and started again."""

    def stop(self) -> object:
        """Do not call until it is started again."""
        ...


class IoLoop(Loop, Protocol):
    """gevent's event loop with the watchers of file descriptors. What waits for time only needs a :class:`Loop`."""

    def io(self, fd: int, events: int) -> Watcher:
        """A watcher of a file descriptor; ``events`` is :data:`READ` or :data:`WRITE`."""
        ...

    def timer(self, after: float, repeat: float = 0.0) -> Watcher:
        """See :class:`Loop`."""
        ...

    def idle(self) -> Watcher:
        """A watcher that is due whenever nothing else is."""
        ...


class Stream(Protocol):
    """A non-blocking socket, or something that behaves like one."""

    def recv(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; ``b""`` at the end. Raises ``BlockingIOError`` instead of waiting."""
        ...

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:
        """Send what the kernel takes; returns how many bytes. Raises ``BlockingIOError`` instead of waiting."""
        ...

    def fileno(self) -> int:
        """The file descriptor; -1 once closed."""
        ...

    def shutdown(self, how: int, /) -> object:
        """End the sending side, or both."""
        ...

    def close(self) -> object:
        """Close it."""
        ...
