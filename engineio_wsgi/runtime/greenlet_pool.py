"""The greenlets that run the applications' listeners: taken for a turn, given back when it ends.

A session that has nothing to do holds no greenlet (a parked one costs 6 KB and more); one whose listener blocks keeps
its worker until the listener returns, and the others go on with further workers. Knows nothing of sessions.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent.hub import Hub
from greenlet import GreenletExit, greenlet

from engineio_wsgi.clock import monotonic

__all__ = ["Workers"]

logger = logging.getLogger("engine")

Task = Callable[[], object]

#: idle greenlets that are kept; the rest of a burst ends
MAX_IDLE = 128
#: seconds after which the event loop gets a turn although there is more to do: others may have become readable, and timers due
SLICE = 0.01


class Readable(Protocol):
    """A connection that has something to read."""

    def read(self) -> None:
        """Read once, and run the listeners."""
        ...

    def uncork(self) -> None:
        """The listeners have ended, or wait for something: write out what they sent."""
        ...


class Workers:
    """A stack of idle greenlets of one hub. The one that was used last is used next: its memory is warm."""

    __slots__ = ("_hub", "_idle", "_left", "_loop", "_read_by", "_readable", "_slice_ends", "_tasks")

    def __init__(self, hub: Hub | None = None) -> None:
        self._hub: Any = hub or gevent.get_hub()
        self._loop = self._hub.loop
        self._idle: list[greenlet] = []
        self._readable: deque[Readable] = deque()
        self._read_by: Readable | None = None
        self._tasks: deque[Task] = deque()
        self._left = 0
        self._slice_ends = 0.0

    def run(self, task: Task) -> None:
        """Run ``task()`` in a worker until it ends or blocks. Only the hub may call this."""
        idle = self._idle
        worker = idle.pop() if idle else self._hire()
        worker.switch(task)

    def submit(self, task: Task) -> None:
        """Have ``task()`` run in a worker, soon. Any greenlet of the hub's thread may call this.

        All that are submitted in one turn of the loop run in the next, before anything else is read. (gevent spreads
        callbacks over several turns: of 500 clients that post and then poll, most had to wait for what was ready but for
        that, at nearly twice the cost.)
        """
        if not self._tasks and not self._left:
            self._loop.run_callback(self._run_all)
        self._tasks.append(task)

    def _run_all(self) -> None:
        """In the hub: one worker, and a further one for the rest whenever a task has kept the last."""
        self._left = len(self._tasks)  # what is submitted meanwhile has its turn later
        self._slice_ends = monotonic() + SLICE
        while self._left:
            self.run(self._run_queue)
        if self._tasks:
            self._loop.run_callback(self._run_all)

    def _run_queue(self) -> None:
        """In a worker. When it goes on after a task that blocked, nothing is left: another has taken over."""
        tasks = self._tasks
        while self._left:
            self._left -= 1
            tasks.popleft()()
            if self._left and monotonic() > self._slice_ends:
                self._left = 0

    def forsake(self) -> None:
        """In a forked child: what waits here is the parent's to do."""
        self._readable.clear()
        self._tasks.clear()
        self._left = 0

    def attend(self, connection: Readable) -> None:
        """``connection`` has become readable. Only the hub may call this.

        All that become readable in one turn of the loop are read by one worker, one after the other, as long as no
        listener blocks: a switch for each of them made an echo over 50 connections 7 % dearer.
        """
        if not self._readable:
            self._loop.run_callback(self._read_all)
        self._readable.append(connection)

    def _read_all(self) -> None:
        """In the hub: one worker, and a further one for the rest whenever the last has been kept by a listener."""
        self._slice_ends = ends = monotonic() + SLICE
        while self._readable and monotonic() < ends:
            self.run(self._read_queue)
            kept, self._read_by = self._read_by, None
            if kept is not None:
                kept.uncork()
        if self._readable:
            self._loop.run_callback(self._read_all)

    def _read_queue(self) -> None:
        """In a worker."""
        readable = self._readable
        while readable:
            self._read_by = connection = readable.popleft()
            connection.read()
            if self._read_by is not connection:
                # a listener has blocked meanwhile, and another worker has taken over the rest
                return
            self._read_by = None
            connection.uncork()
            if monotonic() > self._slice_ends:
                return

    def _hire(self) -> greenlet:
        worker = greenlet(self._work, self._hub)
        # it gets its first task like all others: what a greenlet is started with, it would hold on to for life
        worker.switch()
        return worker

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
            pass  # somebody killed what ran here; the worker itself has no reason to end
        except (Exception, gevent.Timeout):
            logger.exception("a task of the engine failed")
        except BaseException as error:
            # KeyboardInterrupt, SystemExit: gevent's way is to raise them in the main greenlet
            self._hub.handle_system_error(type(error), error)
