"""The envelope around each message on Redis: its sender, its place on a reliable link, and its conversation.

Owns the format. Knows nothing of what links do with it.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, Self

from engineio_wsgi.cluster.messages import VERSION, Message, check_version
from engineio_wsgi.errors import BadMessage

__all__ = ["NO_LINK", "Envelope"]

#: the version, and the fields of an :class:`Envelope`
_ENVELOPE = Struct("!B12sIQQIQq")
#: the one number that no conversation may have: its negative does not fit into 8 bytes
NO_CONVERSATION = -(1 << 63)
#: the mark of a message on no link: it may be lost, and is not acknowledged
NO_LINK = 0


class Envelope(NamedTuple):
    """The header of a message between two workers. With the default values, it is on no link.

    Attributes:
        origin: the sender's name.
        link: the mark of the sender's link.
        first: the oldest number that the receiver has not acknowledged.
        number: the message's; 0 if it has none, and is not acknowledged.
        other_link: the mark of the receiver's link, as far as the sender knows it.
        arrived: the receiver's last number that has arrived.
        conversation: positive if the sender has begun it, negative if the receiver has, 0 if there is none.
    """

    origin: str
    link: int = NO_LINK
    first: int = 1
    number: int = 0
    other_link: int = NO_LINK
    arrived: int = 0
    conversation: int = 0

    def pack(self, message: bytes) -> bytes:
        """The bytes of envelope and message."""
        return _ENVELOPE.pack(VERSION, self.origin.encode("ascii"), *self[1:]) + message

    @classmethod
    def open(cls, data: bytes) -> tuple[Self, Message | None]:
        """Read an envelope, and its message if there is one.

        Raises:
            BadMessage: the bytes are not an envelope.
        """
        if len(data) < _ENVELOPE.size:
            raise BadMessage(f"expected an envelope, got {len(data)} bytes")
        version, origin, *numbers = _ENVELOPE.unpack_from(data)
        check_version(version)
        try:
            envelope = cls(origin.rstrip(b"\0").decode("ascii"), *numbers)
        except UnicodeDecodeError:
            raise BadMessage("the sender of an envelope is not ASCII") from None
        if not envelope.first or envelope.conversation == NO_CONVERSATION:
            raise BadMessage("an envelope with invalid numbers")
        content = data[_ENVELOPE.size:]
        if not content:
            return envelope, None
        return envelope, Message.parse(content)
