"""Conversations between two workers: messages with a deadline, and a file descriptor beside one of them.

Owns the ``SOCK_SEQPACKET`` socket and the cutting of messages into records. A request under way has a channel to itself:
whoever is slow, stopped or dead holds up nobody else, and who hangs up has given up. One that has been answered leaves the
channel to the next.
"""

from __future__ import annotations

import _socket
import array
import os
import select
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent import monkey
from gevent.socket import wait_read, wait_write

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.local.names import belongs_to_us
from engineio_wsgi.cluster.messages import PREFIX_SIZE, BadMessage, Message, Prefix
from engineio_wsgi.errors import OwnerGone
from engineio_wsgi.http.hub_thread import has_hub

__all__ = ["PATIENCE", "Channel", "OwnerGone", "connect"]

#: seconds that workers give each other for everything that is no answer of the application's
PATIENCE = 5.0
#: bytes of a record: far below what a socket's buffer takes, so that a long message never waits for an empty one
RECORD_SIZE = 32_768
#: file descriptors that are looked for beside a record; more than one is a mistake, and all are closed
MAX_DESCRIPTORS = 4
_INT_SIZE = array.array("i").itemsize
_BESIDE_SIZE = _socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT_SIZE)
#: seconds between two attempts to reach a worker whose queue is full, at first and at most
FIRST_RETRY, LAST_RETRY = 0.001, 0.05

READ, WRITE = 1, 2
#: what a :class:`TimeoutError` says
SILENT = "the other worker does not answer"
_POLL_EVENTS = {READ: select.POLLIN, WRITE: select.POLLOUT}
_poll: Callable[[], Any] = monkey.get_original("select", "poll")
_sleep_thread: Callable[[float], None] = monkey.get_original("time", "sleep")


