"""What an application sends: a message, or a `Bundle` of messages that stay adjacent.

Owns the check of their types. Knows nothing of buffers and transports.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from engineio_wsgi.errors import BundleTooLarge
from engineio_wsgi.transports.base import Prepared

__all__ = ["Bundle", "Data", "Outgoing", "as_message", "as_outgoing", "check_fits", "prepare"]

#: one message, as an application may give it
Data: TypeAlias = str | bytes | bytearray | memoryview


class Bundle:
    """Several messages that stay adjacent: their client gets them in this order, with no other message in between.

    Whatever sends a message sends a bundle as well: :meth:`Socket.send`, :meth:`Server.send`, :meth:`Server.broadcast` and
    ``Emitter``. A bundle is buffered, dropped, replaced and counted as a whole. It is encoded once for all sessions with the same
    encoding, so a bundle of one message is a message that is prepared for many sessions. It cannot be changed, and any thread may
    use it.

    Args:
        messages: one or more; ``str`` is text, bytes-like is binary.

    Raises:
        ValueError: there is no message.
        TypeError: a message has another type.

    Example::

        event = Bundle('51-["file",{"_placeholder":true,"num":0}]', content)
        for socket in receivers:
            socket.send(event)
    """

    __slots__ = ("_compressed", "_messages", "_plain")

    def __init__(self, *messages: Data) -> None:
        if not messages:
            raise ValueError("a bundle needs at least one message")
        self._messages = tuple([each if type(each) is str or type(each) is bytes else as_message(each) for each in messages])
        #: what transports may compress, and what they may not: the encodings of one are not those of the other
        self._compressed = Prepared(self._messages, True)
        self._plain: Prepared | None = None

    def __repr__(self) -> str:
        return f"<Bundle of {len(self._messages)}, {self.size} bytes>"

    def __len__(self) -> int:
        """The number of its messages."""
        return len(self._messages)

    def __iter__(self) -> Iterator[str | bytes]:
        """Iterate over its messages, in order."""
        return iter(self._messages)

    @property
    def messages(self) -> tuple[str | bytes, ...]:
        """Its messages, in order."""
        return self._messages

    @property
    def size(self) -> int:
        """Bytes of its messages on the wire, without framing."""
        return self._compressed.size

    def _entry(self, compress: bool) -> Prepared:
        if compress:
            return self._compressed
        if self._plain is None:
            self._plain = Prepared(self._messages, False)
        return self._plain


#: what is sent at once, after the check of its type
Outgoing: TypeAlias = str | bytes | Bundle


def as_message(data: object) -> str | bytes:
    """Convert ``data`` to the type of a message.

    Raises:
        TypeError: it is neither str nor bytes-like.
    """
    if isinstance(data, str):
        return str(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    what = "; send json.dumps() of it" if isinstance(data, (dict, list, tuple, int, float, bool, type(None))) else ""
    raise TypeError(f"a message is str (text) or bytes-like (binary), not {type(data).__name__}{what}")


def as_outgoing(data: object) -> Outgoing:
    """Convert ``data`` to the type of a message, if it is no bundle.

    Raises:
        TypeError: it is neither str nor bytes-like, nor a bundle.
    """
    return data if isinstance(data, Bundle) else as_message(data)


def check_fits(data: Outgoing, limit: int) -> None:
    """Check that a bundle is not larger than a write buffer: its messages are buffered at once. Messages have no such limit.

    Raises:
        BundleTooLarge: it is larger.
    """
    if isinstance(data, Bundle) and data.size > limit:
        raise BundleTooLarge(data.size, limit)


def prepare(data: Outgoing, compress: bool, key: str | None = None) -> Prepared:
    """What is put into the write buffers of many sessions.

    Args:
        compress: whether the transports may compress it.
        key: what it is a value of, if newer values replace it.
    """
    if not isinstance(data, Bundle):
        return Prepared(data, compress, key)
    entry = data._entry(compress)
    return entry if key is None else entry.variant(key=key)
