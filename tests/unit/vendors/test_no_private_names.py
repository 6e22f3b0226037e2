"""Private names of other packages are used in vendors/ only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "engineio_wsgi"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.parent.name != "vendors")
#: attributes of the standard library that are public although they begin with an underscore
PUBLIC = {"_replace", "_asdict", "_fields", "_exit"}

#: by module: names of packages that are no vendors of the server, and why they are used there
EXCEPTIONS = {
    # Flask has no public way to the context behind a proxy
    "contrib/flask_context.py": {"_get_current_object"},
    # what a subclass of python-socketio's overrides, and calls: contrib/socketio/requirements.py checks it at the import
    "contrib/socketio/cluster.py": {"_handle_callback", "_handle_close_room", "_handle_disconnect", "_handle_emit",
                                    "_handle_enter_room", "_handle_leave_room"},
    "contrib/socketio/server.py": {"_binary_packet", "_handle_ack", "_handle_disconnect", "_handle_event_internal",
                                   "_trigger_event"},
    # Werkzeug's reloader has no public name; Flask-SocketIO imports it from the same place
    "contrib/socketio/flask.py": {"_reloader"},
}


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in PUBLIC


def defined() -> set[str]:
    """The private names that the package itself gives to its attributes, methods and modules."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "vendors":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
                names.add(node.attr)
    return names


def is_own(node: ast.Attribute) -> bool:
    """Whether it is set on ``self`` or ``cls``."""
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


DEFINED = defined()


def used(source: str) -> Iterator[str]:
    """The private attributes, modules and names of modules that a module uses, literals of ``getattr`` included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from [*(node.module or "").split(".")[1:], *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr", "setattr"):
            yield from [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]


def foreign(source: str) -> set[str]:
    """The private names in a module that are not the package's own."""
    return {name for name in used(source) if is_private(name)} - DEFINED


@pytest.mark.parametrize("module", MODULES)
def test_a_module_uses_no_private_name_of_another_package(module: str) -> None:
    assert foreign((PACKAGE / module).read_text()) <= EXCEPTIONS.get(module, set())


#: a name of a vendor that is the package's own as well: the walk cannot tell them apart, so they are looked for by their objects
SHARED = ("sock._sock", "socket._sock", "connection._sock", "listener._sock", "pool._semaphore", "Group._discard", "._sslobj",
          '"_sslobj"', '"_sock"')


@pytest.mark.parametrize("module", MODULES)
def test_a_module_does_not_look_into_vendors_objects(module: str) -> None:
    source = (PACKAGE / module).read_text()
    if "__slots__" in source:
        # an attribute of the module's own
        source = source.replace('"_sock"', "").replace("self._sock", "")
    assert [text for text in SHARED if text in source] == []


@pytest.mark.parametrize(("source", "found"), [
    ("sock._sslobj", {"_sslobj"}),
    ("getattr(sock, '_sslobj', None)", {"_sslobj"}),
    ("from gevent._hub_local import get_hub_if_exists", {"_hub_local"}),
    ("from redis._parsers import _RESP2Parser", {"_parsers", "_RESP2Parser"}),
    ("sock.__class__; a._replace(b=1)", set()),
])
def test_what_counts_as_a_private_name(source: str, found: set[str]) -> None:
    assert foreign(source) == found
