"""Flask's request context of an event: what the handshake's request was found to be is not found out again for each event.

Owns `EventApp`, which stands for the Flask application in the environ of a session. Knows nothing of packets.
"""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

import flask
from flask.ctx import AppContext, RequestContext

from engineio_wsgi.contrib.socketio.untyped import Value

__all__ = ["EventApp"]

#: key of an environ: the session that Flask-SocketIO keeps for a client, after its first event
SAVED_SESSION = "saved_session"
#: whether the two contexts are different classes, as in Flask before 3.2; where they are one, each event gets a new context
CAN_REUSE = not issubclass(RequestContext, AppContext)


class _EventContext(RequestContext):
    """The context of one event. The URL of the handshake has been matched."""

    def match_request(self) -> None:
        """Nothing: the request is a copy of one that was matched."""


class EventApp:
    """A Flask application, as Flask-SocketIO's event handlers see it; its contexts are those of one session.

    Args:
        app: the application.
    """

    def __init__(self, app: flask.Flask) -> None:
        self._app = app
        #: a context that was never entered; ``None`` before the second event
        self._first: _EventContext | None = None

    def __getattr__(self, name: str) -> Value:  # of the application, whatever it is
        return getattr(self._app, name)

    def request_context(self, environ: WSGIEnvironment) -> RequestContext:
        """The context of the handshake's request. Flask-SocketIO enters it for one event."""
        if not CAN_REUSE or SAVED_SESSION not in environ:
            return self._app.request_context(environ)
        if self._first is None:
            self._first = self._match(environ)
        return _copy(self._first)

    def _match(self, environ: WSGIEnvironment) -> _EventContext:
        # the saved session is one object, as long as the client is connected
        context = _EventContext(self._app, environ, session=environ[SAVED_SESSION])
        if context.url_adapter is not None:
            RequestContext.match_request(context)
        return context


def _copy(first: _EventContext) -> _EventContext:
    """A context with a request of its own, whose attributes event handlers may set, and nothing that another one has noted."""
    context = _EventContext.__new__(_EventContext)
    request = object.__new__(type(first.request))
    vars(request).update(vars(first.request))
    vars(context).update({name: [] if type(value) is list else value for name, value in vars(first).items()}, request=request)
    return context
