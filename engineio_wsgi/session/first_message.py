"""A look at the first message of a session: whether a Socket.IO client has come to an engine that has no Socket.IO on top."""

from __future__ import annotations

import logging

from engineio_wsgi.clock import monotonic
from engineio_wsgi.throttle import Throttle

__all__ = ["examine_first"]

logger = logging.getLogger("engine")

#: seconds for which it is not told again
PERIOD = 60.0
#: characters of a message that are shown: more of it may be a token
SHOWN = 1
#: the end of the path under which a Socket.IO server is usually served
SOCKET_IO = "socket.io"

_told = Throttle(PERIOD)


def examine_first(data: str | bytes, path: str) -> None:
    """Write one line a minute if a message is the one with which Socket.IO's clients connect (``0``, ``0{…}``, ``0/namespace,``).

    Args:
        path: the engine's. Under one that ends with ``socket.io``, a Socket.IO server of the application's own may be on top.
    """
    if not isinstance(data, str) or data[:1] != "0" or data[1:2] not in ("", "{", "/") or path.endswith(SOCKET_IO):
        return
    if _told.passes("Socket.IO", monotonic()):
        logger.warning("the first message of a session was %r, as from a Socket.IO client: this is an Engine.IO server at %s, "
                       "the transport below Socket.IO, and such a client will report a parse error; use engine.io-client, or "
                       "serve Socket.IO on top", data[:SHOWN] + ("…" if data[SHOWN:] else ""), path)