class Channel:
    """One end of conversations, one after the other. For one greenlet, or one plain thread, at a time.

    Args:
        sock: a connected C socket, not blocking; it belongs to this object.
    """

    __slots__ = ("_descriptors", "cut_short", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self._descriptors: list[int] = []
        #: whether a file descriptor did not come since this process has as many as it may have (unix(7), MSG_CTRUNC)
        self.cut_short = False

    def send(self, message: Message, deadline: float, descriptor: int | None = None) -> None:
        """Send a message, and a duplicate of a file descriptor with it. Blocks until it has been sent.

        Args:
            deadline: of the monotonic clock.

        Raises:
            OSError: the other side has hung up, or takes nothing (``TimeoutError``).
            BadMessage: it is too large.
        """
        data = memoryview(message.encode())
        beside = [] if descriptor is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        in_time = True
        while data or beside:
            try:
                sent = self.sock.sendmsg([data[:RECORD_SIZE]], beside, _socket.MSG_NOSIGNAL)
            except BlockingIOError:
                if not in_time:
                    raise TimeoutError(SILENT) from None
                in_time = _wait(self.sock, WRITE, deadline)
            else:
                data, beside = data[sent:], []

    def receive(self, deadline: float) -> Message:
        """The next message. Blocks until all of it has arrived.

        Raises:
            OSError: the other side has hung up (``ConnectionError``), or says nothing (``TimeoutError``).
            BadMessage: it is none.
        """
        return self._receive_rest(self._receive_record(deadline), deadline)

    def await_conversation(self, patience: float) -> Message | None:
        """The message that the next conversation begins with; ``None`` if there will be none. Blocks as long as that takes.

        Args:
            patience: seconds that the rest of it may take.

        Raises:
            OSError: the other side has hung up in the middle of it, or says no more (``TimeoutError``).
            BadMessage: it is none.
        """
        try:
            first = self._receive_record(None)
        except ConnectionError:
            return None
        return self._receive_rest(first, monotonic() + patience)

    def _receive_rest(self, first: bytes, deadline: float) -> Message:
        prefix = Prefix.parse(first)
        pieces = [first[PREFIX_SIZE:]]
        missing = prefix.head + prefix.body - len(pieces[0])
        while missing > 0:
            pieces.append(self._receive_record(deadline))
            missing -= len(pieces[-1])
        return Message.decode(prefix, b"".join(pieces))

    def _receive_record(self, deadline: float | None) -> bytes:
        while True:
            # nobody answers so fast that it would be worth a look before the wait
            in_time = _wait(self.sock, READ, deadline)
            try:
                data, beside, flags, _ = self.sock.recvmsg(RECORD_SIZE, _BESIDE_SIZE, _socket.MSG_CMSG_CLOEXEC)
                break
            except BlockingIOError:
                # what has arrived is read even if this process was too late to see it
                if not in_time:
                    raise TimeoutError(SILENT) from None
        for level, kind, content in beside:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[:len(content) - len(content) % _INT_SIZE])
                self._descriptors.extend(numbers)
        if not data:
            raise ConnectionResetError("the other worker has hung up")
        self.cut_short |= bool(flags & _socket.MSG_CTRUNC)
        if flags & _socket.MSG_TRUNC:
            raise BadMessage("a record that no worker of this version sends")
        return bytes(data)

    def take_descriptor(self) -> int:
        """The socket whose file descriptor came; it is the caller's now.

        Raises:
            BadMessage: there is none, or more than one, or it is something else.
        """
        if len(self._descriptors) != 1:
            raise BadMessage(f"{len(self._descriptors)} file descriptors came, and not one")
        if not stat.S_ISSOCK(os.fstat(self._descriptors[0]).st_mode):
            raise BadMessage("the file descriptor that came is no socket's")
        return self._descriptors.pop()

    def last_word(self) -> Message | None:
        """Wait no longer: what has come by now, or ``None``. The other side cannot send anything after that."""
        with suppress(OSError):
            # whoever has been late itself finds it here, and the conversation goes on
            data = self.sock.recv(RECORD_SIZE)
            return Message.parse(data) if data else None
        with suppress(OSError):
            self.sock.shutdown(_socket.SHUT_RD)
            data = self.sock.recv(RECORD_SIZE)
            return Message.parse(data) if data else None
        return None

    def hang_up(self) -> None:
        """End all conversation: whoever waits in it, on either side, gets a ``ConnectionError``."""
        with suppress(OSError):
            self.sock.shutdown(_socket.SHUT_RDWR)

    def close_descriptors(self) -> None:
        """Give those back that came in a conversation which is over, and that nobody has taken."""
        self.cut_short = False
        while self._descriptors:
            os.close(self._descriptors.pop())

    def close(self) -> None:
        """Give everything back. Harmless if repeated; nobody may be waiting."""
        self.close_descriptors()
        self.sock.close()


def _wait(sock: _socket.socket, event: int, deadline: float | None) -> bool:
    """Block until a socket can be read or written: a greenlet, or a thread without a hub, which shall not get one for that.

    Returns ``False`` if the deadline passed first; it may be possible all the same.
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


def connect(address: str, deadline: float) -> Channel:
    """Begin a conversation with the worker that listens on ``address``. Blocks while its queue is full.

    Raises:
        OwnerGone: nobody listens, somebody else does, or the queue stays full.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        sock.setblocking(False)
        _connect(sock, address, deadline)
        if not belongs_to_us(sock):
            raise OwnerGone("another user's process has taken its name")
    except BaseException:
        sock.close()
        raise
    return Channel(sock)


def _connect(sock: _socket.socket, address: str, deadline: float) -> None:
    """It is asked again with pauses: an unconnected Unix socket counts as writable, so there is nothing to wait for."""
    pause = FIRST_RETRY
    while True:
        try:
            sock.connect(address)
        except BlockingIOError as error:
            if monotonic() + pause > deadline:
                raise OwnerGone("its queue is full") from error
            (gevent.sleep if has_hub() else _sleep_thread)(pause)
            pause = min(2 * pause, LAST_RETRY)
        except OSError as error:
            raise OwnerGone(f"nobody answers there any more: {error.strerror}") from error
        else:
            return
