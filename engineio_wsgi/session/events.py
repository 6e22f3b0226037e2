"""Listeners by event name: what `Server` and `Socket` share. Knows nothing of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar, overload

__all__ = ["Events", "Listener", "StandIn", "check_listener"]

Listener = Callable[..., object]
L = TypeVar("L", bound=Listener)


class StandIn:
    """What is called for a listener. It can be taken off, and is listed, as the listener itself."""

    __slots__ = ("listener",)

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def __call__(self, *args: object) -> object:
        """Call the listener."""
        return self.listener(*args)


class _Once(StandIn):
    """A listener that takes itself off before its first call."""

    __slots__ = ("event", "events")

    def __init__(self, events: Events, event: str, listener: Listener) -> None:
        super().__init__(listener)
        self.events = events
        self.event = event

    def __call__(self, *args: object) -> object:
        self.events.off(self.event, self)
        return self.listener(*args)


def _those_behind(listener: Listener) -> Iterator[Listener]:
    """A registered listener, and what it stands for; the application's own comes last."""
    yield listener
    while isinstance(listener, StandIn):
        listener = listener.listener
        yield listener


def check_listener(event: str, listener: object) -> None:
    """Refuse what cannot be a listener.

    Raises:
        TypeError: it is not callable.
    """
    if not callable(listener):
        raise TypeError(f"a listener of {event!r} must be callable, not {type(listener).__name__}")


class Events:
    """Named events with listeners that are called in the order in which they were added.

    Example::

        events = Events()

        @events.on("message")
        def message(data): ...
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        # tuples, replaced on every change: whoever is calling the listeners of an event is not disturbed
        self._listeners: dict[str, tuple[Listener, ...]] = {}

    @overload
    def on(self, event: str) -> Callable[[L], L]:
        """As a decorator."""

    @overload
    def on(self, event: str, listener: L) -> L:
        """With the listener."""

    def on(self, event: str, listener: L | None = None) -> L | Callable[[L], L]:
        """Call ``listener`` at each ``event``; without one, a decorator. Returns the listener."""
        if listener is None:
            return lambda decorated: self.on(event, decorated)
        check_listener(event, listener)
        self._set(event, (*self._listeners.get(event, ()), self.stand_in(listener)))
        return listener

    @overload
    def once(self, event: str) -> Callable[[L], L]:
        """As a decorator."""

    @overload
    def once(self, event: str, listener: L) -> L:
        """With the listener."""

    def once(self, event: str, listener: L | None = None) -> L | Callable[[L], L]:
        """As :meth:`on`, for the next ``event`` only."""
        if listener is None:
            return lambda decorated: self.once(event, decorated)
        self.on(event, _Once(self, event, listener))
        return listener

    def off(self, event: str | None = None, listener: Listener | None = None) -> None:
        """Remove one listener, all of an event, or (without arguments) all. Unknown ones are ignored."""
        for name in [event] if event is not None else list(self._listeners):
            kept = self._listeners.get(name, ()) if listener is not None else ()
            self._set(name, tuple(f for f in kept if all(one is not listener for one in _those_behind(f))))

    def listeners(self, event: str) -> list[Listener]:
        """The listeners of ``event``, in the order in which they are called."""
        return [list(_those_behind(f))[-1] for f in self._listeners.get(event, ())]

    def emit(self, event: str, *args: object) -> bool:
        """Call the listeners of ``event`` now, in this greenlet; returns whether there were any.

        An exception of a listener reaches the caller, and the listeners after it are not called.
        """
        listeners = self._listeners.get(event, ())
        for listener in listeners:
            listener(*args)
        return bool(listeners)

    def stand_in(self, listener: Listener) -> Listener:
        """What is called for ``listener``: itself. A subclass may answer a :class:`StandIn` that runs it in a context."""
        return listener

    def _set(self, event: str, listeners: tuple[Listener, ...]) -> None:
        if listeners:
            self._listeners[event] = listeners
        else:
            self._listeners.pop(event, None)
