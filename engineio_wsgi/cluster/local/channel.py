"""Channels between two workers of a machine: messages with a deadline, and file descriptors beside them.

Owns the socket, and splits messages into records. Each request has a channel to itself until it is answered,
so that a slow, stopped or dead worker delays no other request. Closing the channel cancels the request.
"""

from __future__ import annotations

import _socket
import array
import os
import select
import stat
from collections.abc import Callable
from contextlib import suppress

import gevent
from gevent import monkey
from gevent.socket import wait_read, wait_write

from engineio_wsgi.cluster.local.names import belongs_to_us
from engineio_wsgi.cluster.local.records import CLOSE_ON_EXEC, NO_SIGNAL, Ancillary, descriptors_in, make_socket, records_of
from engineio_wsgi.cluster.messages import Kind, Message
from engineio_wsgi.errors import BadMessage, OwnerGone
from engineio_wsgi.http.hub_thread import has_hub
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["PATIENCE", "Channel", "connect", "pause"]

#: seconds that another worker has for everything but the application's answer
PATIENCE = 5.0
#: bytes of a record: far fewer than a socket's buffer takes, so that a long message never waits for an empty buffer
RECORD_SIZE = 32_768
#: file descriptors that are received beside a record; more than one is an error, and all are closed
MAX_DESCRIPTORS = 4
_BESIDE_SIZE = _socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
#: seconds between two attempts to reach a worker whose queue is full, at first and at most
FIRST_RETRY, LAST_RETRY = 0.001, 0.05

READ, WRITE = 1, 2
#: the text of a :class:`TimeoutError`
SILENT = "the other worker does not answer"
_POLL_EVENTS = {READ: select.POLLIN, WRITE: select.POLLOUT}
_poll: Callable[[], select.poll] = monkey.get_original("select", "poll")
_sleep_thread: Callable[[float], None] = monkey.get_original("time", "sleep")


class Channel:
    """One end of a channel. For one greenlet, or one plain thread, at a time.

    Args:
        sock: a connected, non-blocking C socket; it belongs to this object.
    """

    __slots__ = ("_cut_short", "_descriptors", "_records", "_sock")

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._records = records_of(sock, self._keep)
        self._descriptors: list[int] = []
        #: whether the kernel dropped a file descriptor, because this process has too many (unix(7), MSG_CTRUNC)
        self._cut_short = False

    def send(self, message: Message, deadline: float | None = None, descriptor: int | None = None) -> None:
        """Send a message, and a duplicate of a file descriptor with it. Blocks until it has been sent.

        Args:
            deadline: of the monotonic clock; by default :data:`PATIENCE` from now.

        Raises:
            OSError: the other side has closed the channel, or does not read (``TimeoutError``).
            BadMessage: the message is too large.
        """
        deadline = monotonic() + PATIENCE if deadline is None else deadline
        data = memoryview(message.encode())
        beside = [] if descriptor is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        in_time = True
        while data or beside:
            try:
                sent = self._records.sendmsg([data[:RECORD_SIZE]], beside, NO_SIGNAL)
            except BlockingIOError:
                if not in_time:
                    raise TimeoutError(SILENT) from None
                in_time = _wait(self._sock, WRITE, deadline)
            else:
                data, beside = data[sent:], []

    def receive(self, deadline: float) -> Message:
        """The next message. Blocks until all of it has arrived.

        Raises:
            OSError: the other side has closed the channel (``ConnectionError``), or sends nothing (``TimeoutError``).
            BadMessage: what has arrived is not a message.
        """
        return self._receive_rest(self._receive_record(deadline), deadline)

    def await_request(self, patience: float) -> Message | None:
        """The first message of the next request; ``None`` if the channel was closed. Blocks until then.

        Args:
            patience: seconds that the rest of the message may take after its first record.

        Raises:
            OSError: the other side has closed the channel in the middle of the message, or stopped sending (``TimeoutError``).
            BadMessage: what has arrived is not a message.
        """
        try:
            first = self._receive_record(None)
        except ConnectionError:
            return None
        return self._receive_rest(first, monotonic() + patience)

    def _receive_rest(self, first: bytes, deadline: float) -> Message:
        pieces = [first]
        missing = Message.size_of(first) - len(first)
        while missing > 0:
            pieces.append(self._receive_record(deadline))
            missing -= len(pieces[-1])
        return Message.parse(b"".join(pieces))

    def _receive_record(self, deadline: float | None) -> bytes:
        while True:
            # to read before the wait would be useless: no answer comes so fast
            in_time = _wait(self._sock, READ, deadline)
            try:
                data, beside, flags, _ = self._records.recvmsg(RECORD_SIZE, _BESIDE_SIZE, CLOSE_ON_EXEC)
                break
            except BlockingIOError:
                # a record that has arrived is read even if this process is late
                if not in_time:
                    raise TimeoutError(SILENT) from None
        if beside:
            self._keep(beside)
        if flags & _socket.MSG_TRUNC:
            raise BadMessage(f"a record is longer than {RECORD_SIZE} bytes")
        if not data:
            raise ConnectionResetError("the other worker has closed the channel")
        self._cut_short |= bool(flags & _socket.MSG_CTRUNC)
        return bytes(data)

    def _keep(self, beside: Ancillary) -> None:
        """Keep the file descriptors that came beside a record until they are taken or closed."""
        self._descriptors.extend(descriptors_in(beside))

    def ask(self, message: Message, deadline: float, descriptor: int | None = None) -> Message:
        """Send a message, and return the reply. Blocks until then. See :meth:`send` and :meth:`receive`."""
        try:
            self.send(message, deadline, descriptor)
            return self.receive(deadline)
        except TimeoutError:
            reply = self._late_reply()
            if reply is None:
                raise
            return reply

    def _late_reply(self) -> Message | None:
        """Return a reply that has arrived by now, or ``None``; then the other side can send no more."""
        with suppress(OSError):
            try:
                # if this process was late itself, the reply is here, and the channel stays in use
                data = self._records.recv(RECORD_SIZE)
            except BlockingIOError:
                self._sock.shutdown(_socket.SHUT_RD)
                data = self._records.recv(RECORD_SIZE)
            return Message.parse(data) if data else None
        return None

    # -- a request of the other worker: see :class:`Exchange`

    @property
    def client(self) -> dict[str, object]:
        """When the client leaves, the other worker closes the channel."""
        return {"engineio.socket": self._sock}

    def confirm(self) -> None:
        """Blocks until it has been sent."""
        self.send(Message(Kind.TAKEN))

    def finish(self, message: Message) -> None:
        """Blocks until it has been sent."""
        self.send(message)

    def take_connection(self) -> int | None:
        """Blocks until the confirmation has been sent.

        Raises:
            OSError: the other worker does not wait any longer, and may have answered the client itself.
            BadMessage: there is not exactly one file descriptor, or it is not that of a socket.
        """
        if self._cut_short:
            return None
        self._require_socket()
        self.confirm()
        return self._descriptors.pop()

    def _require_socket(self) -> None:
        if len(self._descriptors) != 1:
            raise BadMessage(f"expected one file descriptor, got {len(self._descriptors)}")
        if not stat.S_ISSOCK(os.fstat(self._descriptors[0]).st_mode):
            raise BadMessage("the file descriptor is not that of a socket")

    # -- sessions that move

    def take_descriptor(self) -> int | None:
        """The file descriptor that came beside the last message; ``None`` if there was none, or this process has too many.

        Raises:
            BadMessage: more than one has come, or it is no socket's.
        """
        if not self._descriptors:
            return None
        self._require_socket()
        return self._descriptors.pop()

    def last_messages(self) -> list[Message]:
        """Receive no more. Returns the messages that have arrived, each in one record. The other side can send nothing more."""
        messages: list[Message] = []
        with suppress(OSError, BadMessage):
            self._sock.shutdown(_socket.SHUT_RD)
            while data := self._records.recv(RECORD_SIZE):
                messages.append(Message.parse(data))
        return messages

    # -- the end

    def shut_down(self) -> None:
        """Shut the channel down: waits on either side end with a ``ConnectionError``."""
        with suppress(OSError):
            self._sock.shutdown(_socket.SHUT_RDWR)

    def close_descriptors(self) -> None:
        """Close received file descriptors that were not taken."""
        self._cut_short = False
        while self._descriptors:
            os.close(self._descriptors.pop())

    def close(self) -> None:
        """Close the socket and all file descriptors. Harmless if repeated; no greenlet may be waiting."""
        self.close_descriptors()
        self._sock.close()


