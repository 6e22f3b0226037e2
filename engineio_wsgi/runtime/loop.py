"""What is used of gevent's event loop and of sockets, neither of which has types of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["READ", "WRITE", "IoLoop", "Stream", "Watcher"]

#: what an I/O watcher waits for
READ, WRITE = 1, 2


class Watcher(Protocol):
    """A watcher of the event loop: for a file descriptor, or a timer."""

    def start(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub when it is due."""
        ...

    def stop(self) -> object:
        """Do not call until it is started again."""
        ...

    def close(self) -> object:
        """Release it. It cannot be started again."""
        ...


class IoLoop(Protocol):
    """gevent's event loop."""

    def io(self, fd: int, events: int) -> Watcher:
        """A watcher of a file descriptor; ``events`` is :data:`READ` or :data:`WRITE`."""
        ...

    def timer(self, after: float, repeat: float = 0.0) -> Watcher:
        """A timer that is due ``after`` seconds after its start."""
        ...

    def run_callback(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub, soon. For the hub's thread only."""
        ...

    def run_callback_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub, soon. For any thread."""
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
