"""One WebTransport session: its request, the answer, its stream, and its end.

Its connection calls it with what arrives. Further streams of a session, and its datagrams, are refused: Engine.IO has one stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.http.response import Response
from engineio_wsgi.http3.capsules import CapsuleReader, encode_close
from engineio_wsgi.http3.offer import SessionOffer
from engineio_wsgi.http3.ports import PacketStream
from engineio_wsgi.http3.requests import DRAFT
from engineio_wsgi.http3.stream import SessionStream

__all__ = ["Session", "SessionOwner"]

#: response headers that HTTP/3 does not have (RFC 9114 section 4.2), or that a session's response does not
HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
OK = "200"
#: the code with which a session is closed whose application has failed, as that of WebSocket
APPLICATION_ERROR = 1011


class SessionOwner(Protocol):
    """What a session needs of its connection."""

    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]], end: bool) -> None:
        """Answer a request."""
        ...

    def send_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """Send a part of the response's body, in which capsules are."""
        ...

    def flush(self) -> None:
        """Send what there is to send now: the process may end before the loop runs again."""
        ...

    def refuse_stream(self, stream_id: int) -> None:
        """Take nothing of a stream, and send nothing on it."""
        ...

    def on_session_closed(self, session: Session) -> None:
        """The session has ended, on either side."""
        ...


class Session:
    """See the module.

    Args:
        owner: its connection.
        number: the stream of its request, which is the session's id.
        environ: the request.
        offer: the same as in the environ.
    """

    __slots__ = ("_capsules", "_is_open", "_offer", "_on_end", "_on_stream", "_owner", "closed", "environ", "number", "stream")

    def __init__(self, owner: SessionOwner, number: int, environ: WSGIEnvironment, offer: SessionOffer) -> None:
        self._owner = owner
        self.number = number
        self.environ = environ
        self._offer = offer
        self._capsules = CapsuleReader()
        #: whether the client has been told that it is open
        self._is_open = False
        self.closed = False
        #: the stream with the packets, once the client has opened it
        self.stream: SessionStream | None = None
        self._on_stream: Callable[[PacketStream], object] | None = None
        self._on_end: Callable[[], object] | None = None

    def answer(self, response: Response) -> None:
        """Send the application's response. If it has admitted the session, what it has asked for is called with the session."""
        if self.closed:
            return
        serve = self._offer.serve
        if not response.status.startswith(OK):
            self._refuse(response)
        elif serve is None:
            # an application that does not know WebTransport has answered a GET
            self._refuse(Response("404 Not Found", [], b""))
        else:
            headers = [header for header in _encode(response.headers) if header[0] != b"content-length"]
            self._owner.send_headers(self.number, [(b":status", OK.encode()), DRAFT, *headers], False)
            self._is_open = True
            serve(self)

    def fail(self) -> None:
        """The application has failed: refuse the request, or close the session if the client has been told that it is open."""
        if self._is_open:
            self.close(APPLICATION_ERROR)
        elif not self.closed:
            self._refuse(Response("500 Internal Server Error", [], b""))

    def _refuse(self, response: Response) -> None:
        headers = [(b":status", response.status[:3].encode()), *_encode(response.headers)]
        self._owner.send_headers(self.number, headers, not response.body)
        if response.body:
            self._owner.send_data(self.number, response.body, True)
        self._end()

    def on_stream(self, callback: Callable[[PacketStream], object]) -> None:
        """Call ``callback(stream)`` once, in the hub, with the first bidirectional stream that the client has opened or opens."""
        if self.stream is not None:
            callback(self.stream)
        else:
            self._on_stream = callback

    def on_end(self, callback: Callable[[], object] | None) -> None:
        """Call ``callback()`` once, in the hub, when the session has ended, on either side.

        At once if it has ended. ``None`` calls nothing any more.
        """
        if self.closed and callback is not None:
            callback()
        else:
            self._on_end = callback

    # -- from the connection

    def on_new_stream(self, stream: SessionStream) -> bool:
        """The client has opened a stream. Returns whether it is the one that the session has."""
        if self.stream is not None or self.closed:
            return False
        self.stream = stream
        callback, self._on_stream = self._on_stream, None
        if callback is not None:
            callback(stream)
        return True

    def on_capsules(self, data: bytes, ended: bool) -> None:
        """The client has sent something behind its request, and nothing behind it if it has ``ended`` the stream."""
        try:
            goodbye = self._capsules.feed(data)
        except ProtocolError:
            goodbye = (0, "")
        if goodbye is not None or ended:
            self.on_goodbye(*(goodbye or (0, "")))

    def on_goodbye(self, code: int, reason: str) -> None:
        """The client has closed the session."""
        if self.closed:
            return
        if self._is_open:
            self._owner.send_data(self.number, b"", True)
        self._end()
        if self.stream is not None:
            self.stream.on_goodbye(code, reason)

    def on_lost(self, error: OSError) -> None:
        """The connection is lost."""
        if not self.closed:
            self._end()
        if self.stream is not None:
            self.stream.on_lost(error)

    # -- the end

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the session. Harmless if repeated."""
        if self.closed:
            return
        if self._is_open:
            self._owner.send_data(self.number, encode_close(code, reason), True)
            self._owner.flush()
        self._end()
        if self.stream is not None:
            self.stream.on_lost(BrokenPipeError("the session is closed"))

    def _end(self) -> None:
        self.closed = True
        self._on_stream = None
        self._owner.on_session_closed(self)
        callback, self._on_end = self._on_end, None
        if callback is not None:
            callback()


def _encode(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """The headers of a response as HTTP/3 has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
            if name.lower() not in HOP_BY_HOP]
