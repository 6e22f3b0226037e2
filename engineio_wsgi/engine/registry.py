"""The registry of a server's sessions in this process: it opens sessions, forgets them, and closes them all.

Owns the sessions by their ids and what they share: options, greenlet pool, heartbeat timer, quota, observers. It must not know
requests.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
from collections.abc import Callable, Collection, ItemsView, Iterator, Mapping, ValuesView
from json.encoder import encode_basestring_ascii
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.hub import Hub

from engineio_wsgi.engine.drain import RETRY_PERIODS, drain, drain_seconds
from engineio_wsgi.engine.quota import AddressQuota
from engineio_wsgi.engine.server_events import ServerEvents
from engineio_wsgi.errors import ServerClosing, SocketClosed, UsageError, WriteTimeout
from engineio_wsgi.log import shorten
from engineio_wsgi.options.options import Options
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.runtime.greenlet_pool import GreenletPool
from engineio_wsgi.runtime.observer import Observer
from engineio_wsgi.runtime.observers import Observers
from engineio_wsgi.runtime.random_ids import random_id
from engineio_wsgi.runtime.threads import current_thread, wait_in_thread
from engineio_wsgi.session.broadcasts import Broadcasts, ping_all
from engineio_wsgi.session.delivery import Delivery, OnSlow
from engineio_wsgi.session.dispatcher import LISTENER_ERRORS, failure_text
from engineio_wsgi.session.events import Listener
from engineio_wsgi.session.groups import Groups
from engineio_wsgi.session.heartbeat import HeartbeatTimer
from engineio_wsgi.session.movable import SessionSnapshot
from engineio_wsgi.session.outgoing import Outgoing, check_fits, prepare
from engineio_wsgi.session.session import Session
from engineio_wsgi.session.socket import Socket
from engineio_wsgi.transports import transports
from engineio_wsgi.transports.base import CloseReason, Prepared, Transport

__all__ = ["WORKER_ID_SIZE", "Registry", "new_worker_id", "send_or_not"]

logger = logging.getLogger("engine")

#: transports that need something else than the HTTP server, and are offered while that runs
BESIDE_HTTP = frozenset(name for name, transport in transports.items() if not transport.over_http)
#: seconds in which a full write buffer may get room for a message whose session is named by its id
ROOM_TIMEOUT = 4.0
#: characters at the head of a session id that name the worker which owns the session
WORKER_ID_SIZE = 4

#: seconds that ``close`` listeners have when the server closes, and seconds between two looks whether they have returned
CLOSE_LISTENERS_TIMEOUT, LOOK_PERIOD = 2.0, 0.01


class Recipient(Protocol):
    """A session that messages are sent to."""

    def send(self, data: Outgoing, *, compress: bool = True, timeout: float | None = None) -> object:
        """Send a message or a bundle."""
        ...


def send_or_not(session: Recipient, data: Outgoing, compress: bool) -> bool:
    """Send a message or a bundle to a session of this process.

    Blocks while the write buffer is full, for `ROOM_TIMEOUT` seconds at most. Returns whether it was queued.

    Raises:
        BundleTooLarge: the bundle is larger than ``max_buffered``.
    """
    try:
        session.send(data, compress=compress, timeout=ROOM_TIMEOUT)
    except (SocketClosed, WriteTimeout):
        return False
    return True


def new_worker_id() -> str:
    """A random worker id, one of 16 million."""
    return secrets.token_urlsafe(WORKER_ID_SIZE)[:WORKER_ID_SIZE]


class Clients(Mapping[str, Socket]):
    """The application's read-only view of the open sessions, by id. Iteration goes over a copy."""

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
        socket = self._sessions[sid].socket
        if socket is None:
            raise KeyError(sid)
        return socket

    def items(self) -> ItemsView[str, Socket]:
        """Ids and sessions."""
        return self._copy().items()

    def values(self) -> ValuesView[Socket]:
        """The sessions."""
        return self._copy().values()

    def _copy(self) -> dict[str, Socket]:
        # sessions may end while another thread iterates
        return {sid: session.socket for sid, session in list(self._sessions.items()) if session.socket is not None}


