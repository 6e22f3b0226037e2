"""Garbage collection in processes that the package owns, as a page that they serve sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import ServerProcess

APPLICATION = '''
import gc, json
import engineio_wsgi

server = engineio_wsgi.Server()

def application(environ, start_response):
    thresholds = gc.get_threshold()
    limits = [each for each in gc.callbacks if "engineio_wsgi" in getattr(each, "__module__", "")]
    body = json.dumps({"frozen": gc.get_freeze_count(), "thresholds": thresholds, "limits": len(limits)}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

app = server.wrap(application)
'''
OURS = "engineio_wsgi.gunicorn.Worker"
#: a module has so many objects at least: the package has far more
MANY = 10_000


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that starts a server of a kind with arguments, and returns what its page says."""
    running: list[ServerProcess] = []

    def ask(kind: str, *arguments: str) -> dict[str, Any]:
        running.append(ServerProcess(tmp_path, kind, *arguments, application=APPLICATION))
        content: dict[str, Any] = running[-1].served.connect().get("/").json()
        return content

    yield ask
    for server in running:
        server.stop()


@pytest.mark.parametrize(("kind", "arguments"), [
    ("serve", ()), ("serve", ("--workers", "2")), ("serve", ("--no-patch",)), (OURS, ()), (OURS, ("--preload",)),
    ("gevent", ("-c", "python:engineio_wsgi.gunicorn")),
], ids=["alone", "workers", "unpatched", "gunicorn", "gunicorn-preload", "hooks"])  # fmt: skip
def test_the_heap_is_frozen_and_full_collections_are_limited(page: Any, kind: str, arguments: tuple[str, ...]) -> None:
    seen = page(kind, *arguments)
    assert seen["frozen"] > MANY
    assert seen["limits"] == 1
    assert seen["thresholds"][:2] == [700, 10]


def test_flags(page: Any) -> None:
    seen = page("serve", "--no-freeze", "--full-collections", "100", "--gc-threshold", "900,12,14")
    assert seen == {"frozen": 0, "thresholds": [900, 12, 14], "limits": 0}


def test_gunicorns_hook_changes_it(page: Any, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text("""
import gc
from engineio_wsgi.heap import limit_collections

def post_worker_init(worker):
    limit_collections(1)
    gc.set_threshold(5000, 20, 20)
""")
    seen = page(OURS, "-c", "settings.py")
    assert seen["frozen"] > MANY
    assert (seen["thresholds"], seen["limits"]) == ([5000, 20, 20], 0)
