"""The plain case of `Socket.send`, which is nearly every call: in C where that was built.

Owns the queue of a write buffer, and how a message gets into it that needs nothing else. What is written here in Python is the
reference for ``c_plain_messages.c``, whose types have the same attributes, and do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from engineio_wsgi.protocol.websocket.batches import accelerated
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.transports.base import Entry, Transport

__all__ = ["MessageQueue", "MessageSender", "plain_first"]

F = TypeVar("F", bound=Callable[..., object])


class QueueInPython:
    """The entries that wait for a transport, and their size. Its subclass sets the attributes."""

    __slots__ = ("_is_announced", "_thread", "_transport", "entries", "limit", "size")

    entries: list[Entry]
    #: bytes of the entries, and those that the kernel has not accepted
    size: int
    #: the size at which the queue is full; 0 once it is closed
    limit: int
    #: what is woken
    _transport: Transport
    #: the only thread whose messages are queued
    _thread: int
    #: whether somebody has to see each message before it is queued
    _is_announced: bool

    def put_message(self, message: object) -> bool:
        """Queue a message, and wake the transport, if it is the plain case: exactly a ``bytes``, or a ``str`` that has UTF-8.

        Returns:
            ``False``, and nothing was done, if it is anything else.
        """
        if self.size >= self.limit or self._is_announced or self._thread != current_thread():
            return False
        if type(message) is bytes:
            size = len(message)
        elif type(message) is str:
            size = _utf8_size(message)
        else:
            return False
        if size < 0:
            return False
        self.entries.append(message)
        self.size += size
        if not self._transport.corked:
            self._transport.wake()
        return True


def _utf8_size(text: str) -> int:
    """Bytes of the UTF-8 of ``text``; -1 if it has none."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1


class SenderInPython:
    """What has a queue, for :func:`plain_first`. Its subclass sets it."""

    __slots__ = ("_queue",)

    _queue: QueueInPython


def first_in_python(method: F) -> F:
    """Decorate a method of a :class:`MessageSender` that sends its first argument.

    Without other arguments, ``put_message`` of the queue is called first. If that has queued the message, the result is the
    object itself, and ``method`` is not called. The function in Python leaves that to ``method``.
    """
    return method


if TYPE_CHECKING:
    MessageQueue: TypeAlias = QueueInPython
    MessageSender: TypeAlias = SenderInPython
    plain_first = first_in_python
else:
    MessageQueue, MessageSender, plain_first = QueueInPython, SenderInPython, first_in_python
    if accelerated:
        with suppress(ImportError):  # it was not built
            from engineio_wsgi.session.c_plain_messages import MessageQueue, MessageSender, plain_first
