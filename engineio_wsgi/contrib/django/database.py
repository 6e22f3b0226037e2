"""Django's database connections in handlers: checked before each handler, closed after it. It must not know the engine.

A connection belongs to the thread, or (patched by gevent) to the greenlet that opened it. A greenlet of the engine runs the
handlers of many sessions, and a spawned one just ends, so nothing else would close the connections that a handler leaves open.
Therefore no connection is kept, whatever ``CONN_MAX_AGE`` says; to keep connections, use Django's connection pools.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["call_handler", "while_waiting"]

P = ParamSpec("P")
T = TypeVar("T")


class _Running(threading.local):
    """The number of handlers that run in this thread, or greenlet; as local as Django's connections are."""

    count = 0

    def enter(self) -> None:
        """A handler begins."""
        self.count += 1

    def leave(self) -> None:
        """A handler has ended."""
        self.count -= 1


_running = _Running()


def call_handler(handler: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a handler with connections that work, and close those that it leaves open. Returns what the handler returns.

    If handlers are nested, or run side by side in an unpatched thread, the last one that ends closes the connections.
    """
    if not _running.count:
        for connection in _outside_transactions():
            connection.close_if_unusable_or_obsolete()
    _running.enter()
    try:
        return handler(*args, **kwargs)
    finally:
        _running.leave()
        if not _running.count:
            _close_connections()


def while_waiting() -> None:
    """Close the connections of a handler that is about to wait for its client, except those in a transaction."""
    if _running.count == 1:
        _close_connections()


def _close_connections() -> None:
    for connection in _outside_transactions():
        connection.close()


def _outside_transactions() -> list[BaseDatabaseWrapper]:
    """The connections of this thread or greenlet that are not in a transaction, be it a handler's or that of a test case."""
    return [connection for connection in connections.all(initialized_only=True) if not connection.in_atomic_block]
