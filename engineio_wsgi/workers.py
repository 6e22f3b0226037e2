"""The greenlets that run the applications' listeners: taken for a turn, given back when it ends.

A session that has nothing to do holds no greenlet (a parked one costs 6 KB and more); one whose listener blocks keeps
its worker until the listener returns, and the others go on with further workers. Knows nothing of sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Hub
from greenlet import GreenletExit, greenlet

__all__ = ["Workers"]

logger = logging.getLogger("engine")

Task = Callable[[], object]

#: idle greenlets that are kept; the rest of a burst ends
MAX_IDLE = 128


class Workers:
    """A stack of idle greenlets of one hub. The one that was used last is used next: its memory is warm."""

    __slots__ = ("_hub", "_idle", "_loop")

    def __init__(self, hub: Hub | None = None) -> None:
        self._hub: Any = hub or gevent.get_hub()
        self._loop = self._hub.loop
        self._idle: list[greenlet] = []

    def run(self, task: Task) -> None:
        """Run ``task()`` in a worker until it ends or blocks. Only the hub may call this."""
        idle = self._idle
        worker = idle.pop() if idle else greenlet(self._work, self._hub)
        worker.switch(task)

    def submit(self, task: Task) -> None:
        """Have ``task()`` run in a worker, soon. Any greenlet of the hub's thread may call this."""
        self._loop.run_callback(self.run, task)

    def _work(self, task: Task) -> None:
        current = gevent.getcurrent()
        wait = greenlet.switch.__get__(self._hub)
        idle = self._idle
        while True:
            try:
                task()
            except GreenletExit:
                pass  # somebody killed what ran here; the worker itself has no reason to end
            except Exception:
                logger.exception("a task of the engine failed")
            except BaseException as error:
                # KeyboardInterrupt, SystemExit: gevent's way is to raise them in the main greenlet
                self._hub.handle_system_error(type(error), error)
            if len(idle) >= MAX_IDLE:
                return
            idle.append(current)
            try:
                task = wait()
            except GreenletExit:
                return
