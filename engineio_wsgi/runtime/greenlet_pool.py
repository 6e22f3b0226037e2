"""The pool of greenlets that run the application's listeners: a session takes one for a turn and gives it back afterwards.

A session with nothing to do holds no greenlet (a parked one costs 6 KB and more). A session whose listener blocks keeps its
greenlet until the listener returns, and other sessions use other greenlets. Knows nothing of sessions.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Protocol

import gevent
from gevent.hub import Hub
from greenlet import GreenletExit, greenlet

from engineio_wsgi.runtime.blame import LONG, Blame, describe_function
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import IoLoop

__all__ = ["GreenletPool"]

logger = logging.getLogger("engine")

Task = Callable[[], object]

#: idle greenlets that the pool keeps; the others of a burst end
MAX_IDLE = 128
#: seconds after which the event loop runs although there is more to do: other connections may be readable, and timers due
SLICE = 0.01


class Readable(Protocol):
    """A connection that has something to read."""

    def read(self, now: float) -> None:
        """Read once, and run the listeners. ``now`` is the time of the monotonic clock, nearly."""
        ...

    def flush(self) -> None:
        """The listeners have returned or wait for something: write what they sent."""
        ...

    def describe(self) -> str:
        """The names of the listeners, for the log."""
        ...


class GreenletPool:
    """A stack of idle greenlets of one hub. The greenlet that was used last is used next: its memory is warm."""

    __slots__ = ("_hub", "_idle", "_later", "_left", "_loop", "_read_by", "_readable", "_slice_ends", "_task", "_tasks", "blame")

    def __init__(self, hub: Hub | None = None) -> None:
        self._hub: Hub = hub or gevent.get_hub()
        self._loop: IoLoop = self._hub.loop
        #: begins the next slice, once the loop has looked at connections and timers: before that, it runs up to 50 callbacks
        self._later = self._loop.timer(0.0)
        self._idle: list[greenlet] = []
        self._readable: deque[Readable] = deque()
        self._read_by: Readable | None = None
        self._tasks: deque[Task] = deque()
        self._task: Task | None = None
        self._left = 0
        self._slice_ends = 0.0
        #: which function has blocked the event loop
        self.blame = Blame()

    def run(self, task: Task) -> None:
        """Run ``task()`` in a greenlet of the pool until it ends or blocks. Only the hub may call this."""
        idle = self._idle
        member = idle.pop() if idle else self._start()
        member.switch(task)

    @property
    def is_here(self) -> bool:
        """Whether its hub is the calling thread's."""
        return self._hub is gevent.get_hub()

    def spawn(self, function: Callable[..., object], *args: object) -> None:
        """Have ``function(*args)`` run in a greenlet of the pool, soon, with context variables of its own.

        A server may have its connections served so: a new greenlet takes memory of the kernel and gives it back, which is a sixth
        of what a WebSocket handshake costs.
        """
        self.submit(partial(Context().run, function, *args))

    def submit(self, task: Task) -> None:
        """Have ``task()`` run in a greenlet of the pool, soon. Any greenlet of the hub's thread may call this.

        All tasks that are submitted in one turn of the loop run in the next turn, before anything else is read. (gevent
        spreads callbacks over several turns. With 500 clients that post and then poll, most polls then waited although their
        answer was nearly ready, which cost nearly twice as much.)
        """
        if not self._tasks and not self._left:
            self._loop.run_callback(self._run_all)
        self._tasks.append(task)

    def _run_all(self) -> None:
        """In the hub: run the tasks in one greenlet, and in another one whenever a task has blocked the last."""
        self._left = len(self._tasks)  # tasks that are submitted meanwhile run in the next turn
        began = monotonic()
        self._slice_ends = began + SLICE
        while self._left:
            self.run(self._run_queue)
            if monotonic() - began > LONG:
                # it was the last task: after each that takes longer than a slice, the loop runs
                self.blame.note(began, monotonic(), _describe(self._task))
        self._task = None
        if self._tasks:
            self._loop.run_callback(self._run_all)

    def _run_queue(self) -> None:
        """In a greenlet of the pool. After a task that blocked, nothing is left: another greenlet has taken over."""
        tasks = self._tasks
        while self._left:
            self._left -= 1
            self._task = task = tasks.popleft()
            task()
            if self._left and monotonic() > self._slice_ends:
                self._left = 0

    def after_fork(self) -> None:
        """In a forked child: drop the tasks and reads that are queued, because they belong to the parent."""
        self._later.close()
        self._readable.clear()
        self._tasks.clear()
        self._left = 0

    def attend(self, connection: Readable) -> None:
        """``connection`` has become readable. Only the hub may call this.

        One greenlet reads all connections that become readable in one turn of the loop, one after the other, as long as no
        listener blocks. With a switch for each of them, an echo over 50 connections cost 7 % more.
        """
        if not self._readable:
            self._loop.run_callback(self._read_all)
        self._readable.append(connection)

    def _read_all(self) -> None:
        """In the hub: read in one greenlet, and in another one whenever a listener has blocked the last."""
        self._slice_ends = ends = monotonic() + SLICE
        while self._readable and monotonic() < ends:
            self.run(self._read_queue)
            kept, self._read_by = self._read_by, None
            if kept is not None:
                self._note_reading(kept, monotonic())
                kept.flush()
        if self._readable:
            self._later.start(self._read_all)

    def _read_queue(self) -> None:
        """In a greenlet of the pool."""
        readable = self._readable
        # the clock is read once for each connection: when one is done, the next is read
        now = monotonic()
        while readable:
            self._read_by = connection = readable.popleft()
            connection.read(now)
            if self._read_by is not connection:
                # a listener has blocked meanwhile, and another greenlet has taken over the rest
                return
            self._read_by = None
            connection.flush()
            if (now := monotonic()) > self._slice_ends:
                self._note_reading(connection, now)
                return

    def _note_reading(self, connection: Readable, now: float) -> None:
        if now > self._slice_ends + LONG:
            self.blame.note(self._slice_ends - SLICE, now, connection.describe())

    def _start(self) -> greenlet:
        """Start another greenlet. It waits for its first task, as for all others: it would keep its arguments alive for ever."""
        member = greenlet(self._work, self._hub)
        member.switch()
        return member

    def _work(self) -> None:
        current = gevent.getcurrent()
        wait: Callable[[], Task] = greenlet.switch.__get__(self._hub)
        idle = self._idle
        task: Task | None = wait()
        while task is not None:
            self._perform(task)
            task = None
            if len(idle) >= MAX_IDLE:
                return
            idle.append(current)
            try:
                task = wait()
            except GreenletExit:
                return

    def _perform(self, task: Task) -> None:
        try:
            task()
        except GreenletExit:
            pass  # the task was killed; the greenlet goes on
        except (Exception, gevent.Timeout):
            logger.exception("a task of the engine failed")
        except BaseException as error:
            # KeyboardInterrupt, SystemExit: gevent's way is to raise them in the main greenlet
            self._hub.handle_system_error(type(error), error)


def _describe(task: Task | None) -> str:
    """The name of a task; of a session's turn, the names of its listeners; of what was spawned, nothing."""
    if isinstance(task, partial):
        return ""
    describe = getattr(getattr(task, "__self__", None), "describe", None)
    return str(describe()) if describe is not None else describe_function(task)
