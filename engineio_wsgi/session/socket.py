"""`Socket`: the object that an application has for a session. It is a facade of `session.Session`."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gevent
from werkzeug.wrappers import Request

from engineio_wsgi.errors import SocketClosed, WriteTimeout
from engineio_wsgi.log import shorten
from engineio_wsgi.options.functions import check_function
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.runtime.threads import current_thread, wait_in_thread
from engineio_wsgi.session.environs import keep_environ
from engineio_wsgi.session.event_names import SESSION_EVENTS, check_event
from engineio_wsgi.session.events import HasListeners, Listener
from engineio_wsgi.session.expiry import check_time
from engineio_wsgi.session.groups import check_group
from engineio_wsgi.session.outgoing import Bundle, Data, as_message, check_fits, prepare
from engineio_wsgi.session.plain_messages import MessageSender, plain_first
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import CloseReason, Entry, TrackedPacket, Transport, as_packets, size_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["Socket", "as_message"]

logger = logging.getLogger("engine.socket")

class Socket(HasListeners, MessageSender):
    """One client's session, over whichever transport.

    Its listeners run one after the other, in the order of the messages; each may block. All methods may be called from any
    greenlet; ``send`` and ``close`` also from any OS thread.

    A framework's integration defines a subclass, and names it in its server's ``_socket_class``. It may override ``request`` and
    two hooks: ``_stand_in(function)`` returns the callable that is called in place of a listener, of a function that
    :meth:`spawn` runs, and of the callback of :meth:`send`; ``_before_waiting()`` is called before :meth:`receive` waits.
    ``_environ`` is the environ of the handshake.

    Example::

        @server.on("connection")
        def connected(socket):
            for message in socket:
                socket.send(message)
    """

    __slots__ = ("__weakref__", "_data", "_kept", "_request", "_session")

    _known_events = SESSION_EVENTS

    def __init__(self, session: Session, environ: WSGIEnvironment | Callable[[], WSGIEnvironment]) -> None:
        self._session = session
        self._queue = session.outbox
        #: the environ of the handshake, or what makes it: most applications never look at it
        self._kept = environ if callable(environ) else keep_environ(environ, self)
        self._request: Request | None = None
        self._data: dict[Any, Any] | None = None  # as of `data`, below

    def __repr__(self) -> str:
        return f"<Socket {self.id[:6]}… {self.ready_state}>"

    @property
    def _environ(self) -> WSGIEnvironment:
        kept = self._kept
        if callable(kept):
            kept = self._kept = keep_environ(kept(), self)
        return kept

    # -- hooks for subclasses

    def _stand_in(self, function: Listener) -> Listener:
        """Return the callable that is called in place of an application's function: itself, or an `events.StandIn`."""
        return function

    def _before_waiting(self) -> None:
        """Called before the greenlet that receives waits for the client."""

    # -- properties

    @property
    def id(self) -> str:
        """The session id. It is a credential."""
        return self._session.id

    @property
    def server(self) -> Any:  # the `Server`, which this room must not know
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
        """The transport in use; its ``name`` is ``"polling"``, ``"websocket"`` or ``"flashsocket"``."""
        return self._session.transport

    @property
    def remote_address(self) -> str | None:
        """The client's address: ``REMOTE_ADDR`` of the handshake's request."""
        return self._session.remote_address

    @property
    def data(self) -> dict[Any, Any]:  # the application's own keys and values
        """A dict for the application's own data."""
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def groups(self) -> frozenset[str]:
        """The groups that the session is in."""
        session = self._session
        return session.registry.groups.of(session)

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
        """Why the session ended: a :class:`CloseReason`, or the reason given to :meth:`close`; ``None`` before that."""
        return self._session.close_reason

    @property
    def close_description(self) -> object:
        """Details of the close reason: text, an exception, or ``None``. It equals :data:`GOODBYE` if the client said goodbye."""
        return self._session.close_description

    @property
    def upgraded(self) -> bool:
        """Whether the session has moved from one transport to another."""
        return self._session.state.upgraded

    @property
    def upgrading(self) -> bool:
        """Whether an upgrade to another transport is under way."""
        return self._session.state.upgrading

    @property
    def moved(self) -> bool:
        """Whether the session goes on in another process, which has taken the place of this one. It is closed here then."""
        return self._session.state.moved

    @property
    def buffered(self) -> int:
        """Bytes that were sent and that the kernel has not accepted yet."""
        return self._session.outbox.size

    @property
    def write_buffer(self) -> list[Packet]:
        """The packets that have not been written yet; in a ``close`` listener, those that will not be."""
        session = self._session
        entries = session.outbox.entries
        if not session.closed:
            entries = session.transport.unsent_entries() + entries
        return as_packets(entries)

    # -- listeners

    def _add(self, event: str, listener: Listener, once: bool) -> None:
        self._session.inbox.add(event, self._stand_in(listener), once)

    def off(self, event: str | None = None, listener: Listener | None = None) -> None:
        """Remove one listener, all of an event, or (without arguments) all. Unknown ones are ignored."""
        self._session.inbox.off(event, listener)

    def listeners(self, event: str) -> list[Listener]:
        """The listeners of ``event``, in the order in which they are called."""
        return self._session.inbox.listeners(event)

    def emit(self, event: str, *args: object) -> bool:
        """Call the listeners of ``event`` now, in this greenlet; returns whether there were any.

        An exception that a listener raises is propagated, and the listeners after it are not called.

        Raises:
            ConfigurationError: there is no such event.
        """
        check_event(event, SESSION_EVENTS)
        return self._session.inbox.emit(event, *args)

    # -- sending

    @plain_first
    def send(self, data: Data | Bundle, *, compress: bool = True,
             callback: Callable[[], object] | None = None, timeout: float | None = None, volatile: bool = False) -> Socket:
        """Send one message: ``str`` is text, bytes-like is binary. Or several that stay adjacent: a :class:`Bundle`.

        Does not wait for the network unless ``max_buffered`` bytes are buffered for the client: then it blocks until there is
        room.

        Args:
            data: the message, or the bundle. Lone surrogates in text are replaced by U+FFFD.
            compress: whether the transport may compress it.
            callback: called once, as a listener is, when the message, or the whole bundle, has been written.
            timeout: seconds to wait for room; ``None`` waits until there is room or the session ends.
            volatile: drop the message, and do not wait, if there is no room.

        Raises:
            SocketClosed: the session is closing or closed.
            WriteTimeout: no room within ``timeout`` seconds; the message was not queued.
            TypeError: ``data`` has another type.
            BundleTooLarge: the bundle is larger than ``max_buffered``.
        """
        if compress and callback is None and self._queue.put_message(data):
            # nearly always: what follows is for all other messages
            return self
        session = self._session
        if session.registry.observers.of_sends:
            size = data.size if isinstance(data, Bundle) else size_of(as_message(data))
            with session.registry.observers.sending(session, size):
                return self._send(data, compress, callback, timeout, volatile)
        return self._send(data, compress, callback, timeout, volatile)

    write = send

    def _send(self, data: Data | Bundle, compress: bool, callback: Callable[[], object] | None, timeout: float | None,
              volatile: bool) -> Socket:
        """Send a message of any kind, or a bundle."""
        if isinstance(data, Bundle):
            self._put(self._bundle_entry(data, compress, callback), data.size, timeout, volatile)
            return self
        message = data if type(data) is str or type(data) is bytes else as_message(data)
        entry = message if compress and callback is None else self._special_entry(message, compress, callback)
        self._put(entry, size_of(message), timeout, volatile)
        return self

    def _put(self, entry: Entry, size: int, timeout: float | None, volatile: bool) -> None:
        """Queue an entry of ``size`` bytes: see :meth:`send`."""
        session = self._session
        outbox = session.outbox
        if outbox.size >= outbox.limit and not self._wait_for_room(timeout, volatile):
            return
        if session.thread != current_thread():
            if not session.append_from_thread(entry, size):
                self._require_open()
            return
        session.append(session.announce(entry) if session.creation_watched else entry, size)

    def _bundle_entry(self, bundle: Bundle, compress: bool, callback: Callable[[], object] | None) -> Entry:
        """The entry of a bundle."""
        check_fits(bundle, self._session.registry.options.max_buffered)
        entry = prepare(bundle, compress)
        if callback is None:
            return entry
        check_function("a callback of send()", callback)
        return entry.variant(callback=self._stand_in(callback))

    def _special_entry(self, data: str | bytes, compress: bool, callback: Callable[[], object] | None) -> Entry:
        """The entry of a message that is not to be compressed, or that has a callback."""
        packet = Packet(PacketType.MESSAGE, data, compress)
        if callback is None:
            return packet
        check_function("a callback of send()", callback)
        return TrackedPacket(packet, self._stand_in(callback))

    def _wait_for_room(self, timeout: float | None, volatile: bool) -> bool:
        """Block until there is room in the write buffer. Returns ``False`` at once if the message is ``volatile``.

        Raises:
            SocketClosed: the session is closing or closed.
            WriteTimeout: no room within ``timeout`` seconds.
        """
        session = self._session
        outbox = session.outbox
        self._require_open()
        if volatile:
            return False
        if session.thread != current_thread():
            self._wait_in_thread(timeout)
            return True
        if gevent.getcurrent() is gevent.get_hub():
            raise WriteTimeout("the write buffer is full, and the event loop cannot block")
        deadline = Deadline(timeout)
        while outbox.size >= outbox.limit:
            session.transport.wake()
            if deadline.has_passed():
                raise WriteTimeout(f"the write buffer stayed full for {timeout:g} s")
            session.wait_progress(deadline.left)
            self._require_open()
        return True

    def _require_open(self) -> None:
        if not self._session.state.is_open:
            raise SocketClosed(reason=self.close_reason, sid=self.id)

    def _wait_in_thread(self, timeout: float | None) -> None:
        outbox = self._session.outbox
        deadline = Deadline(timeout)
        while outbox.size >= outbox.limit:
            self._require_open()
            if deadline.has_passed():
                raise WriteTimeout(f"the write buffer stayed full for {timeout:g} s")
            wait_in_thread()

    def flush(self, timeout: float | None = None) -> bool:
        """Block until all that was sent has been written; ``False`` if ``timeout`` seconds passed first.

        Raises:
            SocketClosed: the session ended before that.
        """
        session = self._session
        deadline = Deadline(timeout)
        while session.outbox.size:
            if session.closed:
                raise SocketClosed("the session ended before everything was written", self.close_reason, self.id)
            if session.outbox.entries:
                session.transport.wake()
            if deadline.has_passed():
                return False
            session.wait_progress(deadline.left)
        return True

    # -- groups

    def join(self, group: str) -> None:
        """Add the session to a group: ``server.broadcast(data, to=group)`` reaches it. Any thread may call this.

        The session leaves its groups when it closes. Nothing happens if it is a member already.

        Args:
            group: any text but an empty one. A group exists as long as it has a member.

        Raises:
            SocketClosed: the session is closing or closed.
            TypeError, ValueError: ``group`` is no name of a group.
        """
        self._session.join(check_group(group))

    def leave(self, group: str) -> None:
        """Remove the session from a group; nothing happens if it is no member. Any thread may call this."""
        session = self._session
        session.registry.groups.leave(session, group)

    # -- receiving

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message, in sessions without a ``message`` listener. Blocks until there is one.

        Raises:
            SocketClosed: the session is closing or closed, and no message is left.
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
        """Iterate over the messages as they arrive, until the session ends."""
        while True:
            try:
                yield self.receive()
            except SocketClosed:
                return

    # -- greenlets, and the end

    def spawn(self, function: Callable[..., object], *args: object, **kwargs: object) -> gevent.Greenlet:
        """Run ``function`` in a greenlet that is killed when the session closes.

        Raises:
            SocketClosed: it is closed already.
            ConfigurationError: ``function`` is a coroutine function, or makes a generator: its body would never run.
        """
        check_function("what spawn() runs", function)
        task = gevent.Greenlet(self._run_spawned, self._stand_in(function), *args, **kwargs)
        self._session.spawn(task)
        return task

    def _run_spawned(self, function: Callable[..., object], *args: object, **kwargs: object) -> object:
        """Run ``function``. It may find the session closed before it is killed, which is no error."""
        try:
            return function(*args, **kwargs)
        except SocketClosed as error:
            if not self._session.inbox.is_own(error):
                raise
            logger.debug("= %s: a spawned greenlet found the session closed", shorten(self.id))
            return None

    def expire_at(self, at: float | None) -> None:
        """Let the session expire at a time, such as that of the token by which the client has authenticated.

        The ``expire`` listeners are called then, without an argument. Unless one of them calls this method, the session is closed
        with the reason ``"authentication expired"``, once its client has received what is buffered. Any thread may call this.

        Args:
            at: seconds since the epoch, like :func:`time.time` and the claim ``exp`` of a JSON Web Token (RFC 7519, 4.1.4). It
                replaces an earlier one; ``None``: the session does not expire. A time that has passed is due at once. Later
                changes of the system's clock have no effect.

        Raises:
            TypeError: it is no number.
            ValueError: it is no time in seconds.
            SocketClosed: the session is closing or closed.
        """
        time = check_time(at)
        session = self._session
        if session.state.closing or session.state.closed:
            raise SocketClosed(reason=self.close_reason, sid=self.id)
        if session.thread != current_thread():
            session.loop.run_callback_threadsafe(session.expire_at, time)
        else:
            session.expire_at(time)

    def close(self, discard: bool = False, reason: str | None = None) -> Socket:
        """End the session. Does not block; see :meth:`wait_closed`.

        Args:
            discard: whether to drop what is buffered, instead of waiting until the client has received it.
            reason: the close reason, instead of ``"forced close"``.
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
        """Block until the session has ended; ``False`` if ``timeout`` seconds passed first."""
        deadline = Deadline(timeout)
        while not self.closed:
            if deadline.has_passed():
                return False
            self._session.wait_progress(deadline.left)
        return True

