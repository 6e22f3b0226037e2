"""The part of a session that moves to another process: what has to be sent along, and how the session goes on from there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import gevent

from engineio_wsgi.runtime.loop import Stream
from engineio_wsgi.session.dispatcher import Dispatcher
from engineio_wsgi.session.heartbeat import Heartbeat, HeartbeatSnapshot
from engineio_wsgi.session.ports import SessionRegistry
from engineio_wsgi.session.state import Cause, SessionState
from engineio_wsgi.session.write_buffer import WriteBuffer
from engineio_wsgi.transports.base import Sink, Transport
from engineio_wsgi.transports.entries import EntrySnapshot, has_callback, restore_entries, snapshots_of
from engineio_wsgi.transports.movable_websocket import WebSocketSnapshot
from engineio_wsgi.transports.polling import PollingSnapshot, PollingTransport
from engineio_wsgi.transports.websocket import WebSocketTransport

if TYPE_CHECKING:
    from engineio_wsgi.session.session import Session
    from engineio_wsgi.session.socket import Socket

__all__ = ["MovableSession", "Scalar", "SessionSnapshot"]

#: the values of an environ that other processes can have
Scalar = str | bool | int | float | None
SCALARS = (str, bool, int, float, type(None))


class SessionSnapshot(NamedTuple):
    """A session between two turns of its listeners.

    Attributes:
        sid: its id.
        protocol: the revision, 1 to 4.
        remote_address: the client's address.
        upgraded: whether it has moved from one transport to another.
        stalled_since: the time from which on nothing could be written; 0.0 if something can.
        heartbeat: the times of its heartbeat.
        messages: those that no listener has seen.
        entries: those that wait in the write buffer.
        groups: that it is in.
        environ: of the handshake's request, without what other processes cannot have.
        data: the application's own, as JSON.
        polling: its transport, if that is polling.
        websocket: its transport, if that is a WebSocket. The file descriptor goes beside it.
        expires_at: when it expires, in seconds since the epoch; ``None`` for never.
    """

    sid: str
    protocol: int
    remote_address: str | None
    upgraded: bool
    stalled_since: float
    heartbeat: HeartbeatSnapshot
    messages: tuple[str | bytes, ...]
    entries: tuple[EntrySnapshot, ...]
    groups: tuple[str, ...]
    environ: dict[str, Scalar]
    data: str
    polling: PollingSnapshot | None
    websocket: WebSocketSnapshot | None
    expires_at: float | None = None

    def loaded_data(self) -> dict[str, object]:
        """The application's own data.

        Raises:
            ValueError: it is no JSON object.
        """
        data: object = json.loads(self.data)
        if not isinstance(data, dict):
            raise ValueError("the application's data is no JSON object")
        return data


class MovableSession(Sink):
    """See the module. A `departure.Departure` calls this when nothing of the session is under way."""

    __slots__ = ("socket", "spawned", "stalled_since")

    id: str
    protocol: int
    remote_address: str | None
    state: SessionState
    stalled_since: float
    registry: SessionRegistry
    socket: Socket | None
    transport: Transport
    inbox: Dispatcher
    outbox: WriteBuffer
    heartbeat: Heartbeat
    spawned: set[gevent.Greenlet] | None

    def _move(self, cause: Cause) -> bool:
        raise NotImplementedError

    def _use(self, transport: Transport) -> None:
        raise NotImplementedError

    def _tell_progress(self) -> None:
        raise NotImplementedError

    @property
    def expires_at(self) -> float | None:
        """When it expires, in seconds since the epoch; ``None`` for never."""
        raise NotImplementedError

    def expire_at(self, at: float | None) -> None:
        """Let it expire at another time, or never."""
        raise NotImplementedError

    def _stop_expiry(self) -> None:
        raise NotImplementedError

    def obstacle(self, is_local: bool = False) -> str | None:
        """Why the session cannot go on in another process; ``None`` if it can.

        Args:
            is_local: whether it stays in this process, and only its server changes.
        """
        if not self.state.is_open:
            return "it is closing"
        if not isinstance(self.transport, (PollingTransport, WebSocketTransport)):
            return f"the transport {self.transport.name} ends in this process"
        if has_callback(self.outbox.entries):
            return "a callback of send() is waiting for its message"
        return self.transport.obstacle(is_local)

    def hold_deadlines(self) -> None:
        """Take the client for alive until :meth:`release_deadlines`, because what it sends is not read."""
        self.heartbeat.hold()

    def release_deadlines(self, seconds: float) -> None:
        """What the client has sent is read now.

        Args:
            seconds: for how long nothing was read. A client that polls could receive nothing, either.
        """
        self.heartbeat.release()
        self.put_off_deadlines(seconds)

    def put_off_deadlines(self, seconds: float) -> None:
        """What the client has sent is read now in another process; see :meth:`release_deadlines`."""
        self.inbox.hear()
        if self.stalled_since:
            self.stalled_since += seconds

    def snapshot(self, messages: list[str | bytes]) -> SessionSnapshot:
        """What another process needs to go on with the session, if there is no :meth:`obstacle`.

        Args:
            messages: those that no listener has seen.

        Raises:
            TypeError, ValueError: the application's data cannot be written as JSON, or would be read as something else.
        """
        socket, transport = self.socket, self.transport
        assert socket is not None
        return SessionSnapshot(
            self.id, self.protocol, self.remote_address, self.state.upgraded, self.stalled_since, self.heartbeat.snapshot(),
            tuple(messages), snapshots_of(self.outbox.entries), tuple(self.registry.groups.of(self._self)),
            {key: value for key, value in socket._environ.items() if type(value) in SCALARS}, _as_json(socket._data or {}),
            transport.snapshot() if isinstance(transport, PollingTransport) else None,
            transport.snapshot() if isinstance(transport, WebSocketTransport) else None, self.expires_at)

    @property
    def _self(self) -> Session:
        return self  # type: ignore[return-value]  # the one subclass

    def let_go(self) -> Stream | None:
        """The session goes on in another process: end it here, without a sign to the client and to ``close`` listeners.

        Returns:
            The socket of its connection, which is the caller's from now on; ``None`` if it polls, or is not open.
        """
        if not self._move(Cause.MOVE):
            return None
        self.heartbeat.stop()
        self._stop_expiry()
        self.inbox.close()
        self.outbox.close()
        self.outbox.clear()
        transport = self.transport
        stream = transport.give_away() if isinstance(transport, WebSocketTransport) else None
        self.registry.let_go(self._self)
        self._tell_progress()
        spawned, self.spawned = self.spawned, None
        if spawned:
            gevent.killall(list(spawned), block=False)
        self.inbox.clear()
        self.inbox.release()
        self.socket = None
        return stream

    def resume(self, transport: Transport, snapshot: SessionSnapshot) -> None:
        """Go on where another process has stopped, instead of being opened. Its listeners run in the next turn.

        Args:
            transport: a new one, which was restored from the same snapshot.
            snapshot: of the session.

        Raises:
            ValueError: the snapshot is not valid.
        """
        entries = restore_entries(snapshot.entries)
        for cause in (Cause.OPEN, Cause.UPGRADE, Cause.SWITCH) if snapshot.upgraded else (Cause.OPEN,):
            self._move(cause)
        self._use(transport)
        if snapshot.websocket is not None and isinstance(transport, WebSocketTransport):
            transport.resume_sending(snapshot.websocket.connection.unsent)
        self.stalled_since = snapshot.stalled_since
        self.heartbeat.restore(snapshot.heartbeat)
        self.inbox.restore(snapshot.messages, snapshot.heartbeat.last_seen)
        self.outbox.restore(entries, transport.unsent_entries())
        transport.open()
        if self.inbox.reading_paused:
            transport.pause()
        if entries:
            transport.wake()
        if snapshot.expires_at is not None:
            self.expire_at(snapshot.expires_at)


def _as_json(data: dict[object, object]) -> str:
    text = json.dumps(data)
    if json.loads(text) != data:
        raise ValueError("JSON would read it as something else, for example a list for a tuple, or '1' for 1")
    return text
