"""This process as a worker: the first request, the router, forks, and the applications around which a server is wrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.engine.server_events import ServerEvents
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.options import Options

FOREIGN = {"QUERY_STRING": "sid=foreign", "REQUEST_METHOD": "GET", "SERVER_PORT": "80"}
OURS = {"QUERY_STRING": "sid=ours", "REQUEST_METHOD": "GET", "SERVER_PORT": "80"}


class FakeRouter:
    """Answers requests whose query has the word ``foreign``."""

    worker_id = "wxyz"

    def __init__(self) -> None:
        self.log: list[str] = []

    def route(self, environ: dict[str, Any], start_response: Any, handler: Any) -> Iterable[bytes] | None:
        """Answer a request for another worker's session."""
        return [b"router"] if "foreign" in environ["QUERY_STRING"] else None

    def after_fork(self) -> None:
        """In a forked child."""
        self.log.append("after_fork")

    def close(self, timeout: float) -> None:
        """Leave the cluster."""
        self.log.append("close")


def worker(cluster: str | None = None, join: Callable[..., Any] | None = None) -> Any:
    """A worker with an engine that answers by its name, and its registry."""
    registry = Registry("the server", ServerEvents(lambda listener: listener, lambda: None), Options.create(cluster=cluster))
    started: list[str] = []
    engine: Any = SimpleNamespace(handle_request=lambda environ, start: [b"engine"], answer=lambda environ, start: [b"answer"],
                                  webtransports=SimpleNamespace(relay_by=lambda relay: None),
                                  handle_upgrade=lambda environ, start: started.append("upgrade"))
    hooks: Any = SimpleNamespace(unwrap=lambda application: getattr(application, "inner", application),
                                 on_start=lambda: started.append("start"))
    router = FakeRouter()
    here = Worker(registry, engine, hooks, join or (lambda *_: router), lambda *of: SimpleNamespace(of=of))
    return SimpleNamespace(here=here, registry=registry, router=router, started=started)


def in_greenlet(function: Callable[..., Any], *args: Any) -> Any:
    """What ``function`` returns in a greenlet: the main one counts as a plain thread."""
    return gevent.spawn(function, *args).get(timeout=60)


def ask(here: Worker, environ: dict[str, Any]) -> list[bytes]:
    """The body of a response."""
    return list(in_greenlet(here.handle_request, dict(environ), lambda status, headers: None))


def test_the_first_request_starts_the_registry_once() -> None:
    this = worker()
    assert this.registry.hub is None
    assert [ask(this.here, OURS), ask(this.here, FOREIGN)] == [[b"engine"]] * 2
    assert (this.registry.hub, this.started, this.registry.in_cluster) == (gevent.get_hub(), ["start"], False)
    assert len(this.registry.worker_id) == 4


def test_a_request_for_another_worker_goes_to_the_router() -> None:
    this = worker("local")
    assert [ask(this.here, OURS), ask(this.here, FOREIGN)] == [[b"engine"], [b"router"]]
    assert (this.registry.worker_id, this.registry.in_cluster) == ("wxyz", True)
    assert in_greenlet(this.here.answer, dict(FOREIGN), None) == [b"router"]
    assert in_greenlet(this.here.answer, dict(OURS), None) == [b"answer"]


def test_an_accepted_websocket() -> None:
    this = worker("local")
    in_greenlet(this.here.handle_upgrade, dict(FOREIGN), object())
    in_greenlet(this.here.handle_upgrade, dict(OURS), object())
    assert this.started == ["start", "upgrade"]


def test_requests_that_come_during_the_start_have_the_same_outcome() -> None:
    def join(*_: Any) -> Any:
        gevent.sleep(0)
        raise ConfigurationError("of the test")

    this = worker("local", join)
    entering = [gevent.spawn(_error_of, this.here.enter_hub) for _ in range(3)]
    gevent.joinall(entering, timeout=60)
    assert [greenlet.value for greenlet in entering] == ["of the test"] * 3
    assert (this.registry.hub, this.started) == (None, [])


def _error_of(function: Callable[[], object]) -> str | None:
    try:
        function()
    except ConfigurationError as error:
        return str(error)
    return None


def test_the_way_to_the_other_workers() -> None:
    assert in_greenlet(worker().here.reach) is None
    this = worker("local:shop")
    assert this.here.reach().of == ("local:shop", "/engine.io")  # the main greenlet is a plain thread
    assert in_greenlet(this.here.reach) is this.router
    this.here.leave_cluster(1.0)
    assert this.router.log == ["close"]


def test_a_forked_child_is_no_worker() -> None:
    this = worker("local")
    ask(this.here, OURS)
    this.here.after_fork(served=True)
    assert (this.router.log, this.registry.hub, this.registry.forked, this.here.port) == (["after_fork"], None, True, "")
    assert in_greenlet(this.here.reach).of == ("local", "/engine.io")


def test_the_cluster_of_a_server_without_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "default_cluster", "local:gunicorn")
    joined: list[Any] = []
    this = worker(join=lambda here, group: joined.append(group) or FakeRouter())
    in_greenlet(this.here.join_cluster)
    assert joined == ["local:gunicorn"]


# -- the applications


def page(environ: Any, start: Any) -> list[bytes]:
    """An application."""
    return [b"page"]


def front(application: Any, server: Any = "the server") -> Any:
    """A middleware of a server."""
    class Front:
        def __call__(self) -> None:
            """It is compared by its identity only."""

    made: Any = Front()
    made.application, made.server = application, server
    return made


def test_whether_a_server_is_outermost() -> None:
    here = worker().here
    ours = front(page)
    here.on_wrapped(ours)
    assert here.is_outermost(ours)
    assert not here.is_outermost(page)
    assert not here.is_outermost(lambda environ, start: ours(environ, start))
    assert here.is_outermost(SimpleNamespace(inner=ours))


def test_other_servers_in_between_do_not_count() -> None:
    here, there = worker().here, worker().here
    ours = front(page)
    theirs = front(ours, "another server")
    here.on_wrapped(ours)
    there.on_wrapped(theirs)
    assert here.is_outermost(theirs)


def test_whether_there_is_one_application() -> None:
    here = worker().here
    here.on_wrapped(front(page))
    here.on_wrapped(front(page))
    assert here.has_one_application
    here.on_wrapped(front(lambda environ, start: [b"other"]))
    assert not here.has_one_application
