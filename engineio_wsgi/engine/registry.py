"""The host of a process's sessions: it opens them, forgets them, and ends them all.

Owns the sessions by their ids, what they share, and the server's events. Knows nothing of requests.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Collection, ItemsView, Iterator, Mapping, ValuesView
from typing import Any
from weakref import WeakSet

import gevent
from gevent.event import AsyncResult, Event

from engineio_wsgi.deadline import Deadline
from engineio_wsgi.engine.quota import AddressQuota
from engineio_wsgi.errors import ServerClosing, SocketClosed, UsageError, WriteTimeout
from engineio_wsgi.log import shorten
from engineio_wsgi.options.options import Options
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.forks import call_in_child
from engineio_wsgi.runtime.greenlet_pool import Workers
from engineio_wsgi.runtime.observer import Observer
from engineio_wsgi.runtime.threads import current_thread, half_patched, wait_in_thread
from engineio_wsgi.session.events import Emitter, Listener
from engineio_wsgi.session.heartbeat import HeartbeatTimer
from engineio_wsgi.session.session import LISTENER_ERRORS, Session
from engineio_wsgi.session.socket import Socket, as_message
from engineio_wsgi.transports import transports
from engineio_wsgi.transports.base import CloseReason, Prepared, Transport

__all__ = ["WORKER_ID_SIZE", "Registry", "close_hosts", "hosts", "new_worker_id", "send_or_not"]

logger = logging.getLogger("engine")

#: seconds in which a full write buffer may get room for a message whose session is named by its id
ROOM_TIMEOUT = 4.0
#: characters at the head of a session id that name the worker which owns the session
WORKER_ID_SIZE = 4

#: seconds that ``close`` listeners have when the server closes, and seconds between two looks whether they have returned
CLOSE_LISTENERS_TIMEOUT, LOOK_PERIOD = 2.0, 0.01
#: those of this process: what is to be closed when it ends
hosts: WeakSet[Registry] = WeakSet()


def close_hosts(timeout: float) -> None:
    """Close the sessions of this process, whatever its engines are wrapped in.

    Blocks until they have fetched what waits for them, for ``timeout`` seconds at most.
    """
    gevent.joinall([gevent.spawn(host.close, max(timeout, 0.0)) for host in list(hosts)])


def send_or_not(session: Any, data: str | bytes, compress: bool) -> bool:
    """Send a message to a session of this process; whether it was queued. Blocks while there is no room, within limits."""
    try:
        session.send(data, compress=compress, timeout=ROOM_TIMEOUT)
    except (SocketClosed, WriteTimeout):
        return False
    return True


def new_worker_id() -> str:
    """One of 16 million marks of a worker."""
    return secrets.token_urlsafe(WORKER_ID_SIZE)[:WORKER_ID_SIZE]


class Clients(Mapping[str, "Socket"]):
    """What the application sees of the sessions, by their ids: always the sessions of now; what is iterated over is a copy."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        self._sessions = sessions

    def __repr__(self) -> str:
        return f"<{len(self)} clients>"

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, sid: object) -> bool:
        return sid in self._sessions

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._sessions))

    def __getitem__(self, sid: str) -> Socket:
        socket: Socket = self._sessions[sid].socket
        return socket

    def items(self) -> ItemsView[str, Socket]:
        """Ids and sessions."""
        return self._copy().items()

    def values(self) -> ValuesView[Socket]:
        """The sessions."""
        return self._copy().values()

    def _copy(self) -> dict[str, Socket]:
        # another thread may look while sessions end
        return {sid: session.socket for sid, session in list(self._sessions.items()) if session.socket is not None}


