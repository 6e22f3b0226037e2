"""Lines for the operator: what about the deployment keeps the engine from working as it could, and what to change.

Each is written once in a process, at WARNING on the logger ``engine``. Looks at environs only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["Advice"]

logger = logging.getLogger("engine")


class Advice:
    """What has been said, so that it is not said again."""

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: set[str] = set()

    def _say(self, what: str, text: str, *details: object) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning(text, *details)

    def polling_only(self, environ: Mapping[str, Any]) -> None:
        """The server that requests come through has no WebSockets, and its connections cannot be taken over."""
        if environ["SERVER_PROTOCOL"].startswith("HTTP/2"):
            self._say("HTTP/2", "clients speak HTTP/2 to this server (%s), which answers a connection's requests one after the "
                      "other: a waiting poll holds up the rest, and there are no WebSockets; let a proxy speak HTTP/2, and "
                      "HTTP/1.1 to this server", environ.get("SERVER_SOFTWARE"))
            return
        self._say("polling only", "connections cannot be taken over from this server (%s), so only polling is offered; for "
                  "WebSockets use gunicorn -k engineio_wsgi.gunicorn.Worker, gunicorn -k gevent or gevent.pywsgi",
                  environ.get("SERVER_SOFTWARE") or "unknown")

    def foreign_session(self, environ: Mapping[str, Any], sid: str, worker_id: str) -> None:
        """A request names a session that is not here. Says something if another worker may have it."""
        if environ.get("wsgi.multiprocess") and not sid.startswith(worker_id):
            self._say("foreign session", "a request for another worker's session was answered with code 1: sessions live in "
                      "the process that made them. Set cluster=\"local\", which has the workers of one machine serve each "
                      "other's sessions; gunicorn -k engineio_wsgi.gunicorn.Worker does so by itself")
