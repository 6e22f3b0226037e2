"""Socket.IO packets: python-socketio's, which refuse what the protocol does not have, and JSON without an encoder for each call.

No I/O. Owns the limits on what a client may announce.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json import encoder as json_encoder

from engineio import json as engineio_json
from socketio import packet

from engineio_wsgi.contrib.socketio.untyped import Foreign, Value
from engineio_wsgi.errors import HasBinary, MalformedPacket

__all__ = ["RESERVED_EVENTS", "SocketIOJson", "SocketIOPacket", "decode", "dumps", "loads"]

#: the names of socket.io-parser that a client must not use for an event
RESERVED_EVENTS = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})
#: binary attachments of one packet
MAX_ATTACHMENTS = 100
#: digits of an integer; python-engineio's limit
MAX_DIGITS = 100


def _unknown(value: object) -> object:
    if isinstance(value, (bytes, bytearray)):
        raise HasBinary
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _parse_int(text: str) -> int:
    """An integer of at most `MAX_DIGITS` digits: to convert a long one takes the square of its length."""
    if len(text) > MAX_DIGITS:
        raise ValueError("the integer is too large")
    return int(text)


# The standard library makes an encoder in C and a decoder for each call with arguments. One of each for all calls takes an event
# of 40 bytes from 5.0 to 1.1 µs.
_make: Foreign = getattr(json_encoder, "c_make_encoder", None)  # private to the standard library, and in C: another may lack it
_chunks: Foreign = _make and _make(None, _unknown, json_encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
_encoder = json.JSONEncoder(separators=(",", ":"), default=_unknown)
_decoder = json.JSONDecoder(parse_int=_parse_int)


def dumps(value: object) -> str:
    """The JSON text of ``value``.

    Raises:
        HasBinary: it contains bytes.
        TypeError: it contains what JSON does not have.
    """
    return _encoder.encode(value) if _chunks is None else "".join(_chunks(value, 0))


def loads(text: str) -> Value:
    """What a JSON text stands for. Raises ``ValueError``, and ``RecursionError`` if it is too deep."""
    return _decoder.decode(text)


#: ``(text, position) -> (value, end)``; raises ``StopIteration`` or ``ValueError``
scan: Callable[[str, int], tuple[Value, int]] = _decoder.scan_once  # type: ignore[attr-defined]  # it is not in the stubs


class SocketIOJson:
    """The ``json`` of `SocketIOPacket`."""

    @staticmethod
    def dumps(value: object, **options: Value) -> str:
        """As ``json.dumps``."""
        return json.dumps(value, **options) if options.keys() - {"separators"} else dumps(value)

    @staticmethod
    def loads(text: str | bytes, **options: Value) -> Value:
        """As ``json.loads``, with integers of at most 100 digits."""
        return engineio_json.loads(text, **options) if options or not isinstance(text, str) else loads(text)


class SocketIOPacket(packet.Packet):  # type: ignore[misc]  # no types
    """A packet that is refused if the protocol does not have it. All servers of a process share its ``json``."""

    json = SocketIOJson

    def decode(self, encoded_packet: object) -> int:
        """Decode a packet; returns the number of its attachments.

        Raises:
            MalformedPacket: it is none.
        """
        if not isinstance(encoded_packet, str):
            raise MalformedPacket("a binary message without a packet that announces it")
        count: int = super().decode(encoded_packet)
        if not packet.CONNECT <= self.packet_type <= packet.BINARY_ACK:
            raise MalformedPacket(f"there is no packet type {self.packet_type}")
        is_binary = self.packet_type in (packet.BINARY_EVENT, packet.BINARY_ACK)
        if bool(count) is not is_binary and (count or not encoded_packet[1:].startswith("0-")):
            raise MalformedPacket("the number of attachments does not fit the packet's type")
        if count > MAX_ATTACHMENTS:
            raise MalformedPacket(f"{count} attachments; at most {MAX_ATTACHMENTS} are accepted")
        _CHECKS[self.packet_type](self.data, self.id)
        return count

    @classmethod
    def data_is_binary(cls, data: object) -> bool:
        """Whether there are bytes in ``data``."""
        if isinstance(data, (list, dict)):
            items = data if isinstance(data, list) else data.values()
            return any(type(item) is not str and cls.data_is_binary(item) for item in items)
        return isinstance(data, (bytes, bytearray))


def _check_event(data: object, id: int | None) -> None:
    if not isinstance(data, list) or not data or isinstance(data[0], bool) or not isinstance(data[0], (str, int)):
        raise MalformedPacket("an event is a list that begins with its name")
    if data[0] in RESERVED_EVENTS:
        raise MalformedPacket(f"{data[0]!r} is the server's own event")


def _check_ack(data: object, id: int | None) -> None:
    if not isinstance(data, list) or id is None:
        raise MalformedPacket("an acknowledgement is a list, and has an id")


def _check_connect(data: object, id: int | None) -> None:
    if data is not None and not isinstance(data, dict):
        raise MalformedPacket("the payload of a connect packet is an object")


def _check_disconnect(data: object, id: int | None) -> None:
    if data is not None:
        raise MalformedPacket("a disconnect packet has no payload")


def _check_connect_error(data: object, id: int | None) -> None:
    raise MalformedPacket("a connect error from a client")


_CHECKS = {
    packet.CONNECT: _check_connect, packet.DISCONNECT: _check_disconnect, packet.EVENT: _check_event, packet.ACK: _check_ack,
    packet.CONNECT_ERROR: _check_connect_error, packet.BINARY_EVENT: _check_event, packet.BINARY_ACK: _check_ack,
}


def decode(packet_class: Foreign, data: str | bytes) -> Foreign:
    """The packet that a client has sent.

    Raises:
        MalformedPacket: it is none.
    """
    if not data:
        raise MalformedPacket("an empty message")
    try:
        return packet_class(encoded_packet=data)
    except MalformedPacket:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise MalformedPacket(f"not a Socket.IO packet: {error}") from error
