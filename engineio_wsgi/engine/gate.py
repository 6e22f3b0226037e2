"""The gate in front of the sessions: requests of a session that is about to move wait here, and are then routed anew.

Owns the number of requests of each session that are between the gate and their answer: a session cannot move before they have
ended. Requests over the lane do not pass it; they never wait between the lane and the transport. For the hub's thread only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from gevent.event import Event

from engineio_wsgi.http.query import parse_query
from engineio_wsgi.runtime.deadline import Deadline

__all__ = ["Gate"]


class Gate:
    """The gate of one server.

    Args:
        sessions: the server's, by id.
    """

    def __init__(self, sessions: Container[str]) -> None:
        self._sessions = sessions
        self._successor: WSGIApplication | None = None
        self._inside: Counter[str] = Counter()
        #: of the sessions whose requests wait
        self._closed: dict[str, Event] = {}

    def wait(self, environ: WSGIEnvironment) -> None:
        """Block as long as the gate is closed for the session of a request."""
        if self._closed:
            self.wait_for(_sid_of(environ))

    def wait_for(self, sid: str, timeout: float | None = None) -> None:
        """Block as long as the gate is closed for a session, for ``timeout`` seconds at most."""
        deadline = Deadline(timeout)
        while (opened := self._closed.get(sid)) is not None and deadline.wait(opened):
            pass

    def pass_through(self, application: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse,
                     ) -> Iterable[bytes]:
        """Call ``application`` with a request that need not wait, and count it meanwhile."""
        sid = _sid_of(environ)
        if self._successor is not None and sid not in self._sessions:
            return self._successor(environ, start_response)
        self._inside[sid] += 1
        try:
            return application(environ, start_response)
        finally:
            self._inside[sid] -= 1
            if not self._inside[sid]:
                del self._inside[sid]

    def follow(self, successor: WSGIApplication) -> None:
        """Let ``successor`` answer the requests of all sessions that are not here. For servers without a cluster."""
        self._successor = successor

    def close(self, sid: str) -> None:
        """Let requests of a session wait from now on. Those that are inside go on."""
        self._closed[sid] = Event()

    def open(self, sid: str) -> None:
        """Let the requests go on. Harmless if repeated."""
        opened = self._closed.pop(sid, None)
        if opened is not None:
            opened.set()

    def is_empty(self, sid: str) -> bool:
        """Whether no request of a session is inside."""
        return sid not in self._inside


def _sid_of(environ: WSGIEnvironment) -> str:
    """The session id of a request; empty without one."""
    query = environ.get("QUERY_STRING", "")
    return parse_query(query).get("sid", "") if "sid=" in query else ""
