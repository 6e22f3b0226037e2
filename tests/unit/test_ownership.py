"""An object changes its own attributes only: others call its methods."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "engineio_wsgi"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

#: what is set from outside, by module, and why
EXCEPTIONS = {
    # objects of others, whose way of being configured this is
    "contrib/django/handshake.py": {"_let_in.csrf_exempt", "request.resolver_match"},
    "contrib/flask.py": {"app.wsgi_app"},
    "contrib/socketio/flask.py": {"app.debug", "self.sockio_mw.wsgi_app"},
    "server.py": {"http_server.application", "http_server.handler_class", "http_server.wrap_socket_and_handle"},
    # the windows and limits of a connection, of which ours is a subclass
    "vendors/aioquic_connections.py": {"first.cid", "limit.sent", "limit.value", "receiver.highest_offset", "self._local_max_data.used",
                                       "made.cid", "self._local_max_data.value", "stream.max_stream_data_local"},
    "vendors/gevent_servers.py": {"body.content_length"},
    "vendors/geventwebsocket_sockets.py": {"websocket.closed"},
    "vendors/gunicorn_workers.py": {"worker.notify"},
    "vendors/redis_connections.py": {"context.check_hostname", "context.verify_mode", "connection._sock"},
}


def assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    """The attributes that a module assigns or deletes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node


def own_attributes(tree: ast.AST) -> set[str]:
    """What the module's classes have: one of its classes may set it on another instance."""
    names = {node.attr for node in assigned(tree) if is_own(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            declared = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
            names |= {target.id for target in declared if isinstance(target, ast.Name)}
    return names


def is_own(node: ast.Attribute) -> bool:
    """Whether it is set on ``self`` or ``cls``."""
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def set_from_outside(source: str) -> set[str]:
    """What a module sets on objects of other modules."""
    tree = ast.parse(source)
    own = own_attributes(tree)
    return {ast.unparse(node) for node in assigned(tree) if not is_own(node) and node.attr not in own}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_sets_attributes_of_its_own_objects_only(module: str) -> None:
    assert set_from_outside((PACKAGE / module).read_text()) <= EXCEPTIONS.get(module, set())


def test_the_exceptions_are_of_modules_that_exist() -> None:
    assert EXCEPTIONS.keys() <= set(MODULES)


@pytest.mark.parametrize(("source", "found"), [
    ("session.outbox = []", {"session.outbox"}),
    ("session.size += 1", {"session.size"}),
    ("a, session.transport = b, c", {"session.transport"}),
    ("del session.timer", {"session.timer"}),
    ("for session.now in x: pass", {"session.now"}),
    ("class A:\n def f(self, other):\n  self.x = other.x = 1", set()),
    ("class A:\n x: int\ndef f(a): a.x = 1", set()),
    ("class A:\n def f(self): self.session.x = 1", {"self.session.x"}),
    ("x = session.x", set()),
])
def test_what_counts_as_setting(source: str, found: set[str]) -> None:
    assert set_from_outside(source) == found