class Registry:
    """See the module.

    Args:
        server: the server that the sessions belong to, as the application sees it.
        events: the server's.
        options: the server's; see :meth:`configure`.
    """

    heartbeat_timer: HeartbeatTimer
    greenlets: GreenletPool
    _broadcasts: Broadcasts

    def __init__(self, server: object, events: ServerEvents, options: Options) -> None:
        self.server = server
        self.events = events
        # a session asks for each flush
        self.listeners_of = events.registered
        self._sessions: dict[str, Session] = {}
        #: the sessions of this process by id
        self.sessions: Mapping[str, Session] = self._sessions
        self.groups = Groups()
        #: the same, as the application sees them
        self.clients: Mapping[str, Socket] = Clients(self._sessions)
        #: who is told of what happens
        self.observers = Observers()
        #: whether no session is opened any more
        self.closing = False
        #: the hub that the sessions live in, and the id of its thread; ``None`` before the first request
        self.hub: Hub | None = None
        self.thread = 0
        #: this worker's, and whether the other workers find a session's worker by the first characters of its id
        self.worker_id = ""
        self.in_cluster = False
        self._emptied: Event | None = None
        #: the transports that are served beside the HTTP server, while they are
        self._offered: set[str] = set()
        #: the data of open packets behind the session id, by transport and whether an upgrade is offered
        self._open_data: dict[tuple[str, bool], str] = {}
        #: whether this process was forked from one that serves, and does not serve itself
        self.forked = False
        self.configure(options)

    def configure(self, options: Options) -> None:
        """Use other options. Not after the first request."""
        self.options = options
        limits = (options.max_sessions_per_address, options.max_handshakes_per_address)
        self._quota = None if limits == (None, None) else AddressQuota(*limits)
        self._open_data.clear()

    def check_not_observed(self, kind: type[Observer]) -> None:
        """Check that an observer of ``kind`` can be added.

        Raises:
            UsageError: there is one already, or there are sessions.
        """
        self.observers.check_new(kind)
        if self._sessions:
            raise UsageError(f"this server has sessions already: call {kind.added_by}(server) before it serves")

    def observe(self, observer: Observer) -> None:
        """Report to ``observer`` as well from now on.

        Raises:
            UsageError: see :meth:`check_not_observed`.
        """
        self.check_not_observed(type(observer))
        self.observers.add(observer)

    def start(self, hub: Hub, worker_id: str, in_cluster: bool) -> None:
        """Begin to serve in the hub of the calling thread."""
        self.thread = current_thread()
        self.greenlets = GreenletPool(hub)
        self._broadcasts = Broadcasts(hub.loop)
        shortest = min(self.options.ping_interval, self.options.ping_timeout)
        self.heartbeat_timer = HeartbeatTimer(hub.loop, shortest, self.greenlets.blame, ping_all, self.observers.on_lag)
        self.worker_id = worker_id
        self.in_cluster = in_cluster
        self.forked = False
        self.hub = hub  # last: other threads take it as the sign that all of this is there

    def after_fork(self, served: bool) -> None:
        """In a forked child: drop everything that belongs to the parent, without telling anybody. The parent goes on.

        Args:
            served: whether the parent has served a client.
        """
        self.forked = self.forked or served or bool(self._sessions)
        for session in list(self._sessions.values()):
            session.after_fork()
        self._sessions.clear()
        self.groups.clear()
        if self.hub is not None:
            self.heartbeat_timer.stop()
            self.greenlets.after_fork()
            self._broadcasts.after_fork()
        self.hub = self._emptied = None
        self.closing = False
        self.configure(self.options)
        self.observers.after_fork()

    def run_in_hub(self, function: Callable[[], object], timeout: float) -> None:
        """Call ``function`` in the hub's thread. Blocks until it has returned, for ``timeout`` seconds at most in another thread.

        Does nothing before the first request.
        """
        if self.hub is None:
            return
        if current_thread() == self.thread:
            function()
            return
        returned: list[object] = []
        self.hub.loop.run_callback_threadsafe(gevent.spawn, lambda: returned.append(function()))
        deadline = Deadline(timeout)
        while not returned and not deadline.has_passed():
            wait_in_thread()

    # -- the beginning and the end of a session

    def check_open(self) -> None:
        """Check that sessions are opened.

        Raises:
            ServerClosing: the server is about to end.
        """
        if self.closing:
            raise ServerClosing(random.randint(*RETRY_PERIODS))

    @property
    def opens_freely(self) -> bool:
        """Whether sessions are opened, as many as clients want."""
        return self._quota is None and not self.closing and self.hub is not None

    def check_handshake(self, address: str | None) -> None:
        """Count a handshake of a client, and check that the client may open a session.

        Raises:
            ServerClosing: no session is opened any more.
            Forbidden: the address has used up its quota.
        """
        self.check_open()
        if self._quota is not None:
            self._quota.count_handshake(address, monotonic())
            self._quota.check(address)

    def new_id(self) -> str:
        """A session id: the worker's id and 120 random bits, URL-safe."""
        return self.worker_id + random_id()

    def open(self, session: Session, transport: Transport, may_upgrade: bool = False) -> None:
        """Add a session, and let it begin over ``transport``.

        Raises:
            ServerClosing, Forbidden: as :meth:`check_handshake`; something has changed since.
        """
        self.check_open()
        if self._quota is not None:
            self._quota.take(session.remote_address)
        self._sessions[session.id] = session
        self.heartbeat_timer.start()
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("= %s: open over %s, revision %d", shorten(session.id), transport.name, session.protocol)
        sid, others = encode_basestring_ascii(session.id), self._open_data.get((transport.name, may_upgrade))
        if others is None:
            others = self._describe_opening(transport.name, may_upgrade)
        first = [Packet(PacketType.OPEN, f'{{"sid":{sid},{others}', compress=False)]
        if self.options.initial_packet is not None:
            first.append(Packet(PacketType.MESSAGE, self.options.initial_packet))
        session.open(transport, first)
        self.observers.on_open(session)
        session.inbox.queue_call(self._connected, session)

    def _describe_opening(self, transport: str, may_upgrade: bool) -> str:
        """What open packets say behind the session id, up to the end of the object. It is made once for each transport."""
        options = self.options
        names = self.upgrades(transport) if may_upgrade or self._offered else []
        data = json.dumps({
            "upgrades": [name for name in names if may_upgrade or name in BESIDE_HTTP],
            "pingInterval": round(options.ping_interval * 1000),
            "pingTimeout": round(options.ping_timeout * 1000),
            "maxPayload": options.max_http_buffer_size,
        }, separators=(",", ":"))
        self._open_data[transport, may_upgrade] = others = data[1:]
        return others

    def upgrades(self, transport: str) -> list[str]:
        """The names of the transports that a session may upgrade to from ``transport``."""
        if not self.options.allow_upgrades:
            return []
        return [name for name in transports[transport].upgrades_to if name in self.options.transports
                and (name not in BESIDE_HTTP or name in self._offered)]

    def offer(self, name: str) -> None:
        """Offer upgrades to a transport from now on, because what serves it has started."""
        self._offered.add(name)
        self._open_data.clear()

    def withdraw(self, name: str) -> None:
        """Do not offer them any more."""
        self._offered.discard(name)
        self._open_data.clear()

    def _connected(self, session: Session) -> None:
        """Call the ``connection`` listeners, in the first turn of the session."""
        if self._introduce(session, "connection") and not session.closed:
            session.inbox.notify("open")

    def _resumed(self, session: Session) -> None:
        """Call the ``resume`` listeners, in the first turn of a session that comes from another process."""
        self._introduce(session, "resume")

    def tell_leave(self, session: Session) -> None:
        """In the session's turn: call the ``leave`` listeners. A failure is logged, and the session moves all the same."""
        try:
            self.events.emit("leave", session.socket)
        except LISTENER_ERRORS as error:
            if not session.inbox.is_own(error):
                logger.exception(failure_text(error, "the session moves to another worker"), "leave")

    def _introduce(self, session: Session, event: str) -> bool:
        """Call the listeners by which the application gets to know a session. If one fails, close the session."""
        emit: Listener = self.events.emit
        if self.observers.of_listeners:
            emit = self.observers.stand_in(session, event, emit)
        try:
            emit(event, session.socket)
        except LISTENER_ERRORS as error:
            if not session.inbox.is_own(error):
                logger.exception(failure_text(error, "the session is closed"), event)
                # a client that polls is told so by its next poll
                session.end_when_drained(CloseReason.APPLICATION_ERROR, error)
            return False
        return True

    def resume(self, session: Session, transport: Transport, snapshot: SessionSnapshot) -> None:
        """Add a session that comes from another process, and let it go on over ``transport``.

        Raises:
            ValueError: the snapshot is not valid.
        """
        # before the session schedules its heartbeat: the timer counts from its start
        self.heartbeat_timer.start()
        session.resume(transport, snapshot)
        if self._quota is not None:
            self._quota.add(session.remote_address)
        self._sessions[session.id] = session
        for group in snapshot.groups:
            self.groups.join(session, group)
        self.observers.on_moved(session, "in")
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("= %s: came from another worker over %s", shorten(session.id), transport.name)
        session.inbox.queue_call(self._resumed, session)

    def forget(self, session: Session) -> None:
        """Remove a session that has ended."""
        if self._remove(session):
            self.observers.on_closed(session)

    def let_go(self, session: Session) -> None:
        """Remove a session that goes on in another process."""
        if self._remove(session):
            self.observers.on_moved(session, "out")

    def _remove(self, session: Session) -> bool:
        is_here = self._sessions.pop(session.id, None) is not None
        if is_here:
            self.groups.leave_all(session)
            if self._quota is not None:
                self._quota.give_back(session.remote_address)
        if not self._sessions:
            self.heartbeat_timer.stop()
            if self._emptied is not None:
                self._emptied.set()
        return is_here

    # -- all sessions

    def watch_buffers(self) -> None:
        """Have the write buffers of all sessions report what they write: there are listeners of ``flush`` or ``drain``."""
        for session in self._sessions.values():
            session.outbox.watch()

    def receivers(self, group: str | None) -> Collection[Session]:
        """The sessions of this process in a group; ``None`` for all."""
        return self._sessions.values() if group is None else self.groups.members(group)

    def deliver(self, data: Outgoing, delivery: Delivery) -> None:
        """Send a message or a bundle to sessions of this process, encoded once. Never blocks. Any thread may call this.

        Raises:
            UsageError: this process was forked from the one that has the sessions.
            BundleTooLarge: the bundle is larger than ``max_buffered``.
        """
        check_fits(data, self.options.max_buffered)
        message = prepare(data, delivery.compress, delivery.key)
        if self.hub is None:
            self.check_not_forked()
            return
        if current_thread() != self.thread:
            self.hub.loop.run_callback_threadsafe(self._deliver, message, delivery)
        else:
            self._deliver(message, delivery)

    def deliver_to_some(self, data: Outgoing, delivery: Delivery, belongs: Callable[[str], bool]) -> int:
        """As :meth:`deliver`, to those sessions only whose id ``belongs``. Returns their number. For the hub's thread only.

        Raises:
            BundleTooLarge: the bundle is larger than ``max_buffered``.
        """
        check_fits(data, self.options.max_buffered)
        receivers = [session for session in self.receivers(delivery.to) if belongs(session.id)]
        if receivers:
            self._broadcasts.deliver(prepare(data, delivery.compress, delivery.key), delivery, receivers)
        return len(receivers)

    def check_not_forked(self) -> None:
        """Raise `UsageError` in a forked child, from which a message to sessions of its parent would be lost without a notice."""
        if self.forked:
            raise UsageError("the sessions are those of the process that this one was forked from: reach them with the option "
                             "cluster, or by engineio_wsgi.Emitter")

    def _deliver(self, message: Prepared, delivery: Delivery) -> None:
        self._broadcasts.deliver(message, delivery, self.receivers(delivery.to))

    def deliver_to(self, sessions: Collection[Session], message: Prepared, on_slow: OnSlow) -> None:
        """Send one message to some sessions of this process. Never blocks. For the hub's thread only."""
        self._broadcasts.send(message, list(sessions), on_slow)

    def stop_opening(self) -> None:
        """Open no more sessions: handshakes are answered with 503 from now on."""
        self.closing = True

    def close_all(self, timeout: float, at_once: bool = False) -> None:
        """Close every session once its client has fetched what is left, and after ``timeout`` seconds in any case.

        The sessions are closed one by one, at the rate of the option ``drain_rate``. Blocks until they are closed and their
        ``close`` listeners have returned; for these it waits 2 seconds at most.

        Args:
            timeout: seconds for all of it.
            at_once: whether all sessions are told in the same moment.
        """
        # with a timeout of 0, too, the loop has to run once for clients that wait for an answer
        deadline = Deadline(max(timeout, LOOK_PERIOD))
        sessions = list(self._sessions.values())
        if self._emptied is None:
            self._emptied = Event()
        if sessions:
            self._drain(sessions, drain_seconds(len(sessions), None if at_once else self.options.drain_rate, timeout))
        if self._sessions:
            deadline.wait(self._emptied)
        for session in list(self._sessions.values()):
            session.end(CloseReason.SERVER_SHUTTING_DOWN)
        _await_close_listeners(sessions)

    def _drain(self, sessions: list[Session], seconds: float) -> None:
        """Close sessions within so many seconds."""
        self.observers.on_drain()
        logger.info("= the server stops: %d sessions are closed within %.1f s", len(sessions), seconds)
        drain(sessions, seconds, lambda session: session.end_when_drained(CloseReason.SERVER_SHUTTING_DOWN))


def _await_close_listeners(sessions: list[Session]) -> None:
    """Block until the ``close`` listeners of sessions have returned, for 2 seconds at most: another listener may not return."""
    deadline = Deadline(CLOSE_LISTENERS_TIMEOUT)
    while sessions and not deadline.has_passed():
        sessions = [session for session in sessions if not session.state.over]
        gevent.sleep(LOOK_PERIOD if sessions else 0)
