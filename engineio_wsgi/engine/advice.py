"""Advice for the operator: what in the deployment keeps the engine from working well, and what to change.

Each line is written once per server, at WARNING, to the logger ``engine``. It looks at environs only.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.handoff.upgrades import can_upgrade

__all__ = ["Advice"]

logger = logging.getLogger("engine")


class Advice:
    """Logs each piece of advice once."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: set[str] = set()

    def _give(self, key: str, text: str, *details: object) -> None:
        if key not in self._given:
            self._given.add(key)
            logger.warning(text, *details)

    def check_can_upgrade(self, environ: WSGIEnvironment, transports: Collection[str]) -> bool:
        """Whether a session of a request may be offered a WebSocket. Advises if the HTTP server is what prevents it."""
        possible = can_upgrade(environ)
        if not possible and "websocket" in transports:
            self.polling_only(environ)
        return possible

    def polling_only(self, environ: WSGIEnvironment) -> None:
        """The HTTP server has no WebSockets, and its connections cannot be taken over."""
        if environ["SERVER_PROTOCOL"].startswith("HTTP/2"):
            self._give("HTTP/2", "clients speak HTTP/2 to this server (%s), which answers a connection's requests one after the "
                       "other: a waiting poll holds up the rest, and there are no WebSockets; let a proxy speak HTTP/2, and "
                       "HTTP/1.1 to this server", environ.get("SERVER_SOFTWARE"))
            return
        self._give("polling only", "connections cannot be taken over from this server (%s), so only polling is offered; for "
                   "WebSockets use gunicorn -k engineio_wsgi.gunicorn.Worker, gunicorn -k gevent or gevent.pywsgi",
                   environ.get("SERVER_SOFTWARE") or "unknown")

    def foreign_session(self, environ: WSGIEnvironment, sid: str, worker_id: str) -> None:
        """A request names a session that is not here. Advises if another worker may have the session."""
        if environ.get("wsgi.multiprocess") and not sid.startswith(worker_id):
            self._give("foreign session", "a request for another worker's session was answered with code 1: sessions live in "
                       "the process that made them. Set cluster=\"local\", which has the workers of one machine serve each "
                       "other's sessions; gunicorn -k engineio_wsgi.gunicorn.Worker does so by itself")
