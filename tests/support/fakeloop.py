"""An event loop whose time a test sets, so that nothing waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class FakeTimer:
    """A timer of `FakeLoop`, with the methods of libev's that the package uses."""

    def __init__(self, loop: FakeLoop, after: float, repeat: float) -> None:
        self._loop = loop
        self._after = after
        self._repeat = repeat
        self._call: Callable[[], Any] | None = None
        self.due = 0.0

    @property
    def active(self) -> bool:
        """Whether it will fire."""
        return self._call is not None

    def start(self, callback: Callable[..., Any], *args: Any) -> None:
        """Fire after the number of seconds for which it was made."""
        self._call = lambda: callback(*args)
        self.due = self._loop.now + self._after
        self._loop.timers.append(self)

    def close(self) -> None:
        """Never fire again."""
        self._call = None
        if self in self._loop.timers:
            self._loop.timers.remove(self)

    def fire(self) -> None:
        """Call back; a timer that repeats and is late is due again at once, as libev has it."""
        call = self._call
        assert call is not None
        if self._repeat:
            self.due = max(self.due + self._repeat, self._loop.now)
        else:
            self.close()
        call()


class FakeLoop:
    """A loop with timers, callbacks, and a clock. ``monotonic`` replaces the function of that name in a module."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[FakeTimer] = []

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def timer(self, after: float, repeat: float = 0.0) -> FakeTimer:
        """A timer that has not been started."""
        return FakeTimer(self, after, repeat)

    def advance(self, seconds: float) -> None:
        """Let time pass, and fire each timer when it is due."""
        end = self.now + seconds
        while (timer := min(self.timers, key=lambda timer: timer.due, default=None)) and timer.due <= end:
            self.now = max(self.now, timer.due)
            timer.fire()
        self.now = end

    def block(self, seconds: float) -> None:
        """Let time pass without firing, as if a listener computed; then fire once what is due."""
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.due <= self.now]:
            if timer.active:
                timer.fire()
