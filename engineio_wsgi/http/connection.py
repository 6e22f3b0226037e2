"""A connection on which HTTP requests arrive: the bytes that were read ahead, and waits with deadlines.

Owns the event-loop watchers of the socket while HTTP is spoken on it. Knows nothing of what the bytes mean. The socket itself
belongs to the server that accepted it, until it is detached.
"""

from __future__ import annotations

import _socket
import os
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

import gevent
from gevent.hub import Hub
from gevent.socket import socket as GeventSocket
from greenlet import getcurrent, greenlet

from engineio_wsgi.http.arrivals import Arrivals, arrivals_of
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.runtime.loop import READ, WRITE, IoLoop, Stream, Watcher
from engineio_wsgi.vendors.gevent_sockets import c_socket, forget_descriptor, is_tls, tls_object

__all__ = ["HttpConnection"]

#: bytes of one ``recv``
RECV_SIZE = 65_536

_switch = greenlet.switch


def _receive_nothing(size: int) -> bytes:
    """In the place of the ``recv`` of a connection that another process has."""
    return b""


class HttpConnection:
    """The non-blocking socket inside a gevent socket, with waits for the one greenlet that serves it.

    It waits first, then reads, except for the first request: a ``recv`` that fails costs more than a turn of the loop, and a
    client that sends without a pause would keep the others waiting.
    """

    __slots__ = ("_arrivals", "_deadline", "_due", "_greenlet", "_hub", "_is_queued", "_on_ready", "_owner", "_parked", "_timer",
                 "_watcher", "_watching", "buffer", "has_ended", "lost", "raw", "recv", "send", "serves_session")

    def __init__(self, sock: GeventSocket, read_ahead: bytes = b"") -> None:
        self._owner: GeventSocket | _socket.socket = sock
        #: called in the hub instead of resuming a greenlet, if no greenlet serves the connection
        self._on_ready: Callable[[bool], object] | None = None
        self._hub: Hub = gevent.get_hub()
        self._arrivals: Arrivals = arrivals_of(self._hub)
        #: whether it is among the arrivals
        self._is_queued = False
        #: whether its last request was a session's: then its turn comes before that of other connections
        self.serves_session = False
        self._greenlet: Any = None  # a `greenlet` while it is parked, which is checked before each use
        #: the C socket, or the TLS socket, to watch for the client's end
        self.raw: _socket.socket = sock
        stream: Stream
        if is_tls(sock):
            stream = detach(sock)
        else:
            self.raw = stream = c_socket(sock)
        self.recv = stream.recv
        self.send = stream.send
        #: bytes that were read and are not used yet
        self.buffer = read_ahead
        #: whether writing has failed, because the client has gone away
        self.lost = False
        #: whether it is known that the client sends nothing more
        self.has_ended = False
        self._watcher: Watcher | None = None
        self._watching = False
        self._parked = False
        self._timer: Watcher | None = None
        self._due = inf
        self._deadline = inf

    def no_delay(self) -> None:
        """Set TCP_NODELAY: responses are written in one piece, and need not be collected by the kernel."""
        if self.raw.family in (_socket.AF_INET, _socket.AF_INET6):
            try:
                self.raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            except OSError:
                self.lost = True

    # -- reading

    def keep(self, data: bytes) -> None:
        """Have ``data`` in ``buffer``, and nothing else: bytes that were read and not used."""
        self.buffer = data

    def take(self, size: int) -> bytes:
        """Take up to ``size`` bytes out of ``buffer``."""
        data = self.buffer
        self.buffer = data[size:]
        return data[:size]

    def fill(self, timeout: float) -> bool:
        """Read into an empty ``buffer``. Returns ``False`` after ``timeout`` seconds, or at the end of the stream. Blocks."""
        if self.buffer:
            return True
        try:
            self.buffer = self.receive(timeout)
        except OSError:
            return False
        return self.buffer != b""

    def fill_first(self, timeout: float) -> bool:
        """As :meth:`fill`, for the first request. It has usually arrived with the connection, and no wait has to be set up."""
        if not self.buffer:
            expired = self.give_way()
            try:
                self.buffer = self.recv(RECV_SIZE)
            except BlockingIOError:
                return not expired and self.fill(timeout)
            except OSError:
                return False
        return self.buffer != b""

    def give_way(self) -> bool:
        """Block until what became readable before has been served, and sessions' connections. Returns as :meth:`_park` does."""
        self._is_queued = True
        self._arrivals.add_new(self._resume)
        return self._switch_out()

    def prefer(self, serves_session: bool) -> None:
        """Note whether the last request was a session's."""
        self.serves_session = serves_session

    def receive(self, timeout: float, size: int = RECV_SIZE) -> bytes:
        """Wait for bytes and read them; ``b""`` at the end of the stream.

        Bytes that are there when the time is over are read: the loop may have seen them too late. With a timeout of 0 there is no
        wait. A timer that is due before the deadline is kept, and checks the deadline then: a busy connection sets it once in a
        timeout and not with every request.

        Raises:
            TimeoutError: nothing came for ``timeout`` seconds.
            OSError: the connection is lost.
        """
        expired = timeout <= 0
        # not the loop's time: it stands still while the loop is blocked, and the client would get less time
        deadline = self._deadline = monotonic() + timeout
        if deadline < self._due and not expired:
            self._arm(deadline)
        while True:
            if not expired:
                expired = self._park()
            try:
                return self.recv(size)
            except BlockingIOError:
                if expired:
                    raise TimeoutError(f"nothing came for {timeout:g} s") from None

    def hold(self) -> None:
        """Have no deadline from now on, until :meth:`expect` or :meth:`receive` sets one."""
        self._deadline = inf

    def expect(self, timeout: float) -> None:
        """Let :meth:`wait` end after ``timeout`` seconds. Does not block."""
        deadline = self._deadline = monotonic() + timeout
        if deadline < self._due:
            self._arm(deadline)

    def wait(self) -> bool:
        """Block until there may be bytes to read, or :meth:`wake` is called, or the deadline passes; returns whether it has."""
        return self._park()

    def wake(self) -> None:
        """In the hub: switch to the greenlet that blocks in :meth:`wait`, if it does."""
        if self._parked:
            self._greenlet.switch()

    def _park(self) -> bool:
        """Wait for bytes, or for the deadline. Returns whether the deadline has passed."""
        if not self._watching:
            self._watch()
        return self._switch_out()

    def _switch_out(self) -> bool:
        self._greenlet = getcurrent()
        self._parked = True
        try:
            return _switch(self._hub) is inf
        finally:
            self._parked = False

    def stop_waiting(self) -> None:
        """End a wait for the first bytes of a request, as if its time were over. Does not block.

        Bytes that have arrived are still read. Nothing is ended when ``buffer`` has bytes: a request has begun.
        """
        self._hub.loop.run_callback(self._expire)

    def _expire(self) -> None:
        if not self.buffer:
            self._end_wait()

    def _end_wait(self) -> None:
        if self._parked:
            self._greenlet.switch(inf)
        elif self._on_ready is not None:
            self._on_ready(True)

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = self._hub.loop.io(self.raw.fileno(), READ)
        self._watching = True
        self._watcher.start(self._on_readable)

    def _on_readable(self) -> None:
        """In the hub. The watcher stays active while a request is served, and is stopped only if more bytes arrive."""
        if self._is_queued or not (self._parked or self._on_ready is not None):
            self.unwatch()
            return
        self._is_queued = True
        if self.serves_session:
            self._arrivals.add_session(self._resume)
        else:
            self._arrivals.add_other(self._resume)

    def _resume(self) -> None:
        self._is_queued = False
        # the deadline may have passed since
        if self._parked:
            self._greenlet.switch()
        elif self._on_ready is not None:
            self._on_ready(False)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.close()
        loop: IoLoop = self._hub.loop
        self._due = deadline
        self._timer = loop.timer(max(deadline - monotonic(), 0.001))
        self._timer.start(self._on_timer)

    def _on_timer(self) -> None:
        self._due = inf
        if not self._parked and self._on_ready is None:
            return
        if monotonic() >= self._deadline:
            self._end_wait()
        elif self._deadline != inf:
            self._arm(self._deadline)

    # -- without a greenlet

    @property
    def can_be_released(self) -> bool:
        """Whether it can do without the socket of the server that accepted it: not if that has the state of TLS.

        Nor if it is a Unix socket, which a forked child could not tell from others.
        """
        return self.raw.family in (_socket.AF_INET, _socket.AF_INET6) and not is_tls(self._owner)

    def begin_without_greenlet(self, on_ready: Callable[[bool], object]) -> None:
        """Have ``on_ready`` called, as by :meth:`release`, on a new connection whose socket is a C socket.

        It is called once before anything is waited for: the first bytes have usually arrived with the connection.
        """
        self._on_ready = on_ready
        self._is_queued = True
        self._arrivals.add_new(self._resume)

    def release(self, on_ready: Callable[[bool], object]) -> None:
        """Take the connection away from the server's greenlet, which may end, and watch it.

        Args:
            on_ready: called in the hub with ``False`` whenever there may be bytes to read, and with ``True`` when the time that
                :meth:`expect` has set is over, or :meth:`stop_waiting` was called.
        """
        if type(self._owner) is not _socket.socket:
            raw = _socket.socket(fileno=self._owner.detach())
            raw.setblocking(False)
            self._use(raw)
        self._greenlet = None
        if self._timer is not None:
            self._timer.close()
            self._timer, self._due = None, inf
        self._on_ready = on_ready
        self.watch()

    def regain(self) -> GeventSocket:
        """Have the connection in a gevent socket again, which is returned. Nothing of what is under way changes."""
        raw = self.raw
        sock = GeventSocket(raw.family, raw.type, raw.proto, fileno=self._owner.detach())
        self._use(sock)
        return sock

    def leave_alone(self) -> None:
        """Call ``on_ready`` no more, because a greenlet is about to serve the connection."""
        self._on_ready = None

    def _use(self, sock: GeventSocket | _socket.socket) -> None:
        self._owner = sock
        self.raw = raw = c_socket(sock)
        self.recv, self.send = raw.recv, raw.send

    def watch(self) -> None:
        """Watch for bytes, if it is not watched already."""
        if not self._watching:
            self._watch()

    def unwatch(self) -> None:
        """Leave what arrives with the kernel."""
        self._watching = False
        if self._watcher is not None:
            self._watcher.stop()

    # -- writing

    def send_all(self, data: bytes, timeout: float) -> None:
        """Send all of ``data``. Blocks while the client takes nothing, at most for ``timeout`` seconds at a time.

        Raises:
            TimeoutError: the client took nothing for that long.
            OSError: the connection is lost.
        """
        sent = self.send_now(data)
        if sent != len(data):
            self.send_rest(memoryview(data)[sent:], timeout)

    def send_now(self, data: bytes) -> int:
        """Send as much of ``data`` as the kernel takes now; returns how many bytes that is. Never blocks.

        Raises:
            OSError: the connection is lost.
        """
        try:
            return self.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.lost = True
            raise

    def send_rest(self, data: memoryview, timeout: float) -> None:
        """As :meth:`send_all`, after the kernel has taken only a part."""
        watcher = self._hub.loop.io(self.raw.fileno(), WRITE)
        try:
            while data:
                in_time = self._wait_for(watcher, timeout)
                sent = self._send_some(data)
                if not sent and not in_time:
                    raise TimeoutError(f"the client took nothing for {timeout:g} s")
                data = data[sent:]
        except OSError:
            self.lost = True
            raise
        finally:
            watcher.stop()
            watcher.close()

    def _wait_for(self, watcher: Watcher, timeout: float) -> bool:
        """Returns ``False`` if ``timeout`` seconds passed first."""
        with gevent.Timeout(timeout, False):
            self._hub.wait(watcher)
            return True
        return False

    def _send_some(self, data: memoryview) -> int:
        try:
            return self.send(data)
        except BlockingIOError:
            return 0

    # -- the end

    def detach(self, pending: bytes | None = None) -> Connection:
        """Give the connection away. Nothing else of this object works afterwards.

        Args:
            pending: bytes that are read first from the result; by default those that were read ahead.
        """
        sock, pending = self._owner, self.buffer if pending is None else pending
        self.close_watchers()
        self._owner = None
        self.buffer = b""
        return Connection(sock if type(sock) is _socket.socket else detach(sock), pending)

    def give_away(self) -> int | None:
        """Give the connection to another process, if nothing of a request has been read. Does not block.

        What has arrived and was not read stays with the kernel, for the other process. Here the connection ends soon, as if the
        client had closed it.

        Returns:
            A descriptor, which is the caller's; ``None`` if the connection has to stay.
        """
        is_waiting = self._parked or self._on_ready is not None
        if self.buffer or self.lost or not is_waiting or is_tls(self._owner):
            return None
        number = os.dup(self.raw.fileno())
        forget_descriptor(self.raw.fileno())
        self.unwatch()
        self.recv = _receive_nothing
        self.lost = True
        self._hub.loop.run_callback(self._end_wait)
        return number

    def has_input(self) -> bool:
        """Whether the client has sent bytes that were not used."""
        if self.buffer:
            return True
        if self.has_ended:
            return False
        try:
            self.buffer = self.recv(RECV_SIZE)
        except OSError:
            return False
        return bool(self.buffer)

    def note_end(self) -> None:
        """The client sends nothing more: ``recv`` has returned nothing."""
        self.has_ended = True

    def close(self) -> None:
        """Close the connection. A TLS client gets a close message, or it would take the end for an attack."""
        self.close_watchers()
        tls = tls_object(self._owner)
        if tls is not None and not self.lost:
            with suppress(OSError):
                tls.shutdown()
        self._owner.close()

    def close_watchers(self) -> None:
        """Close the watchers for good. May be called again."""
        for watcher in (self._watcher, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._watcher = self._timer = self._greenlet = self._on_ready = None
        self._watching = False
        self._due = inf
