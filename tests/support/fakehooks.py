"""The parts of a server around one module of its engine: a registry, and hooks that a test replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import gevent
from werkzeug.wrappers import Request

from engineio_wsgi.engine.hooks import Hooks
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.engine.server_events import ServerEvents
from engineio_wsgi.options.options import Options
from engineio_wsgi.session.socket import Socket

T = TypeVar("T")

ADDRESS = "192.0.2.7"
#: a request for a session over polling
ENVIRON = {
    "REQUEST_METHOD": "GET", "PATH_INFO": "/engine.io/", "QUERY_STRING": "EIO=4&transport=polling", "SERVER_NAME": "localhost",
    "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": ADDRESS, "wsgi.url_scheme": "http",
}  # fmt: skip


@contextmanager
def serving_registry(in_cluster: bool = False, **options: Any) -> Iterator[Registry]:
    """A registry that serves in this hub as the worker ``abcd``. Its sessions end with the context."""
    registry = Registry("the server", ServerEvents(lambda listener: listener, lambda: None), Options.create(**options))
    registry.start(gevent.get_hub(), "abcd", in_cluster)
    try:
        yield registry
    finally:
        registry.close_all(0)


def fake_hooks(**replaced: Any) -> Hooks:
    """Hooks that admit everybody, with the session id ``abcd1``."""
    hooks = Hooks(admit=lambda environ: "abcd1", generate_id=lambda request: "abcd1", has_own_ids=lambda: False,
                  ask_nobody=lambda: False, request_of=Request, make_socket=Socket, unwrap=lambda application: application,
                  on_start=lambda: None)
    return replace(hooks, **replaced)


def made_with_registries(kind: Callable[..., T]) -> Iterator[Callable[..., T]]:
    """The body of a fixture: a factory that calls ``kind(registry, **hooks)``. The registries' sessions end with the test."""
    with ExitStack() as stack:
        def make(*, in_cluster: bool = False, options: dict[str, Any] | None = None, **hooks: Any) -> T:
            return kind(stack.enter_context(serving_registry(in_cluster, **(options or {}))), **hooks)

        yield make
