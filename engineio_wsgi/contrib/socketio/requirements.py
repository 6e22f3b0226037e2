"""Checks that python-socketio and Flask-SocketIO are installed, and are made as this package expects.

Their hooks are not documented, so a release may change them: the import then fails with one line, and not a request later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from engineio_wsgi.contrib.socketio.untyped import Foreign

__all__ = ["require_flask_socketio", "require_socketio"]

#: what is overridden, or called although it has an underscore, by the class of python-socketio that has it
SOCKETIO_HOOKS: Mapping[str, tuple[str, ...]] = {
    "Server": ("_engineio_server_class", "_handle_ack", "_handle_connect", "_handle_disconnect", "_handle_eio_disconnect",
               "_handle_eio_message", "_handle_event", "_handle_event_internal", "_send_eio_packet", "_send_packet",
               "_trigger_event"),
    "Manager": ("emit", "get_participants", "is_connected", "sid_from_eio_sid", "trigger_callback"),
    "PubSubManager": ("_handle_callback", "_handle_close_room", "_handle_disconnect", "_handle_emit", "_handle_enter_room",
                      "_handle_leave_room", "_publish"),
}
FLASK_HOOKS: Mapping[str, tuple[str, ...]] = {"SocketIO": ("_handle_event", "init_app", "run", "test_client")}


def require_socketio() -> None:
    """Check python-socketio.

    Raises:
        ModuleNotFoundError: it is not installed.
        ImportError: it lacks a hook.
    """
    socketio = _import("socketio", "python-socketio", "socketio")
    _require("python-socketio", socketio, SOCKETIO_HOOKS)
    made_by = socketio.Server.__init__.__code__.co_names
    if "_engineio_server_class" not in made_by:
        raise _changed("python-socketio", "Server.__init__ no longer calls _engineio_server_class")


def require_flask_socketio() -> None:
    """Check Flask-SocketIO.

    Raises:
        ModuleNotFoundError: it is not installed.
        ImportError: it lacks a hook.
    """
    flask_socketio = _import("flask_socketio", "Flask-SocketIO", "flask-socketio")
    _require("Flask-SocketIO", flask_socketio, FLASK_HOOKS)
    code = flask_socketio.SocketIO.init_app.__code__
    if not {"socketio", "Server"} <= set(code.co_names) or code.co_freevars:
        raise _changed("Flask-SocketIO", "SocketIO.init_app no longer makes a socketio.Server")


def _import(module: str, project: str, extra: str) -> Foreign:
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module:
            raise
        raise ModuleNotFoundError(f"engineio_wsgi.contrib.socketio needs {project}: pip install 'engineio-wsgi[{extra}]'",
                                  name=module) from None


def _require(project: str, module: ModuleType, hooks: Mapping[str, tuple[str, ...]]) -> None:
    missing = [f"{owner}.{name}" for owner, names in hooks.items() for name in _lacking(getattr(module, owner, None), names)]
    if missing:
        raise _changed(project, f"it has no {', '.join(missing)}")


def _lacking(owner: object, names: Iterable[str]) -> list[str]:
    return [name for name in names if not hasattr(owner, name)]


def _changed(project: str, what: str) -> ImportError:
    return ImportError(f"engineio_wsgi.contrib.socketio does not know {project} {version(project)}: {what}; install a release "
                       "that this package was tested with, or a newer engineio-wsgi")
