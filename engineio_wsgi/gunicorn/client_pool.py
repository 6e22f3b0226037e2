"""The pool that limits the clients of a gunicorn worker."""

from __future__ import annotations

import gevent

from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.vendors.gevent_servers import PlacePool

__all__ = ["ClientPool"]


class ClientPool(PlacePool):
    """The greenlets of a worker's connections. A connection that became a session's WebSocket keeps its place.

    gunicorn's ``worker_connections`` limits the number of clients. A session's WebSocket counts, although it has no greenlet.
    """

    def keep_place(self, connection: Connection) -> None:
        """Keep the place of the calling greenlet, which has given its connection away, until ``connection`` is closed."""
        greenlet = gevent.getcurrent()
        if greenlet in self:
            connection.on_closed(self.keep(greenlet))

    def take_place(self, connection: Connection) -> None:
        """Take a place for a session's WebSocket that has come from another worker, until ``connection`` is closed."""
        connection.on_closed(self.take())
