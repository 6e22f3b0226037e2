"""The way from the threads of a server that knows nothing of gevent to the hub that the engine lives in.

Owns the thread of that hub, where there would be none. A request's own thread waits, and reads the body: that is what
must not hold up the hub. Knows nothing of what is asked or answered.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import gevent
from gevent import monkey
from greenlet import getcurrent

from engineio_wsgi.http.body import copy_body
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.vendors.gevent_sockets import has_hub

__all__ = ["call_in_hub", "has_hub", "in_plain_thread", "start_hub", "wait_for_hub"]

_allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
_start_new_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")

T = TypeVar("T")

#: seconds; a hub with nothing at all to wait for would end
FOREVER = 3600.0


def in_plain_thread() -> bool:
    """Whether the caller is no greenlet of gevent's: then a hub would run only while the caller waits."""
    return getcurrent().parent is None


def start_hub(enter: Callable[[], object]) -> None:
    """Start a thread for a hub that runs as long as the process, and call ``enter()`` in it. Blocks until that has returned."""
    entered = _allocate_lock()
    entered.acquire()

    def run() -> None:
        try:
            enter()
        finally:
            entered.release()
        while True:
            gevent.sleep(FOREVER)

    _start_new_thread(run, ())
    entered.acquire()


def call_in_hub(loop: Any, application: Callable[..., Iterable[bytes]], environ: dict[str, Any], limit: int) -> Response:
    """Call a WSGI application in a greenlet of another thread's hub. Blocks the calling thread until it has answered.

    Args:
        loop: of the hub.
        limit: bytes of a request's body, beyond which the application will refuse it; no more is read.

    Raises:
        Exception: what the application raised.
    """
    length, body = copy_body(environ, limit)
    copy = {**environ, "wsgi.input": io.BytesIO(body)}
    if length:
        copy["CONTENT_LENGTH"] = length
    return wait_for_hub(loop, lambda: call(application, copy))


def wait_for_hub(loop: Any, function: Callable[[], T]) -> T:
    """Call ``function`` in a greenlet of another thread's hub. Blocks the calling thread until it has returned.

    Raises:
        Exception: what ``function`` raised.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []
    done = _allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)
        finally:
            done.release()

    loop.run_callback_threadsafe(gevent.spawn, run)
    done.acquire()
    if failure:
        raise failure[0]
    return outcome[0]
