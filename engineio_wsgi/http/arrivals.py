"""The order in which connections are served that have become readable in one turn of the event loop.

libev calls the watchers of one turn in the reverse of the order in which the kernel reports them, so that the second of two
requests would be served first.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from gevent.hub import Hub

from engineio_wsgi.runtime.loop import Loop

__all__ = ["Arrivals", "arrivals_of"]


class Arrivals:
    """Resumes what waits for bytes, in the order in which the kernel has reported them.

    Args:
        loop: the event loop. Only its hub may use this object.
        is_reversed: whether the loop calls the watchers of one turn in the reverse order.
    """

    __slots__ = ("_is_reversed", "_loop", "_ready")

    def __init__(self, loop: Loop, is_reversed: bool) -> None:
        self._loop = loop
        self._is_reversed = is_reversed
        self._ready: list[Callable[[], object]] = []

    def add(self, resume: Callable[[], object]) -> None:
        """Call ``resume`` when the loop has called all watchers of this turn."""
        if not self._ready:
            self._loop.run_callback(self._resume_all)
        self._ready.append(resume)

    def _resume_all(self) -> None:
        ready, self._ready = self._ready, []
        if self._is_reversed:
            ready.reverse()
        for resume in ready:
            resume()


_by_hub: WeakKeyDictionary[Hub, Arrivals] = WeakKeyDictionary()


def arrivals_of(hub: Hub) -> Arrivals:
    """The arrivals in a hub."""
    arrivals = _by_hub.get(hub)
    if arrivals is None:
        # libuv calls them in order
        arrivals = _by_hub[hub] = Arrivals(hub.loop, "libuv" not in type(hub.loop).__module__)
    return arrivals
