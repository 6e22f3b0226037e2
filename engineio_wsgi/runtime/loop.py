"""What is used of gevent's event loop, its watchers and sockets, which have no types of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["READ", "WRITE", "IoLoop", "Loop", "Stream", "TimedLoop", "Timer", "Watcher"]

#: what an I/O watcher waits for
READ, WRITE = 1, 2


class Timer(Protocol):
    """A timer of gevent's event loop."""

    def start(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub when the time has come."""
        ...

    def close(self) -> object:
        """Do not call any more. The timer cannot be started again."""
        ...


class Loop(Protocol):
    """The timers and callbacks of gevent's event loop, for what waits for time only; `IoLoop` has its I/O watchers, too."""

    def timer(self, after: float, repeat: float = 0.0) -> Timer:
        """A timer that fires ``after`` seconds after its start, and every ``repeat`` seconds from then on if that is not 0."""
        ...

    def run_callback(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub, soon. For the hub's thread only."""
        ...

    def run_callback_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub, soon. For any thread."""
        ...


class TimedLoop(Loop, Protocol):
    """The same, with the loop's own clock."""

    def now(self) -> float:
        """The time at which the present turn of the loop began."""
        ...

    def update_now(self) -> object:
        """Set that time to the present."""
        ...


class Watcher(Timer, Protocol):
    """A watcher of the event loop: for a file descriptor, or a timer. It can be stopped and started again."""

    def stop(self) -> object:
        """Do not call until it is started again."""
        ...


class IoLoop(Loop, Protocol):
    """The whole of gevent's event loop: with the watchers of file descriptors."""

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