class Registry(Emitter):
    """See the module. The engine is one, and brings the requests.

    Args:
        options: see :class:`Options`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._configure(Options.create(**options))
        self._clients: dict[str, Session] = {}
        #: the sessions of this process by id; a read-only view
        self.clients: Mapping[str, Socket] = Clients(self._clients)
        #: who is told what happens here: `metrics.observe` sets it
        self.observer = Observer()
        self._closing = False
        self._hub: Any = None
        #: the outcome of :meth:`_enter_hub`, while it is under way
        self._entered: AsyncResult | None = None
        self._emptied: Event | None = None
        #: whether this process was forked from one that serves, and does not serve itself
        self.forked = False
        hosts.add(self)

    def _configure(self, options: Options) -> None:
        """Everything that depends on the options; not after the first request."""
        #: the options, validated; a frozen dataclass
        self.options = options
        self._quota = AddressQuota(options.max_sessions_per_address, options.max_handshakes_per_address)

    def _enter_hub(self) -> None:
        """Begin to serve in this process and its hub, once; not earlier than the first request, which is after any fork.

        Blocks while a cluster is joined: requests that come meanwhile wait for the same outcome.
        """
        if self._hub is not None:
            return
        if self._entered is not None:
            self._entered.get()
            return
        self._entered = entered = AsyncResult()
        try:
            self._settle_in_hub()
        except BaseException as error:
            entered.set_exception(error)
            raise
        else:
            entered.set(None)
        finally:
            self._entered = None

    def _settle_in_hub(self) -> None:
        """Make what belongs to the process and its hub."""
        missing = half_patched()
        if missing:
            logger.warning("gevent has patched some modules and not %s: listeners that use them will block every session; "
                           "call monkey.patch_all() first of all, or not at all", ", ".join(missing))
        hub = gevent.get_hub()
        self._thread = current_thread()
        self.workers = Workers(hub)
        self.heartbeat_timer = HeartbeatTimer(hub.loop, min(self.options.ping_interval, self.options.ping_timeout))
        self.worker_id = self._become_worker()
        self.forked = False
        self._hub = hub  # last: from now on other threads may look

    def start_anew(self, served: bool) -> None:
        """In a forked child: let go of everything that is the parent's. The first request makes this process a worker of its own.

        Nobody is told and nothing is sent; the parent goes on.

        Args:
            served: whether the parent has served anybody.
        """
        self.forked = self.forked or served or bool(self._clients)
        for session in list(self._clients.values()):
            session.forsake()
        self._clients.clear()
        if self._hub is not None:
            self.heartbeat_timer.stop()
            self.workers.forsake()
        self._hub = self._entered = self._emptied = None
        self._closing = False
        self._quota = AddressQuota(self.options.max_sessions_per_address, self.options.max_handshakes_per_address)
        self.observer.start_anew()

    def _become_worker(self) -> str:
        """What this worker's session ids begin with."""
        return new_worker_id()

    def listeners_of(self, event: str) -> tuple[Listener, ...]:
        """The server's own listeners of ``event``."""
        return self._listeners.get(event, ())

    def _set(self, event: str, listeners: tuple[Listener, ...]) -> None:
        super()._set(event, listeners)
        if event in ("flush", "drain"):
            for session in self._clients.values():
                session.outbox.watch()

    def announce(self, event: str, argument: object) -> None:
        """Call the server's listeners of an event that nobody waits for, in a greenlet of their own."""
        if event in self._listeners:
            gevent.spawn(self._announce, event, argument)

    def _announce(self, event: str, argument: object) -> None:
        try:
            self.emit(event, argument)
        except Exception:
            logger.exception("a listener (%s) failed", event)

    @property
    def clients_count(self) -> int:
        """How many sessions this process has."""
        return len(self._clients)

    # -- the beginning and the end of a session

    def _open(self, session: Session, transport: Transport, may_upgrade: bool = False) -> None:
        """Everything that makes a session one, in one step."""
        if self._closing:
            raise ServerClosing()
        self._quota.take(session.remote_address)
        self._clients[session.id] = session
        self.observer.on_open(transport.name)
        self.heartbeat_timer.start()
        logger.debug("= %s: open over %s, revision %d", shorten(session.id), transport.name, session.protocol)
        first = [Packet(PacketType.OPEN, self._open_data(session.id, transport, may_upgrade), compress=False)]
        if self.options.initial_packet is not None:
            first.append(Packet(PacketType.MESSAGE, self.options.initial_packet))
        session.open(transport, first)
        session.queue_call(self._connected, session)

    def _open_data(self, sid: str, transport: Transport, may_upgrade: bool) -> str:
        options = self.options
        return json.dumps({
            "sid": sid,
            "upgrades": self.upgrades(transport.name) if may_upgrade else [],
            "pingInterval": round(options.ping_interval * 1000),
            "pingTimeout": round(options.ping_timeout * 1000),
            "maxPayload": options.max_http_buffer_size,
        }, separators=(",", ":"))

    def upgrades(self, transport: str) -> list[str]:
        """The transports that a session may move to from ``transport``."""
        if not self.options.allow_upgrades:
            return []
        return [name for name in transports[transport].upgrades_to if name in self.options.transports]

    def _connected(self, session: Session) -> None:
        """The first turn of a session: its ``connection`` listeners."""
        try:
            self.emit("connection", session.socket)
        except LISTENER_ERRORS as error:
            if not session.closed:
                logger.exception("a listener (connection) failed; the session is closed")
                session.end(CloseReason.APPLICATION_ERROR, error)
            return
        if not session.closed:
            session.notify("open")

    def forget(self, session: Session) -> None:
        """The session has ended."""
        if self._clients.pop(session.id, None) is not None:
            self._quota.give_back(session.remote_address)
            self.observer.on_closed(str(session.close_reason))
        if not self._clients:
            self.heartbeat_timer.stop()
            if self._emptied is not None:
                self._emptied.set()

    # -- everybody

    def broadcast(self, data: str | bytes, exclude: Collection[Any] = (), compress: bool = True) -> None:
        """Send one message to every session of this process, encoded once. Never blocks; from any thread.

        Args:
            exclude: sessions, or their ids, that do not get it.

        A session whose write buffer is full is closed (``"client too slow"``): nobody waits for it, and nothing is
        left out silently.

        Raises:
            UsageError: this process was forked from the one that has the sessions.
        """
        message = Prepared(as_message(data), compress)
        if self._hub is None:
            self._check_not_forked()
            return
        if current_thread() != self._thread:
            self._hub.loop.run_callback_threadsafe(self._broadcast, message, exclude)
        else:
            self._broadcast(message, exclude)

    def _check_not_forked(self) -> None:
        """A forked child has no sessions, and nothing that is meant for its parent's is dropped in silence."""
        if self.forked:
            raise UsageError("the sessions are those of the process that this one was forked from: reach them with the option "
                             "cluster and cluster=True, or by engineio_wsgi.Emitter")

    def _broadcast(self, message: Prepared, exclude: Collection[Any]) -> None:
        for session in list(self._clients.values()):
            if not exclude or (session.id not in exclude and session.socket not in exclude):
                session.send_prepared(message)

    def close(self, timeout: float = 10.0) -> None:
        """Take no more sessions, and close all there are, after what waits for each has been fetched.

        Blocks until they are closed and their ``close`` listeners have returned. Those that are not closed after ``timeout``
        seconds are closed without further ado, and ``close`` listeners that take longer than 2 seconds are not waited for.
        Harmless when repeated; handshakes are answered with 503 from now on.
        """
        self._closing = True
        if self._hub is None:
            return
        if current_thread() != self._thread:
            ended: list[bool] = []
            self._hub.loop.run_callback_threadsafe(gevent.spawn, self._close_and_tell, timeout, ended)
            deadline = Deadline(timeout + 1.0)
            while not ended and not deadline.has_passed():
                wait_in_thread()
        else:
            self._close_all(timeout)

    def _close_and_tell(self, timeout: float, ended: list[bool]) -> None:
        self._close_all(timeout)
        ended.append(True)

    def _close_all(self, timeout: float) -> None:
        # those whose client waits for an answer need a turn of the loop
        deadline = Deadline(max(timeout, LOOK_PERIOD))
        sessions = list(self._clients.values())
        for session in sessions:
            session.end_when_drained(CloseReason.SERVER_SHUTTING_DOWN)
        if self._emptied is None:
            self._emptied = Event()
        if self._clients:
            deadline.wait(self._emptied)
        for session in list(self._clients.values()):
            session.end(CloseReason.SERVER_SHUTTING_DOWN)
        # they may have to wait for a listener that does not return, and it is they who save what is to be saved
        deadline = Deadline(CLOSE_LISTENERS_TIMEOUT)
        while sessions and not deadline.has_passed():
            sessions = [session for session in sessions if not session.state.over]
            gevent.sleep(LOOK_PERIOD if sessions else 0)


def _start_anew(served: bool) -> None:
    for host in list(hosts):
        host.start_anew(served)


call_in_child(_start_anew)
