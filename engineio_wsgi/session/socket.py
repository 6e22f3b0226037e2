"""`Socket`: what the application sees of a session. It has a `session.Session`, and is none."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

import gevent
from werkzeug.wrappers import Request

from engineio_wsgi.deadline import Deadline
from engineio_wsgi.errors import SocketClosed, WriteTimeout
from engineio_wsgi.log import shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.threads import current_thread, wait_in_thread
from engineio_wsgi.session.events import Listener, check_listener
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import CloseReason, Entry, TrackedPacket, Transport, as_packet, size_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["Socket", "as_message"]

L = TypeVar("L", bound=Listener)

logger = logging.getLogger("engine.socket")

#: what a request's environ holds only while it is being answered; keeping it would keep the connection's buffers
TRANSIENT = frozenset({
    "wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.websocket", "wsgi.input_terminated", "engineio.socket",
    "gunicorn.socket", "gunicorn.sock", "wsgi.early_hints", "werkzeug.request",
})


class Socket:
    """One client's session, whatever carries it at the moment.

    Its listeners run one after the other, in an order that follows the messages; each may block. All methods may be
    called from any greenlet; ``send`` and ``close`` from any OS thread, too.

    A framework's integration makes a subclass, and names it in its server's ``_socket_class``. It may override ``request``, and
    these hooks: ``_stand_in(function)`` returns what is called for a listener, for what :meth:`spawn` runs, and for the callback
    of :meth:`send`; ``_before_waiting()`` is called when :meth:`receive` is about to wait. ``_environ`` is the handshake's.

    Example::

        @server.on("connection")
        def connected(socket):
            for message in socket:
                socket.send(message)
    """

    __slots__ = ("__weakref__", "_data", "_environ", "_request", "_session")

    def __init__(self, session: Session, environ: WSGIEnvironment) -> None:
        self._session = session
        self._environ = {key: value for key, value in environ.items() if key not in TRANSIENT}
        self._request: Request | None = None
        self._data: dict[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<Socket {self.id[:6]}… {self.ready_state}>"

    # -- hooks for subclasses

    def _stand_in(self, function: Listener) -> Listener:
        """What is called for a function of the application's: itself, or an `events.StandIn` that calls it in some context."""
        return function

    def _before_waiting(self) -> None:
        """The greenlet that receives is about to wait for the client."""

    # -- what it is

    @property
    def id(self) -> str:
        """The session id. It is a credential."""
        return self._session.id

    @property
    def server(self) -> Any:
        """The :class:`Server` that the session belongs to."""
        return self._session.registry.server

    @property
    def request(self) -> Request:
        """The handshake's request, without its body."""
        if self._request is None:
            environ = dict(self._environ)
            environ["wsgi.input"] = io.BytesIO()
            self._request = Request(environ)
        return self._request

    @property
    def protocol(self) -> int:
        """The protocol revision, 1 to 4."""
        return self._session.protocol

    @property
    def transport(self) -> Transport:
        """What carries the session at the moment; its ``name`` is ``"polling"``, ``"websocket"`` or ``"flashsocket"``."""
        return self._session.transport

    @property
    def remote_address(self) -> str | None:
        """The client's address, as the handshake's request has it."""
        return self._session.remote_address

    @property
    def data(self) -> dict[Any, Any]:
        """A dict for the application."""
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def ready_state(self) -> str:
        """``"opening"``, ``"open"``, ``"closing"`` or ``"closed"``."""
        return self._session.state.ready

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return self._session.state.closed

    @property
    def close_reason(self) -> str | None:
        """Why the session has ended: a :class:`CloseReason`, or what :meth:`close` was given; ``None`` if it has not."""
        return self._session.close_reason

    @property
    def close_description(self) -> object:
        """What is known of the reason besides; ``None`` if nothing is."""
        return self._session.close_description

    @property
    def upgraded(self) -> bool:
        """Whether the session has moved from one transport to another."""
        return self._session.state.upgraded

    @property
    def upgrading(self) -> bool:
        """Whether another transport is being tried at the moment."""
        return self._session.state.upgrading

    @property
    def buffered(self) -> int:
        """Bytes that were sent and that the kernel has not taken yet."""
        return self._session.outbox.size

    @property
    def write_buffer(self) -> list[Packet]:
        """The packets that have not been written; in a ``close`` listener, those that never were."""
        session = self._session
        entries = session.outbox.entries
        if not session.closed:
            entries = session.transport.unsent_entries() + entries
        return [as_packet(entry) for entry in entries]

    # -- listeners

    @overload
    def on(self, event: str) -> Callable[[L], L]:
        """As a decorator."""

    @overload
    def on(self, event: str, listener: L) -> L:
        """With the listener."""

    def on(self, event: str, listener: L | None = None) -> L | Callable[[L], L]:
        """Call ``listener`` at each ``event``; without one, a decorator. Returns the listener."""
        if listener is None:
            return lambda decorated: self.on(event, decorated)
        check_listener(event, listener)
        self._session.inbox.on(event, self._stand_in(listener))
        return listener

    @overload
    def once(self, event: str) -> Callable[[L], L]:
        """As a decorator."""

    @overload
    def once(self, event: str, listener: L) -> L:
        """With the listener."""

    def once(self, event: str, listener: L | None = None) -> L | Callable[[L], L]:
        """As :meth:`on`, for the next ``event`` only."""
        if listener is None:
            return lambda decorated: self.once(event, decorated)
        check_listener(event, listener)
        self._session.inbox.once(event, self._stand_in(listener))
        return listener

    def off(self, event: str | None = None, listener: Listener | None = None) -> None:
        """Remove one listener, all of an event, or (without arguments) all. Unknown ones are ignored."""
        self._session.inbox.off(event, listener)

    def listeners(self, event: str) -> list[Listener]:
        """The listeners of ``event``, in the order in which they are called."""
        return self._session.inbox.listeners(event)

    def emit(self, event: str, *args: object) -> bool:
        """Call the listeners of ``event`` now, in this greenlet; returns whether there were any.

        An exception of a listener reaches the caller, and the listeners after it are not called.
        """
        return self._session.inbox.emit(event, *args)

    # -- sending

    def send(self, data: str | bytes | bytearray | memoryview, *, compress: bool = True,
             callback: Callable[[], object] | None = None, timeout: float | None = None) -> Socket:
        """Send one message: ``str`` is text, bytes-like is binary.

        Does not wait for the network, unless ``max_buffered`` bytes wait for the client already: then it blocks its
        caller until there is room.

        Args:
            data: the message. Text that is not valid Unicode has its lone surrogates replaced.
            compress: whether the transport may compress it.
            callback: called once, in the session's turn, when the message has been written out.
            timeout: seconds to wait for room; ``None`` waits until there is room or the session has ended.

        Raises:
            SocketClosed: the session is closing or closed.
            WriteTimeout: no room within ``timeout`` seconds; the message was not queued.
            TypeError: ``data`` is something else.
        """
        message = data if type(data) is str or type(data) is bytes else as_message(data)
        # asked here, not in size_of: a call would be a fifth of what an ASCII message costs
        size = len(message) if message.isascii() else size_of(message)
        entry: Entry = message if compress and callback is None else self._special_entry(message, compress, callback)
        session = self._session
        if session.thread != current_thread():
            self._send_from_thread(entry, size, timeout)
            return self
        outbox = session.outbox
        if outbox.size >= outbox.limit:
            self._wait_for_buffer(timeout)
        if session.creation_watched:
            entry = session.announce(entry)
        outbox.put(entry, size)
        return self

    write = send

    def _special_entry(self, data: str | bytes, compress: bool, callback: Callable[[], object] | None) -> Entry:
        """A message that there is something special about."""
        packet = Packet(PacketType.MESSAGE, data, compress)
        if callback is None:
            return packet
        self._session.outbox.watch()
        return TrackedPacket(packet, self._stand_in(callback))

    def _wait_for_buffer(self, timeout: float | None) -> None:
        """Block the caller until there is room.

        Raises:
            SocketClosed: there will be none: the session is ending.
        """
        session = self._session
        outbox = session.outbox
        self._require_open()
        if gevent.getcurrent() is gevent.get_hub():
            raise WriteTimeout("the write buffer is full, and the event loop itself cannot wait")
        deadline = Deadline(timeout)
        while outbox.size >= outbox.limit:
            session.transport.wake()
            if deadline.has_passed():
                raise WriteTimeout(f"the write buffer stayed full for {timeout:g} s")
            session.wait_progress(deadline.left)
            self._require_open()

    def _require_open(self) -> None:
        if not self._session.state.is_open:
            raise SocketClosed(reason=self.close_reason)

    def _send_from_thread(self, entry: Entry, size: int, timeout: float | None) -> None:
        outbox = self._session.outbox
        deadline = Deadline(timeout)
        while outbox.size >= outbox.limit:
            self._require_open()
            if deadline.has_passed():
                raise WriteTimeout(f"the write buffer stayed full for {timeout:g} s")
            wait_in_thread()
        self._session.append_from_thread(entry, size)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was sent has been written out; ``False`` when ``timeout`` seconds passed first.

        Raises:
            SocketClosed: the session ended with something unsent.
        """
        session = self._session
        deadline = Deadline(timeout)
        while session.outbox.size:
            if session.closed:
                raise SocketClosed("the session ended before everything was written", self.close_reason)
            if session.outbox.entries:
                session.transport.wake()
            if deadline.has_passed():
                return False
            session.wait_progress(deadline.left)
        return True

    # -- receiving

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message, for sessions without a ``message`` listener. Blocks until there is one.

        Raises:
            SocketClosed: the session has ended (or is closing) and nothing is left to receive.
            TimeoutError: ``timeout`` seconds passed.
            UsageError: another greenlet is receiving already.
        """
        inbox = self._session.inbox
        deadline = Deadline(timeout)
        while not inbox.messages:
            if not inbox.run_own_call():
                self._require_open()
                self._wait_for_message(deadline)
        return inbox.next_message()

    def _wait_for_message(self, deadline: Deadline) -> None:
        if deadline.has_passed():
            raise TimeoutError("no message arrived in time")
        self._before_waiting()
        self._session.inbox.wait_for_message(deadline.left)

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages, as they come; ends when the session does."""
        while True:
            try:
                yield self.receive()
            except SocketClosed:
                return

    # -- the rest of its life

    def spawn(self, function: Callable[..., object], *args: object, **kwargs: object) -> gevent.Greenlet:
        """Run ``function`` in a greenlet that is killed when the session closes.

        Raises:
            SocketClosed: it has closed already.
        """
        task = gevent.Greenlet(self._run_spawned, self._stand_in(function), *args, **kwargs)
        self._session.spawn(task)
        return task

    def _run_spawned(self, function: Callable[..., object], *args: object, **kwargs: object) -> object:
        """Run ``function``. One that sends before it is killed finds the session closed, which is no failure."""
        try:
            return function(*args, **kwargs)
        except SocketClosed:
            if not self.closed:
                raise
            logger.debug("= %s: a spawned greenlet found the session closed", shorten(self.id))
            return None

    def close(self, discard: bool = False, reason: str | None = None) -> Socket:
        """End the session. Does not block; see :meth:`wait_closed`.

        Args:
            discard: do not let the client fetch first what still waits for it.
            reason: what the ``close`` listeners are told instead of ``"forced close"``.
        """
        session = self._session
        why = CloseReason.FORCED_CLOSE if reason is None else reason
        if session.thread != current_thread():
            session.end_from_thread(why, discard)
        elif discard:
            session.end(why)
        else:
            session.end_when_drained(why)
        return self

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Block until the session has ended; ``False`` when ``timeout`` seconds passed first."""
        deadline = Deadline(timeout)
        while not self.closed:
            if deadline.has_passed():
                return False
            self._session.wait_progress(deadline.left)
        return True


def as_message(data: object) -> str | bytes:
    """``data`` as the type that stands for it on the wire.

    Raises:
        TypeError: it is neither text nor binary.
    """
    if isinstance(data, str):
        return str(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"a message is str (text) or bytes-like (binary), not {type(data).__name__}")

