"""What the lane needs of its handler, of the engine, and of a session's transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from engineio_wsgi.http.request_head import HeadLimits
from engineio_wsgi.http.response import Response
from engineio_wsgi.options.values import HttpCompression
from engineio_wsgi.packet import Packet

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["LaneEngine", "LaneHandler", "LaneTransport", "Resumed"]


class Resumed(Protocol):
    """A GET that waits."""

    def resume(self) -> None:
        """In the hub: there is an answer now."""
        ...


class LaneTransport(Protocol):
    """What the lane needs of a session's polling transport, which documents the methods."""

    @property
    def polled(self) -> bool:
        """Whether a GET waits."""
        ...

    @property
    def has_answer(self) -> bool:
        """Whether a GET need not wait."""
        ...

    def park(self, poll: Resumed) -> None:
        """Have a GET wait."""
        ...

    def unpark(self) -> None:
        """No GET waits any more."""
        ...

    def answer(self) -> Response:
        """The answer to a GET."""
        ...

    def give_up(self) -> None:
        """The client of the GET that waits has gone."""
        ...

    def decode(self, body: bytes, binary: bool) -> list[Packet] | None:
        """The packets of a POST, if it is a plain one."""
        ...

    def receive(self, packets: list[Packet], size: int) -> bool:
        """Process them; returns whether the POST can be answered."""
        ...

    def finish_post(self, environ: WSGIEnvironment) -> None:
        """Wait until it can."""
        ...


class LaneEngine(Protocol):
    """What the lane needs of the engine."""

    @property
    def compression(self) -> HttpCompression | None:
        """How answers are compressed."""
        ...

    def find(self, sid: str, revision: int) -> LaneTransport | None:
        """The transport of a session that polls, if nothing but the transport has to see its requests now."""
        ...

    def admit(self, path: str, host: str, origin: str | None, scheme: str) -> list[tuple[str, str]] | None:
        """The CORS headers of the response to a request, if the engine need not see its environ; ``None`` if it has to."""
        ...

    def open_session(self, address: str | None, environ: Callable[[], WSGIEnvironment]) -> LaneTransport | None:
        """A new session's transport, if nothing has to see the handshake and nothing is against it; ``None`` otherwise."""
        ...


class LaneHandler(HeadLimits, Protocol):
    """What the lane needs of its handler."""

    server: Any  # gevent's, or one that has its attributes
    client_address: object
    header_timeout: float
    keepalive_timeout: float
    write_timeout: float
    @property
    def close_connection(self) -> bool:
        """Whether the connection ends with the present request."""
        ...

    def close_soon(self) -> None:
        """Let it end with that."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the connection ends with the next response."""
        ...

    def on_lane_request(self) -> None:
        """A request has been read."""
        ...

    def on_lane_response(self) -> None:
        """It has been answered."""
        ...

    def log_lane(self, line: str, began: float, size: int) -> None:
        """Write the access log's line of a request."""
        ...

    def serve_in_greenlet(self) -> None:
        """Have a greenlet serve the connection again."""
        ...

    def end_released(self) -> None:
        """End the connection, which no greenlet serves."""
        ...
