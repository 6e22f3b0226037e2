"""`Socket`: a session as the application sees it. The half that transports see is `session.Session`."""

from __future__ import annotations

import io
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.hub import Waiter
from werkzeug.wrappers import Request

from engineio_wsgi.clock import monotonic
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.errors import SocketClosed, UsageError, WriteTimeout
from engineio_wsgi.log import shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.session import Host, ReadyState, Session
from engineio_wsgi.threads import current_thread, wait_in_thread
from engineio_wsgi.transports.base import CloseReason, Entry, Prepared, TrackedPacket, as_packet, size_of

__all__ = ["Socket", "as_message"]

logger = logging.getLogger("engine.socket")

#: why a session is closed in a process that was forked from its own
FORKED = "it belongs to the process that this one was forked from"
#: what a request's environ holds only while it is being answered; keeping it would keep the connection's buffers
TRANSIENT = frozenset({
    "wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.websocket", "wsgi.input_terminated", "engineio.socket",
    "gunicorn.socket", "gunicorn.sock", "wsgi.early_hints", "werkzeug.request",
})


class Socket(Session):
    """One client's session, whatever carries it at the moment.

    Its listeners run one after the other, in an order that follows the messages; each may block. All methods may be
    called from any greenlet; ``send`` and ``close`` from any OS thread, too.

    Example::

        @server.on("connection")
        def connected(socket):
            for message in socket:
                socket.send(message)
    """

    __slots__ = ("_data", "_environ", "_request", "_thread")

    def __init__(self, host: Host, sid: str, protocol: int, environ: dict[str, Any]) -> None:
        super().__init__(host, sid, protocol)
        self._environ = {key: value for key, value in environ.items() if key not in TRANSIENT}
        self._request: Request | None = None
        self._data: dict[Any, Any] | None = None
        self._thread = current_thread()

    def __repr__(self) -> str:
        return f"<Socket {self.id[:6]}… {self.state.value}>"

    # -- what it is

    @property
    def server(self) -> Any:
        """The :class:`Server` that the session belongs to."""
        return self.host

    @property
    def request(self) -> Request:
        """The handshake's request, without its body."""
        if self._request is None:
            environ = dict(self._environ)
            environ["wsgi.input"] = io.BytesIO()
            self._request = Request(environ)
        return self._request

    @property
    def remote_address(self) -> str | None:
        """The client's address, as the handshake's request has it."""
        return self._environ.get("REMOTE_ADDR")

    @property
    def data(self) -> dict[Any, Any]:
        """A dict for the application."""
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def ready_state(self) -> str:
        """``"opening"``, ``"open"``, ``"closing"`` or ``"closed"``."""
        return self.state.value

    @property
    def upgrading(self) -> bool:
        """Whether another transport is being tried at the moment."""
        return self.upgrade is not None

    @property
    def buffered(self) -> int:
        """Bytes that were sent and that the kernel has not taken yet."""
        return self.outbox_size

    @property
    def write_buffer(self) -> list[Packet]:
        """The packets that have not been written; in a ``close`` listener, those that never were."""
        entries = self.outbox if self.closed else self.transport.unsent_entries() + self.outbox
        return [as_packet(entry) for entry in entries]

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
        message: Any = data if type(data) in (str, bytes) else as_message(data)
        # asked here, not in size_of: a call would be a fifth of what an ASCII message costs
        size = len(message) if message.isascii() else size_of(message)
        entry: Entry = message if compress and callback is None else self._special_entry(message, compress, callback)
        if self._thread != current_thread():
            self._send_from_thread(entry, size, timeout)
            return self
        if self.outbox_size >= self.max_buffered:
            self._wait_for_buffer(timeout)
        if self.creation_watched:
            entry = self._announce(entry)
        self.outbox.append(entry)
        self.outbox_size += size
        if not self.transport.corked:
            self.transport.wake()
        return self

    write = send

    def send_prepared(self, message: Prepared) -> bool:
        """Queue one message of a broadcast, without waiting; ``False`` if the client was too slow and is dropped."""
        if self.state is not ReadyState.OPEN:
            return True
        if self.outbox_size >= self.max_buffered:
            self.end(CloseReason.CLIENT_TOO_SLOW, "its write buffer was full when a broadcast came")
            return False
        self.append(message, message.size)
        return True

    def _special_entry(self, data: str | bytes, compress: bool, callback: Callable[[], object] | None) -> Entry:
        """A message that there is something special about."""
        packet = Packet(PacketType.MESSAGE, data, compress)
        if callback is None:
            return packet
        self.watched = True
        return TrackedPacket(packet, callback)

    def _announce(self, entry: Entry) -> Entry:
        """Let ``packet_create`` listeners see, and change, what is about to be queued."""
        packet = as_packet(entry)
        self.emit("packet_create", packet)
        return packet

    def _wait_for_buffer(self, timeout: float | None) -> None:
        """Block the caller until there is room.

        Raises:
            SocketClosed: there will be none: the session is ending.
        """
        if self.state is not ReadyState.OPEN:
            raise SocketClosed(reason=self.close_reason)
        if gevent.getcurrent() is self._hub:
            raise WriteTimeout("the write buffer is full, and the event loop itself cannot wait")
        deadline = Deadline(timeout)
        while self.outbox_size >= self.max_buffered:
            self.transport.wake()
            if deadline.has_passed():
                raise WriteTimeout(f"the write buffer stayed full for {timeout:g} s")
            self.wait_progress(deadline.left)
            if self.state is not ReadyState.OPEN:
                raise SocketClosed(reason=self.close_reason)

    def _send_from_thread(self, entry: Entry, size: int, timeout: float | None) -> None:
        deadline = Deadline(timeout)
        while self.outbox_size >= self.max_buffered:
            if self.state is not ReadyState.OPEN:
                raise SocketClosed(reason=self.close_reason)
            if deadline.has_passed():
                raise WriteTimeout(f"the write buffer stayed full for {timeout:g} s")
            wait_in_thread()
        self._loop.run_callback_threadsafe(self._append_if_open, entry, size)

    def _append_if_open(self, entry: Entry, size: int) -> None:
        if self.state is ReadyState.OPEN:
            self.append(self._announce(entry) if self.creation_watched else entry, size)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was sent has been written out; ``False`` when ``timeout`` seconds passed first.

        Raises:
            SocketClosed: the session ended with something unsent.
        """
        deadline = Deadline(timeout)
        while self.outbox_size:
            if self.closed:
                raise SocketClosed("the session ended before everything was written", self.close_reason)
            if self.outbox:
                self.transport.wake()
            if deadline.has_passed():
                return False
            self.wait_progress(deadline.left)
        return True

    def forsake(self) -> None:
        """In a forked child: the session is the parent's. Nobody is told, nothing is sent, and nothing of it runs any more."""
        self.state = ReadyState.CLOSED
        self.close_reason = FORKED
        self._close_emitted = self.over = True
        self.max_buffered = 0
        self.direct_listeners = ()
        self.heartbeat.stop()
        if self._timer is not None:
            self._timer.close()
        if self.upgrade is not None:
            self.upgrade.abandon(FORKED)
        self.inbox, self.events, self.outbox, self.outbox_size = deque(), deque(), [], 0

    # -- receiving

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message, for sessions without a ``message`` listener. Blocks until there is one.

        Raises:
            SocketClosed: the session has ended (or is closing) and nothing is left to receive.
            TimeoutError: ``timeout`` seconds passed.
            UsageError: another greenlet is receiving already.
        """
        deadline = Deadline(timeout)
        while not self.inbox:
            if self.events and self.busy_with is gevent.getcurrent():
                self.run_event()
            elif self.state is not ReadyState.OPEN:
                raise SocketClosed(reason=self.close_reason)
            else:
                self._wait_for_message(deadline)
        data = self.inbox.popleft()
        if not self.inbox:
            self.inbox_emptied()
        return data

    def _wait_for_message(self, deadline: Deadline) -> None:
        if self.receiver is not None:
            raise UsageError("another greenlet is receiving from this session already")
        if deadline.has_passed():
            raise TimeoutError("no message arrived in time")
        left = deadline.left
        self.receiver = waiter = Waiter()
        timer = None
        if left is not None:
            timer = self._loop.timer(left)
            timer.start(waiter.switch, False)
        try:
            readable = self._pause_turn(waiter)
        finally:
            if self.receiver is waiter:
                self.receiver = None
            if timer is not None:
                timer.close()
        if readable:
            # this greenlet was woken instead of a worker, and reads for itself
            self.transport.read()

    def _pause_turn(self, waiter: Any) -> Any:
        """Wait. Where turns are timed, this is none of the listener's time."""
        meter = self.transport.meter if self.busy_with is gevent.getcurrent() else None
        if meter is None:
            return waiter.get()
        meter.on_turn(self.turn_began)
        try:
            return waiter.get()
        finally:
            self.turn_began = monotonic()

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages, as they come; ends when the session does."""
        while True:
            try:
                yield self.receive()
            except SocketClosed:
                return

    # -- the rest of its life

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> gevent.Greenlet:
        """Run ``function`` in a greenlet that is killed when the session closes.

        Raises:
            SocketClosed: it has closed already.
        """
        if self.closed:
            raise SocketClosed(reason=self.close_reason)
        if self.spawned is None:
            self.spawned = set()
        task = gevent.Greenlet(self._run_spawned, function, *args, **kwargs)
        self.spawned.add(task)
        task.rawlink(self.spawned.discard)
        task.start()
        return task

    def _run_spawned(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
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
        why = CloseReason.FORCED_CLOSE if reason is None else reason
        action = self.end if discard else self.end_when_drained
        if self._thread != current_thread():
            self._loop.run_callback_threadsafe(action, why)
        else:
            action(why)
        return self

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Block until the session has ended; ``False`` when ``timeout`` seconds passed first."""
        deadline = Deadline(timeout)
        while not self.closed:
            if deadline.has_passed():
                return False
            self.wait_progress(deadline.left)
        return True


def as_message(data: Any) -> str | bytes:
    """``data`` as the type that stands for it on the wire.

    Raises:
        TypeError: it is neither text nor binary.
    """
    if isinstance(data, str):
        return str(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"a message is str (text) or bytes-like (binary), not {type(data).__name__}")

