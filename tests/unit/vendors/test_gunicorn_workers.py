"""The insides of gunicorn's workers and requests that this package relies on."""

from __future__ import annotations

import inspect
import io
import signal
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from gevent import socket
from gevent.server import StreamServer
from gunicorn import sock as gunicorn_sock
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import base_environ, create
from gunicorn.workers.base import Worker
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventPyWSGIWorker, GeventWorker

from engineio_wsgi.vendors import gunicorn_workers as vendors

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"


@pytest.fixture
def environ_of() -> Iterator[Callable[[bytes], dict[str, Any]]]:
    """A factory of the environ that gunicorn makes of a request, and of the bytes that have been read after it."""
    near, far = socket.socketpair()

    def make(data: bytes) -> dict[str, Any]:
        far.sendall(data)
        request = next(RequestParser(Config(), near, ("192.0.2.1", 5021)))
        _, environ = create(request, near, ("192.0.2.1", 5021), ("127.0.0.1", 8000), Config())
        return dict(environ)

    yield make
    near.close()
    far.close()


EnvironOf = Callable[[bytes], dict[str, Any]]


def test_the_environ_has_the_socket(environ_of: EnvironOf) -> None:
    environ = environ_of(POST + b"body")
    assert isinstance(environ["gunicorn.socket"], socket.socket)


def test_the_input_is_gunicorns(environ_of: EnvironOf) -> None:
    assert vendors.is_gunicorn_input(environ_of(POST + b"body")["wsgi.input"])
    assert not vendors.is_gunicorn_input(io.BytesIO())
    assert not vendors.is_gunicorn_input(None)


def test_the_parser_keeps_what_it_has_read_ahead(environ_of: EnvironOf) -> None:
    body = environ_of(POST + b"bodyGET / HTTP/1.1\r\n")["wsgi.input"]
    assert vendors.read_ahead(body) == b"bodyGET / HTTP/1.1\r\n"
    assert body.read() == b"body"
    assert vendors.read_ahead(body) == b"GET / HTTP/1.1\r\n"


def test_a_body_is_untouched_until_it_is_read(environ_of: EnvironOf) -> None:
    body = environ_of(POST + b"body")["wsgi.input"]
    assert vendors.is_untouched(body, 4)
    assert body.read(2) == b"bo"
    assert not vendors.is_untouched(body, 4)


def test_a_body_in_chunks_is_never_untouched(environ_of: EnvironOf) -> None:
    assert not vendors.is_untouched(environ_of(CHUNKED)["wsgi.input"], 0)


def test_a_workers_handler_leads_to_its_application() -> None:
    worker = SimpleNamespace(wsgi="the application")
    handle = partial(AsyncWorker.handle.__get__(worker, GeventWorker), "a listener")
    assert vendors.application_behind(handle) is None, "it is no worker"
    real = GeventWorker.__new__(GeventWorker)
    real.wsgi = "the application"
    assert vendors.application_behind(partial(real.handle, "a listener")) == "the application"
    assert vendors.application_behind(print) is None


def test_a_gevent_worker_serves_with_a_plain_server_and_its_own_handler() -> None:
    source = inspect.getsource(GeventWorker.run)
    assert "hfun = partial(self.handle, s)" in source
    assert "StreamServer(s, handle=hfun" in source
    assert GeventWorker.server_class is None
    assert GeventPyWSGIWorker.server_class is not None
    assert StreamServer(("127.0.0.1", 0), handle=print).handle is print


@pytest.mark.parametrize("number", ["ENOTCONN", "ECONNRESET"])
def test_a_gevent_worker_ends_a_connection_without_a_log_line_for_some_errors(number: str) -> None:
    assert f"errno.{number}" in inspect.getsource(AsyncWorker.handle)


def test_a_workers_main_loop_calls_what_replaces_its_notify() -> None:
    assert "self.notify()" in inspect.getsource(GeventWorker.run)
    worker = GeventWorker.__new__(GeventWorker)
    called: list[int] = []
    vendors.replace_notify(worker, lambda: called.append(1))
    worker.notify()
    assert called == [1]


def test_a_worker_says_which_signals_it_handles() -> None:
    assert signal.SIGTERM in Worker.SIGNALS
    worker = GeventWorker.__new__(GeventWorker)
    before = signal.signal(signal.SIGUSR1, worker.handle_usr1)
    try:
        vendors.forget_signals(worker)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("name", ["init_process", "load_wsgi", "handle_exit", "notify", "run"])
def test_a_worker_has_the_methods_that_ours_replaces(name: str) -> None:
    assert callable(getattr(GeventWorker, name))


def test_a_worker_has_the_attributes_that_ours_reads() -> None:
    worker = GeventWorker(0, 0, [], SimpleNamespace(), 30, Config(), None)
    worker.tmp.close()
    assert {"nr", "max_requests", "alive", "worker_connections", "sockets", "cfg", "log", "pid"} <= {*dir(worker)}


def test_gunicorn_has_what_the_protocols_name() -> None:
    config = Config()
    assert [name for name in vendors.GunicornSettings.__annotations__ if not hasattr(config, name)] == []
    assert all(hasattr(setting, "default") and callable(setting.get) for setting in config.settings.values())
    worker = GeventWorker(0, 0, [], SimpleNamespace(), 30, config, None)
    worker.tmp.close()
    assert [name for name in vendors.GunicornWorker.__annotations__ if not hasattr(worker, name)] == []


def test_the_helpers_of_a_workers_server() -> None:
    assert "SERVER_SOFTWARE" in base_environ(Config())
    assert list(inspect.signature(gunicorn_sock.ssl_context).parameters) == ["conf"]
