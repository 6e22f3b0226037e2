"""The order in which connections are served that have something to read, and how much is served in one turn of the event loop.

Connections of sessions come first. Those that have not asked for a session yet, or whose last request was something else, share
a slice of each turn, so that thousands of handshakes at once do not keep the sessions waiting. WebSockets are not served here:
the greenlet pool reads them, in the same turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

from gevent.hub import Hub

from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import IoLoop

__all__ = ["Arrivals", "arrivals_of"]

#: seconds of a turn for connections that are no session's, and how many of them it is for at most. A handshake takes 0.1 to
#: 0.3 ms; what has begun is completed
SLICE, SLICE_SIZE = 0.002, 16
#: connections that may wait for a slice before a server leaves others with the kernel
MAX_WAITING = SLICE_SIZE


class Arrivals:
    """Resumes what waits for bytes: sessions' connections first, all others in the order in which they have come.

    libev calls the watchers of one turn in the reverse of the order in which the kernel reports them, so that the second of two
    requests would be served first.

    Args:
        loop: the event loop. Only its hub may use this object.
        is_reversed: whether the loop calls the watchers of one turn in the reverse order.
    """

    __slots__ = ("_has_had_slice", "_is_reversed", "_is_scheduled", "_later", "_loop", "_new", "_others", "_sessions", "_waiting")

    def __init__(self, loop: IoLoop, is_reversed: bool) -> None:
        self._loop = loop
        self._is_reversed = is_reversed
        self._is_scheduled = False
        #: whether the next slice has to wait until the loop has looked at connections and timers
        self._has_had_slice = False
        #: begins the next slice, once the loop has looked at connections and timers
        self._later = loop.timer(0.0)
        #: what has become readable in this turn
        self._sessions: list[Callable[[], object]] = []
        self._others: list[Callable[[], object]] = []
        #: what has been accepted in this turn
        self._new: list[Callable[[], object]] = []
        #: what is served in slices
        self._waiting: deque[Callable[[], object]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether so many connections wait for a slice that a server should accept no more for now."""
        return len(self._waiting) + len(self._new) >= MAX_WAITING

    def add_session(self, resume: Callable[[], object]) -> None:
        """Call ``resume`` when the loop has called all watchers of this turn."""
        self._sessions.append(resume)
        self._schedule()

    def add_other(self, resume: Callable[[], object]) -> None:
        """The same after all sessions, in this turn or a later one, when others have been resumed that came before."""
        self._others.append(resume)
        self._schedule()

    def add_new(self, resume: Callable[[], object]) -> None:
        """The same for a connection that has just been accepted, after all that became readable in this turn."""
        self._new.append(resume)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.run_callback(self._resume_all)

    def _resume_all(self) -> None:
        self._is_scheduled = False
        self._resume_sessions()
        others, self._others = self._others, []
        if self._is_reversed:
            others.reverse()
        waiting = self._waiting
        waiting.extend(others)
        waiting.extend(self._new)
        self._new.clear()
        if waiting and not self._has_had_slice:
            self._resume_slice(waiting)

    def _resume_sessions(self) -> None:
        ready, self._sessions = self._sessions, []
        if self._is_reversed:
            ready.reverse()
        for resume in ready:
            resume()

    def _resume_slice(self, waiting: deque[Callable[[], object]]) -> None:
        ends = monotonic() + SLICE
        for _ in range(min(len(waiting), SLICE_SIZE)):
            waiting.popleft()()
            if monotonic() >= ends:
                break
        if waiting:
            # not a callback of the loop: it runs up to 50 of them before it looks at connections
            self._has_had_slice = True
            self._later.start(self._on_next_turn)

    def _on_next_turn(self) -> None:
        self._has_had_slice = False
        self._schedule()


_by_hub: WeakKeyDictionary[Hub, Arrivals] = WeakKeyDictionary()


def arrivals_of(hub: Hub) -> Arrivals:
    """The arrivals in a hub."""
    arrivals = _by_hub.get(hub)
    if arrivals is None:
        # libuv calls them in order
        arrivals = _by_hub[hub] = Arrivals(hub.loop, "libuv" not in type(hub.loop).__module__)
    return arrivals
