"""What a framework's subclass of `Server` may change. `Server` documents the hooks; the engine calls them through this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from wsgiref.types import WSGIApplication, WSGIEnvironment

from werkzeug.wrappers import Request

from engineio_wsgi.session.session import Session
from engineio_wsgi.session.socket import Socket

__all__ = ["ADDED_HEADERS", "Hooks"]

#: key of an environ: a list of headers that a hook adds to the response
ADDED_HEADERS = "engineio.added_headers"


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one server."""

    #: decides about a handshake and returns the session id; may block, raises `RequestRefused` to refuse
    admit: Callable[[WSGIEnvironment], str]
    #: returns a new session id; may block
    generate_id: Callable[[Request], str]
    #: whether session ids are the registry's, which needs no request to make one
    has_own_ids: Callable[[], bool]
    #: whether no function has to be asked for an id or, but for ``allow_request``, about a handshake
    ask_nobody: Callable[[], bool]
    #: returns the request that the application sees
    request_of: Callable[[WSGIEnvironment], Request]
    #: returns what the application sees of a session, given the environ of the handshake, or what makes it
    make_socket: Callable[[Session, WSGIEnvironment | Callable[[], WSGIEnvironment]], Socket]
    #: returns the application that another one calls first of all with each request; itself if there is none
    unwrap: Callable[[WSGIApplication], WSGIApplication]
    #: called when the process begins to serve, in the thread of the hub
    on_start: Callable[[], None]
