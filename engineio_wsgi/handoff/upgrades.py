"""WebSockets on servers that do not support them: the handshake is answered on the connection behind the request."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from engineio_wsgi.handoff.server_loops import ServerLoop, kind_of_loop, loop_of
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.response_head import ResponseHead
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.protocol.websocket.handshake import asks_for_websocket
from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.websocket.websocket import WebSocket

__all__ = ["WEBSOCKETS", "LoopUpgrade", "can_upgrade", "upgrade_of"]

#: in the environ of a request whose server passes WebSockets to ``handle_upgrade`` by itself: whether it does
WEBSOCKETS = "engineio.websockets"
SWITCHING_PROTOCOLS = "101 Switching Protocols"


def can_upgrade(environ: WSGIEnvironment) -> bool:
    """Whether the server that a request came through can carry WebSockets, its own or ours."""
    stated = environ.get(WEBSOCKETS)
    if stated is not None:
        return bool(stated)
    return "engineio.socket" in environ or "wsgi.websocket" in environ or kind_of_loop(environ) is not None


def upgrade_of(environ: WSGIEnvironment) -> LoopUpgrade | None:
    """The upgrade that a request asks for, where its server offers no WebSocket and its loop can detach the connection."""
    loop = loop_of(environ) if asks_for_websocket(environ) else None
    return None if loop is None else LoopUpgrade(environ, loop)


class LoopUpgrade:
    """A WebSocket handshake that the server treats as an ordinary request.

    Args:
        environ: of the request.
        loop: that has read the request.
    """

    def __init__(self, environ: WSGIEnvironment, loop: ServerLoop) -> None:
        self._environ = environ
        self._loop = loop

    def serve(self, application: WSGIApplication, start_response: StartResponse) -> Iterable[bytes]:
        """Call ``application``, which finds a WebSocket in its environ and may accept it. Blocks as long as that does.

        Raises:
            ConnectionDetached: in the end, where the server's loop needs it.
        """
        websocket = self._environ["wsgi.websocket"] = WebSocket(self._environ, self._answer_handshake)
        answered = call(application, self._environ)
        status = SWITCHING_PROTOCOLS
        if not websocket.accepted:
            status = answered.status
            self._refuse(answered)
        return self._loop.end(start_response, status)

    def _refuse(self, response: Response) -> None:
        """Send an ordinary response instead, and close the connection: what the client sends next may be frames."""
        head = ResponseHead(response.status, response.headers)
        top = head.frame(len(response.body), "HTTP/1.1", True, False)
        try:
            connection = self._answer_handshake(top + response.body, more=False)
        except OSError:
            # the client has gone
            return
        connection.linger()

    def _answer_handshake(self, data: bytes, more: bool) -> Connection:
        """Detach the connection, and write ``data`` to it."""
        connection = self._loop.detach(self._loop.read_ahead())
        try:
            connection.write(data, more)
        except OSError:
            connection.close()
            raise
        return connection