def _wait(sock: _socket.socket, event: int, deadline: float | None) -> bool:
    """Block until a socket can be read or written. A thread without a hub is blocked, and gets no hub for this.

    Returns ``False`` if the deadline passed first; the socket may be ready all the same.
    """
    left = None if deadline is None else deadline - monotonic()
    if left is not None and left <= 0:
        return False
    if not has_hub():
        poll = _poll()
        poll.register(sock.fileno(), _POLL_EVENTS[event])
        return bool(poll.poll(None if left is None else left * 1000))
    try:
        (wait_read if event == READ else wait_write)(sock.fileno(), left)
    except TimeoutError:
        return False
    return True


def pause(seconds: float) -> None:
    """Block for so long. A thread without a hub is blocked, and gets no hub for this."""
    (gevent.sleep if has_hub() else _sleep_thread)(seconds)


def connect(address: str, deadline: float) -> Channel:
    """Connect to the worker that listens on ``address``. Blocks while its queue is full.

    Raises:
        OwnerGone: no process listens, another user's process does, or the queue stays full.
    """
    sock = make_socket()
    try:
        sock.setblocking(False)
        _connect(sock, address, deadline)
        if not belongs_to_us(sock):
            raise OwnerGone("a process of another user listens on its socket")
    except BaseException:
        sock.close()
        raise
    return Channel(sock)


def _connect(sock: _socket.socket, address: str, deadline: float) -> None:
    """Retry with pauses: an unconnected Unix socket counts as writable, so one cannot wait for it."""
    seconds = FIRST_RETRY
    while True:
        try:
            sock.connect(address)
        except BlockingIOError as error:
            if monotonic() + seconds > deadline:
                raise OwnerGone("its queue is full") from error
            pause(seconds)
            seconds = min(2 * seconds, LAST_RETRY)
        except OSError as error:
            raise OwnerGone(f"no process listens on its socket: {error.strerror}") from error
        else:
            return
