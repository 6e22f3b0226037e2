"""Listeners by event name, for `Server`, `Socket` and sessions. Does not know what the events mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar, overload

from engineio_wsgi.options.functions import check_function
from engineio_wsgi.session.event_names import check_event

__all__ = ["Events", "HasListeners", "Listener", "StandIn", "check_listener"]

Listener = Callable[..., object]
L = TypeVar("L", bound=Listener)


class StandIn:
    """A callable that is called in place of a listener. `Events` lists and removes it as if it were the listener."""

    __slots__ = ("listener",)

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def __call__(self, *args: object) -> object:
        """Call the listener."""
        return self.listener(*args)


class _Once(StandIn):
    """A listener that removes itself before its first call."""

    __slots__ = ("event", "events")

    def __init__(self, events: Events, event: str, listener: Listener) -> None:
        super().__init__(listener)
        self.events = events
        self.event = event

    def __call__(self, *args: object) -> object:
        self.events.off(self.event, self)
        return self.listener(*args)


def _unwrapped(listener: Listener) -> Iterator[Listener]:
    """A registered listener, and the listeners that it stands in for; the application's own is the last."""
    yield listener
    while isinstance(listener, StandIn):
        listener = listener.listener
        yield listener


def check_listener(event: str, listener: object, known: frozenset[str] | None = None) -> None:
    """Check that ``listener`` can be one of ``event``; ``None`` is a listener that is not known yet.

    Args:
        known: the events that happen; ``None`` if there may be any.

    Raises:
        ConfigurationError: there is no such event, or the body of the listener would never run.
        TypeError: the listener is not callable.
    """
    if known is not None:
        check_event(event, known)
    if listener is None:
        return
    if not callable(listener):
        raise TypeError(f"a listener of {event!r} must be callable, not {type(listener).__name__}")
    check_function(f"a listener of {event!r}", listener)


class HasListeners:
    """The methods ``on`` and ``once``, which are decorators as well. A subclass says where the listeners are kept."""

    __slots__ = ()

    #: the events that happen; ``None`` if there may be any
    _known_events: ClassVar[frozenset[str] | None] = None

    def _add(self, event: str, listener: Listener, once: bool) -> None:
        """Add a listener; ``once``: for the next event only."""
        raise NotImplementedError

    @overload
    def on(self, event: str) -> Callable[[L], L]:
        """As a decorator."""

    @overload
    def on(self, event: str, listener: L) -> L:
        """With the listener."""

    def on(self, event: str, listener: L | None = None) -> L | Callable[[L], L]:
        """Call ``listener`` at each ``event``; without a listener, return a decorator. Returns the listener.

        Raises:
            ConfigurationError: there is no such event, or the body of the listener would never run.
            TypeError: the listener is not callable.
        """
        check_listener(event, listener, self._known_events)
        if listener is None:
            return lambda decorated: self.on(event, decorated)
        self._add(event, listener, once=False)
        return listener

    @overload
    def once(self, event: str) -> Callable[[L], L]:
        """As a decorator."""

    @overload
    def once(self, event: str, listener: L) -> L:
        """With the listener."""

    def once(self, event: str, listener: L | None = None) -> L | Callable[[L], L]:
        """As :meth:`on`, for the next ``event`` only."""
        check_listener(event, listener, self._known_events)
        if listener is None:
            return lambda decorated: self.once(event, decorated)
        self._add(event, listener, once=True)
        return listener


class Events(HasListeners):
    """Named events with listeners, which are called in the order in which they were added.

    Example::

        events = Events()

        @events.on("message")
        def message(data): ...
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        # tuples that are replaced by each change, so that a change does not affect a call of the listeners that is under way
        self._listeners: dict[str, tuple[Listener, ...]] = {}

    def _add(self, event: str, listener: Listener, once: bool) -> None:
        added = self.stand_in(_Once(self, event, listener) if once else listener)
        self._set(event, (*self._listeners.get(event, ()), added))

    def add(self, event: str, listener: Listener, once: bool) -> None:
        """As :meth:`on`, or :meth:`once`, for a listener that has been checked."""
        self._add(event, listener, once)

    def off(self, event: str | None = None, listener: Listener | None = None) -> None:
        """Remove one listener, all of an event, or (without arguments) all. Unknown ones are ignored."""
        for name in [event] if event is not None else list(self._listeners):
            kept = self._listeners.get(name, ()) if listener is not None else ()
            self._set(name, tuple(f for f in kept if all(one is not listener for one in _unwrapped(f))))

    def listeners(self, event: str) -> list[Listener]:
        """The listeners of ``event``, in the order in which they are called."""
        return [list(_unwrapped(f))[-1] for f in self._listeners.get(event, ())]

    def has(self, event: str) -> bool:
        """Whether there are listeners of ``event``."""
        return event in self._listeners

    def emit(self, event: str, *args: object) -> bool:
        """Call the listeners of ``event`` now, in this greenlet. Returns whether there were any.

        An exception that a listener raises is propagated, and the listeners after it are not called.

        Raises:
            ConfigurationError: there is no such event.
        """
        listeners = self._listeners.get(event, ())
        if not listeners and self._known_events is not None:
            check_event(event, self._known_events)
        for listener in listeners:
            listener(*args)
        return bool(listeners)

    def stand_in(self, listener: Listener) -> Listener:
        """Return the callable that is called for ``listener``: itself, or in subclasses a :class:`StandIn` for it."""
        return listener

    def _set(self, event: str, listeners: tuple[Listener, ...]) -> None:
        """Replace the listeners of ``event``."""
        if listeners:
            self._listeners[event] = listeners
        else:
            self._listeners.pop(event, None)
