"""Socket.IO on this engine: python-socketio's `Server` and Flask-SocketIO's `SocketIO`, with the engine below them replaced.

One import line of an application changes::

    from engineio_wsgi.contrib.socketio import Server      # was: from socketio import Server
    from engineio_wsgi.contrib.socketio import SocketIO    # was: from flask_socketio import SocketIO

Needs python-socketio (the extra ``[socketio]``); `SocketIO` needs Flask-SocketIO (the extra ``[flask-socketio]``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engineio_wsgi.contrib.socketio.requirements import require_socketio
from engineio_wsgi.contrib.socketio.untyped import Foreign

require_socketio()

from engineio_wsgi.contrib.socketio.cluster import ClusterManager  # noqa: E402  only if what it needs is there
from engineio_wsgi.contrib.socketio.server import Server  # noqa: E402

if TYPE_CHECKING:
    from engineio_wsgi.contrib.socketio.flask import SocketIO

__all__ = ["ClusterManager", "Server", "SocketIO"]


def __getattr__(name: str) -> Foreign:
    """`SocketIO` is imported when it is asked for: python-socketio alone does without Flask."""
    if name != "SocketIO":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engineio_wsgi.contrib.socketio.flask import SocketIO

    return SocketIO
