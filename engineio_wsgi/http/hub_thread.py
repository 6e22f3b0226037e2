"""Calls from the threads of a server without gevent into the hub in which the engine runs.

Owns the thread of that hub. The thread of a request waits, and reads the request's body, which would block the hub. Knows nothing
of the requests.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import gevent
from gevent import monkey
from greenlet import getcurrent

from engineio_wsgi.http.body import copy_body
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.runtime.loop import IoLoop
from engineio_wsgi.vendors.gevent_sockets import has_hub

if TYPE_CHECKING:
    from _thread import LockType as Lock
    from wsgiref.types import WSGIApplication, WSGIEnvironment

__all__ = ["call_in_hub", "has_hub", "in_plain_thread", "start_hub", "wait_for_hub"]

_allocate_lock: Callable[[], Lock] = monkey.get_original("_thread", "allocate_lock")
_start_new_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")

T = TypeVar("T")

#: seconds; a hub that waits for nothing would end
FOREVER = 3600.0


def in_plain_thread() -> bool:
    """Whether the caller is not a greenlet of gevent. A hub of its thread would run only while the caller waits."""
    return getcurrent().parent is None


def start_hub(enter: Callable[[], object]) -> None:
    """Start a thread with a hub that runs as long as the process, and call ``enter()`` in it. Blocks until it has returned."""
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


def call_in_hub(loop: IoLoop, application: WSGIApplication, environ: WSGIEnvironment, limit: int) -> Response:
    """Call a WSGI application in a greenlet of another thread's hub. Blocks the calling thread until it has answered.

    Args:
        loop: the hub's.
        limit: bytes of a request's body, beyond which the application refuses it; no more is read.

    Raises:
        Exception: what the application raised.
    """
    length, body = copy_body(environ, limit)
    copy = {**environ, "wsgi.input": io.BytesIO(body)}
    if length:
        copy["CONTENT_LENGTH"] = length
    return wait_for_hub(loop, lambda: call(application, copy))


def wait_for_hub(loop: IoLoop, function: Callable[[], T]) -> T:
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
