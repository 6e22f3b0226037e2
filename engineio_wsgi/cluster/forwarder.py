"""The interface of the two forwarders, which bring a request to the worker of its session, and the parts that they share.

Owns the copy of a request that another worker answers, and the watch over its client meanwhile. The router decides what a request
needs, `local.forwarder` and `redis.remote` do it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from io import BytesIO
from typing import ClassVar, Protocol
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.cluster.carriers import as_environ, headers_of
from engineio_wsgi.cluster.messages import Message, MovedConnection, Request
from engineio_wsgi.errors import BadMessage, ClientGone, OwnerGone
from engineio_wsgi.handoff.client_socket import EndWatch
from engineio_wsgi.handoff.detachable import Detachable
from engineio_wsgi.http.body import copy_body
from engineio_wsgi.http.response import Response
from engineio_wsgi.protocol.websocket.handshake import asks_for_websocket

__all__ = ["ClientWatch", "Forwarder", "RequestCopy"]


class Forwarder(Protocol):
    """Forwards requests to other workers."""

    #: whether it can hand over any connection; if not, only those that become WebSockets
    moves_connections: ClassVar[bool]

    def hand_over(self, owner: str, connection: MovedConnection, detachable: Detachable) -> None:
        """Hand a connection and its request over to their session's worker. Blocks until that worker has taken them.

        The connection has left this process then. After an error, it is unchanged.

        Raises:
            OwnerGone: there is no such worker, or it does not answer.
            OwnerRefused: it does not take them.
        """
        ...

    def relay(self, owner: str, request: RequestCopy) -> Response:
        """Have a request answered by its session's worker. Blocks until it is.

        Raises:
            OwnerGone: there is no such worker, or it does not answer.
            OwnerRefused: it does not take the request.
            ClientGone: the client has left.
        """
        ...


class RequestCopy:
    """A request for another worker. Its body is read once, by the first call of :meth:`message`, which may block.

    The ``environ`` keeps the body, so that the request can still be answered here.

    Args:
        environ: of the request.
        fingerprint: the configuration that workers must share to send each other requests.
        sid: the session that it is for.
        body_limit: bytes of the largest body that the session accepts.
    """

    def __init__(self, environ: WSGIEnvironment, fingerprint: str, sid: str, body_limit: int) -> None:
        #: the environ as it was received, and as it is sent
        self._received = self.environ = environ
        #: whether it asks for a WebSocket
        self.upgrade = asks_for_websocket(environ)
        self._fingerprint = fingerprint
        self.sid = sid
        self._body_limit = body_limit
        #: the headers that continue a trace in the other worker
        self.trace: dict[str, str] = {}

    def carry(self, headers: dict[str, str]) -> None:
        """Send these headers in the place of the request's own, because they continue a trace."""
        self.trace = headers
        self.environ = {**self._received, **as_environ(headers)}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that were received, by their names in small letters."""
        return headers_of(self._received)

    @property
    def texts(self) -> dict[str, str]:
        """The part of the environ that is text."""
        return {key: value for key, value in self.environ.items() if type(value) is str}

    def message(self) -> Message:
        """The message that asks for an answer."""
        texts = self.texts
        texts["CONTENT_LENGTH"], body = self._body
        return Request(self._fingerprint, self.sid, texts).message(body)

    @cached_property
    def _body(self) -> tuple[str, bytes]:
        """``CONTENT_LENGTH`` and body. If the body is faulty, they are such that the session's worker refuses it, too."""
        if self.environ["REQUEST_METHOD"] != "POST":
            return self.environ.get("CONTENT_LENGTH") or "", b""
        announced, body = copy_body(self.environ, self._body_limit)
        # the session may arrive in this process before another one has taken the request
        self._received.update({"CONTENT_LENGTH": announced, "wsgi.input": BytesIO(body)})
        return announced, body


class ClientWatch:
    """Ends the wait for the answer to a request when its client leaves. Raises from a failed wait:

    - `ClientGone`: the client has left.
    - `OwnerGone`: the other worker does not answer, or answers with something else.

    Args:
        environ: of the request.
        shut_down: ends the wait with an error. Called in the hub; must not block.
    """

    __slots__ = ("_hang_up", "_left", "_watch")

    def __init__(self, environ: WSGIEnvironment, shut_down: Callable[[], object]) -> None:
        self._hang_up = shut_down
        self._left = False
        self._watch = EndWatch(environ, self._on_end)

    def _on_end(self) -> None:
        self._left = True
        self._hang_up()

    def __enter__(self) -> None:
        """Nothing to do: the watch began when it was made."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Stop watching."""
        self._watch.stop()
        if self._left and error is not None:
            raise ClientGone from error
        if isinstance(error, (OSError, BadMessage)):
            raise OwnerGone(f"it has not answered: {error}") from error
