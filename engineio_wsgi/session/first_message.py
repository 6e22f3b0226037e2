"""Detects Socket.IO clients, by a session's first message, at an engine that has no Socket.IO on top."""

from __future__ import annotations

import logging

from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["is_connect_packet", "warn_of_socket_io"]

logger = logging.getLogger("engine")

#: the end of the path under which a Socket.IO server is usually served
SOCKET_IO = "socket.io"

_throttle = Throttle()


def is_connect_packet(data: str | bytes) -> bool:
    """Whether Socket.IO's clients connect with this message: ``0``, ``0{…}``, ``0/namespace,``."""
    return isinstance(data, str) and data[:1] == "0" and data[1:2] in ("", "{", "/")


def warn_of_socket_io(path: str) -> None:
    """Log a warning, at most once a minute: a session has ended whose only message was a Socket.IO client's.

    Args:
        path: the engine's. Under one that ends with ``socket.io``, a Socket.IO server of the application's own may be on top.
    """
    if not path.endswith(SOCKET_IO) and _throttle.passes("Socket.IO", monotonic()):
        logger.warning("the one message of a session was that with which Socket.IO clients connect: this is an Engine.IO server "
                       "at %s, the transport below Socket.IO, and such a client reports a parse error; use engine.io-client, or "
                       "serve Socket.IO on top", path)
