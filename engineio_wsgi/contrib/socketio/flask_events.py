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
        #: makes contexts from the second event on
        self._contexts: _EventContexts | None = None

    def __getattr__(self, name: str) -> Value:  # of the application, whatever it is
        return getattr(self._app, name)

    def request_context(self, environ: WSGIEnvironment) -> RequestContext:
        """The context of the handshake's request. Flask-SocketIO enters it for one event."""
        return self.event_context(environ) or self._app.request_context(environ)

    def event_context(self, environ: WSGIEnvironment, **attributes: Value) -> RequestContext | None:
        """The context of an event, with the session that is kept for the client; ``None`` before there is one.

        Args:
            environ: of the client's session.
            attributes: of the request.
        """
        if not CAN_REUSE or SAVED_SESSION not in environ:
            return None
        if self._contexts is None:
            self._contexts = _EventContexts(self._app, environ)
        return self._contexts.make(attributes)


class _EventContexts:
    """Makes the contexts of one session's events: copies of one that is never entered.

    Args:
        app: the application.
        environ: of the session.
    """

    def __init__(self, app: flask.Flask, environ: WSGIEnvironment) -> None:
        # the saved session is one object, as long as the client is connected
        first = _EventContext(app, environ, session=environ[SAVED_SESSION])
        if first.url_adapter is not None:
            RequestContext.match_request(first)
        self._request_class = type(first.request)
        self._request = vars(first.request)
        self._shared = {name: value for name, value in vars(first).items() if type(value) is not list}
        #: what a context notes for itself
        self._lists = [name for name in vars(first) if name not in self._shared]

    def make(self, attributes: dict[str, Value]) -> RequestContext:
        """A context with a request of its own, which event handlers may change, and nothing that another one has noted."""
        request = object.__new__(self._request_class)
        request.__dict__.update(self._request, **attributes)
        context = object.__new__(_EventContext)
        context.__dict__.update(self._shared, request=request)
        for name in self._lists:
            context.__dict__[name] = []
        return context
