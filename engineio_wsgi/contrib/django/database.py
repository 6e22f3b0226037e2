"""Django's database connections round the handlers: fresh before each, closed after it. Knows nothing of the engine.

A connection belongs to the thread, or (patched by gevent) to the greenlet that opened it. A greenlet of the engine's runs
handlers of one session after the other, and one that a handler has spawned just ends: what a handler leaves open, nobody else
would close. So nothing is kept, whatever ``CONN_MAX_AGE`` says; Django's connection pools are for those who need that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connections

__all__ = ["call_handler", "while_waiting"]


class _Running(threading.local):
    """How many handlers run where this thread's, or greenlet's, connections are: as local as Django's own are."""

    count = 0


_running = _Running()


def call_handler(handler: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a handler with connections that work, and close those that it leaves; returns what it returns.

    In a handler that runs inside of another, or beside it in an unpatched thread, the outermost or last one closes them.
    """
    if not _running.count:
        for connection in _outside_transactions():
            connection.close_if_unusable_or_obsolete()
    _running.count += 1
    try:
        return handler(*args, **kwargs)
    finally:
        _running.count -= 1
        if not _running.count:
            _close_connections()


def while_waiting() -> None:
    """A handler is about to wait for its client, who may be silent for hours: it keeps a connection in a transaction only."""
    if _running.count == 1:
        _close_connections()


def _close_connections() -> None:
    for connection in _outside_transactions():
        connection.close()


def _outside_transactions() -> list[Any]:
    """The connections of this thread or greenlet, but for those in a transaction: a handler's own, or a test's round it all."""
    return [connection for connection in connections.all(initialized_only=True) if not connection.in_atomic_block]
