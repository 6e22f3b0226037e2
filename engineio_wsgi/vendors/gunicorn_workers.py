"""What is inside gunicorn's gevent workers, and of their requests. Does not import gunicorn, which may not be installed.

Relies on: ``wsgi.input`` being a ``Body`` (``buf``, ``reader``) whose reader has an ``unreader`` with a ``buf``, and, for a
body of known size, a ``length``; ``AsyncWorker.handle``, bound to a listener with ``partial``, being what a ``StreamServer``
calls; ``Worker.notify`` and ``Worker.SIGNALS``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["application_behind", "forget_signals", "is_gunicorn_input", "is_untouched", "read_ahead", "replace_notify"]


def is_gunicorn_input(body: Any) -> bool:
    """Whether a ``wsgi.input`` is gunicorn's."""
    return hasattr(getattr(body, "reader", None), "unreader")


def read_ahead(body: Any) -> bytes:
    """What gunicorn's parser has read from the connection after the head of the request. It stays there."""
    data: bytes = body.reader.unreader.buf.getvalue()
    return data


def is_untouched(body: Any, length: int) -> bool:
    """Whether nothing of a request's body of ``length`` bytes has been read, and the body is not in chunks."""
    left = getattr(body.reader, "length", None)
    return left is not None and not body.buf.getvalue() and left == length


def application_behind(handle: Any) -> Any:
    """The WSGI application that a server's handler of connections calls, if that is a worker's; else ``None``."""
    gunicorn = sys.modules.get("gunicorn.workers.base_async")
    worker = getattr(handle.func, "__self__", None) if isinstance(handle, partial) else None
    return worker.wsgi if gunicorn is not None and isinstance(worker, gunicorn.AsyncWorker) else None


def replace_notify(worker: Any, notify: Callable[[], object]) -> None:
    """Have a worker's main loop call ``notify`` in each of its turns, in the place of its own sign of life."""
    worker.notify = notify


def forget_signals(worker: Any) -> None:
    """Give the signals that a worker handles their usual effects."""
    for number in worker.SIGNALS:
        if getattr(signal.getsignal(number), "__self__", None) is worker:
            signal.signal(number, signal.SIG_DFL)
