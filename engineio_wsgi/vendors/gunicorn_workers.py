"""What is inside gunicorn's gevent workers, and of their requests. Does not import gunicorn, which may not be installed.

Relies on: ``wsgi.input`` being a ``Body`` (``buf``, ``reader``) whose reader has an ``unreader`` with a ``buf``, and, for a
body of known size, a ``length``; ``AsyncWorker.handle``, bound to a listener with ``partial``, being what a ``StreamServer``
calls; ``Worker.notify`` and ``Worker.SIGNALS``; ``Logger.cfg``, and which settings
make it write an access log; the local variable ``servers`` of ``GeventWorker.run``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.types import WSGIApplication

from gevent.server import StreamServer
from greenlet import greenlet

if TYPE_CHECKING:
    from socket import socket as Socket

__all__ = ["GunicornSettings", "GunicornWorker", "Setting", "application_behind", "forget_signals", "is_gunicorn_input",
           "is_untouched", "read_ahead", "replace_notify", "running_servers", "writes_access_log"]


class Setting(Protocol):
    """One of gunicorn's settings."""

    default: object

    def get(self) -> object:
        """Its value."""
        ...


class GunicornSettings(Protocol):
    """What is used of gunicorn's ``Config``. Settings that older versions do not have are not here."""

    settings: Mapping[str, Setting]

    address: Iterable[object]
    forwarded_allow_ips: list[str]
    graceful_timeout: int
    keepalive: int
    limit_request_field_size: int
    limit_request_fields: int
    limit_request_line: int
    loglevel: str
    max_requests: int
    post_request: Callable[..., object]
    pre_request: Callable[..., object]
    proxy_protocol: str | bool
    secure_scheme_headers: Mapping[str, str]
    timeout: int
    workers: int


class GunicornWorker(Protocol):
    """What is used of any of gunicorn's workers."""

    SIGNALS: Iterable[int]
    alive: bool
    cfg: GunicornSettings
    notify: Callable[[], object]
    pid: int
    #: listeners, or gunicorn's objects that have one as their ``sock``
    sockets: Iterable[Socket]


class _Unreader(Protocol):
    """What the parser reads from."""

    buf: BytesIO


class _BodyReader(Protocol):
    """Reads a body; one of a body of known size has a ``length`` as well."""

    unreader: _Unreader


class _Body(Protocol):
    """gunicorn's ``wsgi.input``."""

    buf: BytesIO
    reader: _BodyReader


def is_gunicorn_input(body: object) -> bool:
    """Whether a ``wsgi.input`` is gunicorn's."""
    return hasattr(getattr(body, "reader", None), "unreader")


def read_ahead(body: _Body) -> bytes:
    """What gunicorn's parser has read from the connection after the head of the request. It stays there."""
    return body.reader.unreader.buf.getvalue()


def is_untouched(body: _Body, length: int) -> bool:
    """Whether nothing of a request's body of ``length`` bytes has been read, and the body is not in chunks."""
    left = getattr(body.reader, "length", None)
    return left is not None and not body.buf.getvalue() and left == length


def application_behind(handle: object) -> WSGIApplication | None:
    """The WSGI application that a server's handler of connections calls, if that is a worker's; else ``None``."""
    gunicorn = sys.modules.get("gunicorn.workers.base_async")
    worker = getattr(handle.func, "__self__", None) if isinstance(handle, partial) else None
    return worker.wsgi if gunicorn is not None and isinstance(worker, gunicorn.AsyncWorker) else None


def writes_access_log(log: Any) -> bool:  # gunicorn's `Logger`, or what a setting names
    """Whether a worker's logger does anything with a request that was answered. A class of the application's own may."""
    if type(log).__module__ != "gunicorn.glogging":
        return True
    names = ("accesslog", "logconfig", "logconfig_dict", "logconfig_json", "syslog")
    return any(getattr(log.cfg, name, None) for name in names)


def running_servers(main: greenlet) -> list[StreamServer]:
    """The servers of a gevent worker whose ``run`` is waiting.

    Args:
        main: the greenlet that runs it.
    """
    frame = main.gr_frame
    while frame is not None:
        servers: object = frame.f_locals.get("servers")
        if frame.f_code.co_name == "run" and isinstance(servers, list):
            return [server for server in servers if isinstance(server, StreamServer)]
        frame = frame.f_back
    return []


def replace_notify(worker: GunicornWorker, notify: Callable[[], object]) -> None:
    """Have a worker's main loop call ``notify`` in each of its turns, in the place of its own sign of life."""
    worker.notify = notify


def forget_signals(worker: GunicornWorker) -> None:
    """Give the signals that a worker handles their usual effects."""
    for number in worker.SIGNALS:
        if getattr(signal.getsignal(number), "__self__", None) is worker:
            signal.signal(number, signal.SIG_DFL)
