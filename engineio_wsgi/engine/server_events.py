"""The events of a server: its listeners, and the calls of listeners that do not block the caller."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent

from engineio_wsgi.session.event_names import SERVER_EVENTS
from engineio_wsgi.session.events import Events, Listener

__all__ = ["ServerEvents"]

logger = logging.getLogger("engine")

#: events that need every session's write buffer to report what it writes
BUFFER_EVENTS = ("flush", "drain")


class ServerEvents(Events):
    """The listeners of one server, by event name.

    Args:
        wrap: returns what is called for a listener: the listener itself, or a `StandIn`.
        on_buffers_watched: called when a listener of ``flush`` or ``drain`` has been added or removed.
    """

    __slots__ = ("_on_buffers_watched", "_wrap", "edits_headers")

    _known_events = SERVER_EVENTS

    def __init__(self, wrap: Callable[[Listener], Listener], on_buffers_watched: Callable[[], None]) -> None:
        super().__init__()
        self._wrap = wrap
        #: whether a listener may change the headers of responses
        self.edits_headers = False
        self._on_buffers_watched = on_buffers_watched

    def stand_in(self, listener: Listener) -> Listener:
        """What is called for ``listener``."""
        return self._wrap(listener)

    def __contains__(self, event: str) -> bool:
        return event in self._listeners

    def registered(self, event: str) -> tuple[Listener, ...]:
        """What is called for the listeners of ``event``, in order."""
        return self._listeners.get(event, ())

    def announce(self, event: str, argument: object) -> None:
        """Call the listeners of ``event`` in a greenlet of their own. Does not block; failures are logged."""
        if event in self._listeners:
            gevent.spawn(self.emit_safely, event, argument)

    def emit_safely(self, event: str, argument: object) -> None:
        """Call the listeners of ``event`` now, and log the exception if one fails."""
        try:
            self.emit(event, argument)
        except Exception:
            logger.exception("a listener (%s) failed", event)

    def _set(self, event: str, listeners: tuple[Listener, ...]) -> None:
        super()._set(event, listeners)
        self.edits_headers = "initial_headers" in self or "headers" in self
        if event in BUFFER_EVENTS:
            self._on_buffers_watched()
