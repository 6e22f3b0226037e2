"""An object changes its own attributes only: no module assigns an attribute of a class of another module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "engineio_wsgi"

#: attributes of other packages' objects, which they document as to be set: Flask's, Django's, werkzeug's and gevent's
FOREIGN = {
    "contrib/django/handshake.py": {"csrf_exempt", "resolver_match"},
    "contrib/flask.py": {"wsgi_app"},
    "contrib/socketio/flask.py": {"debug", "wsgi_app"},
    "server.py": {"application", "handler_class", "wrap_socket_and_handle"},
}
#: changes attributes of other packages' objects that they do not document
VENDORS = "vendors/"


def own_attributes(tree: ast.Module) -> set[str]:
    """The attributes of the classes of a module: assigned to ``self`` or ``cls``, or declared in a class."""
    own: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            own.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            declared = [line.target for line in node.body if isinstance(line, ast.AnnAssign)]
            declared += [target for line in node.body if isinstance(line, ast.Assign) for target in line.targets]
            own.update(target.id for target in declared if isinstance(target, ast.Name))
    return own


def is_self(node: ast.expr) -> bool:
    """Whether an expression is the object, or the class, whose method it is in."""
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def assigned(tree: ast.Module) -> Iterator[str]:
    """The attributes of other objects that a module assigns or deletes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)) and not is_self(node.value):
            yield node.attr


def test_no_module_changes_objects_of_another_one() -> None:
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name, tree = path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())
        strangers = set(assigned(tree)) - own_attributes(tree)
        if strangers and not name.startswith(VENDORS):
            found[name] = strangers
    assert found == FOREIGN
