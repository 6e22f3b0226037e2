"""Sessions that come from another process, or from another server of this one.

Owns the way from a snapshot to a session. A session is prepared first, which touches nothing that the other side still needs, and
resumed when it is certain that nobody else goes on with it.
"""

from __future__ import annotations

from math import isfinite

from engineio_wsgi.engine.hooks import Hooks
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.errors import FrameError
from engineio_wsgi.protocol.websocket.deflate import Deflater, Inflater
from engineio_wsgi.protocol.websocket.frames import FrameDecoder
from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.runtime.loop import Stream
from engineio_wsgi.session.movable import SessionSnapshot
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports import transports
from engineio_wsgi.transports.base import Transport
from engineio_wsgi.transports.entries import restore_entries
from engineio_wsgi.transports.jsonp import JSONPTransport
from engineio_wsgi.transports.movable_websocket import WebSocketSnapshot, deflate_parameters
from engineio_wsgi.transports.polling import PollingTransport
from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["PreparedSession", "Resumption"]


def _check(snapshot: SessionSnapshot) -> None:
    """Check what a session looks at only when it is resumed, which is too late to refuse it.

    Raises:
        ValueError: the snapshot is not valid.
    """
    restore_entries(snapshot.entries)
    if not all(map(isfinite, (*snapshot.heartbeat, snapshot.stalled_since, snapshot.expires_at or 0.0))):
        raise ValueError("a time that is no number")


class PreparedSession:
    """A session that is about to be resumed."""

    def __init__(self, registry: Registry, session: Session, transport: Transport, snapshot: SessionSnapshot) -> None:
        self._registry = registry
        self._session = session
        self._transport = transport
        self._snapshot = snapshot

    @property
    def sid(self) -> str:
        """The session's id."""
        return self._session.id

    @property
    def connection(self) -> Connection | None:
        """Its connection; ``None`` if it polls."""
        return self._transport.wire if isinstance(self._transport, WebSocketTransport) else None

    def resume(self) -> None:
        """Go on with the session. Does not block; the ``resume`` listeners are called soon.

        Raises:
            ValueError: the snapshot is not valid.
        """
        try:
            self._registry.resume(self._session, self._transport, self._snapshot)
        except BaseException:
            self._registry.let_go(self._session)
            raise

    def discard(self) -> None:
        """Somebody else goes on with it: close the descriptor, of which the other side has another one."""
        if isinstance(self._transport, WebSocketTransport):
            self._transport.give_away().close()


class Resumption:
    """Makes sessions of snapshots.

    Args:
        registry: where the sessions are.
        hooks: what a framework changes.
    """

    def __init__(self, registry: Registry, hooks: Hooks) -> None:
        self._registry = registry
        self._hooks = hooks

    def prepare(self, snapshot: SessionSnapshot, stream: Stream | None) -> PreparedSession:
        """Make a session of a snapshot, which does nothing yet.

        Args:
            snapshot: of it.
            stream: the socket of its connection; ``None`` if it polls. It belongs to the session from now on.

        Raises:
            ValueError: the snapshot is not valid here.
        """
        registry = self._registry
        if snapshot.sid in registry.sessions:
            raise ValueError("there is a session with this id")
        if registry.closing:
            raise ValueError("this server is closing")
        try:
            _check(snapshot)
            transport = self._transport(snapshot, stream)
        except (FrameError, TypeError) as error:
            raise ValueError(str(error)) from error
        session = Session(registry, snapshot.sid, snapshot.protocol, snapshot.remote_address)
        socket = self._hooks.make_socket(session, {**snapshot.environ, "wsgi.version": (1, 0)})
        socket.data.update(snapshot.loaded_data())
        session.present_as(socket)
        return PreparedSession(registry, session, transport, snapshot)

    def _transport(self, snapshot: SessionSnapshot, stream: Stream | None) -> Transport:
        protocol, observers, limit = snapshot.protocol, self._registry.observers, self._registry.options.max_http_buffer_size
        if snapshot.polling is not None and stream is None:
            if snapshot.polling.is_jsonp:
                return JSONPTransport(protocol, limit, observers.meter("polling"))
            return PollingTransport(protocol, limit, snapshot.polling.binary, observers.meter("polling"))
        if snapshot.websocket is None or stream is None:
            raise ValueError("a session with a transport of another kind than its connection")
        return self._websocket(protocol, snapshot.websocket, stream)

    def _websocket(self, protocol: int, snapshot: WebSocketSnapshot, stream: Stream) -> WebSocketTransport:
        registry = self._registry
        limit = registry.options.max_http_buffer_size
        kind = transports.get(snapshot.name)
        if kind is None or not issubclass(kind, WebSocketTransport):
            raise ValueError(f"there is no transport {snapshot.name!r}")
        parameters = deflate_parameters(snapshot.deflate)
        inflater = None if parameters is None else Inflater(parameters, limit)
        deflater = None if parameters is None else Deflater(parameters)
        decoder = FrameDecoder(limit, inflate=inflater)
        decoder.restore(snapshot.decoder)
        wire = Connection(stream, snapshot.connection.read_ahead)
        transport = kind(wire, registry.greenlets, decoder, protocol, snapshot.binary, deflater, snapshot.deflate_threshold,
                         registry.observers.meter(snapshot.name), snapshot.subprotocol)
        transport.restore(snapshot)
        return transport
