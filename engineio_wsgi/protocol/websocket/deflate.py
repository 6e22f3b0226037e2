"""permessage-deflate (RFC 7692): what is agreed on in the handshake, and the two halves of the compression.

Owns the extension's parameters and the zlib objects. Knows nothing of frames, nor of what a message means.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.protocol.websocket.close_codes import CloseCode, FrameError

__all__ = ["DeflateParameters", "DeflateSettings", "Deflater", "Inflater", "negotiate", "parse_extensions"]

NAME = "permessage-deflate"

#: the end of every compressed message, which does not travel (RFC 7692 section 7.2.1)
TAIL = b"\x00\x00\xff\xff"
#: an empty message, for which zlib would write nothing (section 7.2.3.6)
EMPTY = b"\x00"
#: LZ77 window that the server compresses with, as a power of two, and asks clients for: 4 KiB. With 15, zlib takes 128 KB
#: more for each connection, and messages of a few KiB come out as large
WINDOW_BITS = 12
#: zlib cannot write raw deflate with a window of 256 bytes
MIN_WINDOW_BITS = 9
MAX_WINDOW_BITS = 15
#: blocks marked as the last one that a message may contain (section 7.2.3.4 has one); each costs a new zlib object
MAX_FINAL_BLOCKS = 64

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: one name, or one parameter with its value, and what separates it from the next
_ITEM = re.compile(rf'[ \t]*({_TOKEN})[ \t]*(?:=[ \t]*(?:({_TOKEN})|"({_TOKEN})")[ \t]*)?(;|,|\Z)')

Parameters = dict[str, str | None]


class DeflateSettings(Protocol):
    """What the application decides about compression; the ``Deflate`` option is one.

    ``threshold`` is the size in bytes from which messages are compressed; ``level`` (0 to 9, -1 for zlib's own choice)
    and ``memory_level`` (1 to 9) are zlib's; without ``context_takeover`` each message is compressed by itself: larger on
    the wire, and nothing is kept between messages.
    """

    @property
    def threshold(self) -> int:
        """Bytes from which a message is compressed."""

    @property
    def level(self) -> int:
        """0 to 9, or -1."""

    @property
    def memory_level(self) -> int:
        """1 to 9."""

    @property
    def context_takeover(self) -> bool:
        """Whether a message may refer to the ones before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeflateParameters:
    """What client and server have agreed on, and how the server compresses.

    The window bits are powers of two, 8 to 15.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = MAX_WINDOW_BITS
    client_max_window_bits: int = MAX_WINDOW_BITS
    level: int = -1
    memory_level: int = 8


def parse_extensions(header: str) -> list[tuple[str, Parameters | None]]:
    """The offers in a ``Sec-WebSocket-Extensions`` header, most wanted first, in linear time.

    The parameters of an offer that names one twice are ``None``: it cannot be accepted.

    Raises:
        ProtocolError: the header does not conform to RFC 6455 section 9.1.
    """
    offers: list[tuple[str, Parameters | None]] = []
    is_name = True
    for name, value, separator in _items(header):
        if is_name:
            if value is not None:
                raise ProtocolError(f"an extension's name with a value: {name[:40]}")
            offers.append((name, {}))
        else:
            _add_parameter(offers, name, value)
        is_name = separator != ";"
    if not is_name:
        raise ProtocolError("a parameter is missing at the end of Sec-WebSocket-Extensions")
    return offers


def _items(header: str) -> Iterator[tuple[str, str | None, str]]:
    position, separator = 0, ","
    while position < len(header) or separator == ";":
        match = _ITEM.match(header, position)
        if match is None:
            raise ProtocolError(f"Sec-WebSocket-Extensions is malformed at {header[position : position + 40]!r}")
        name, value, quoted, separator = match.groups()
        yield name, value or quoted, separator
        position = match.end()


def _add_parameter(offers: list[tuple[str, Parameters | None]], name: str, value: str | None) -> None:
    extension, parameters = offers[-1]
    if parameters is not None and name in parameters:
        offers[-1] = extension, None
    elif parameters is not None:
        parameters[name] = value


def negotiate(header: str, settings: DeflateSettings) -> tuple[DeflateParameters, str] | None:
    """Choose among the offers of a client.

    Args:
        header: the request's ``Sec-WebSocket-Extensions``.
        settings: how the server wants to compress.

    Returns:
        What holds from now on, with the response's ``Sec-WebSocket-Extensions``; ``None`` if no offer is acceptable.

    Raises:
        ProtocolError: the header is malformed.
    """
    for name, parameters in parse_extensions(header):
        if name.lower() == NAME and parameters is not None:
            agreed = _accept(parameters, settings)
            if agreed is not None:
                return agreed, _describe(agreed, "client_max_window_bits" in parameters)
    return None


def _accept(offer: Parameters, settings: DeflateSettings) -> DeflateParameters | None:
    """RFC 7692 section 7.1: an offer with anything unknown or invalid in it is declined."""
    if not all(name in _IS_VALID and _IS_VALID[name](value) for name, value in offer.items()):
        return None
    server_bits = min(WINDOW_BITS, int(offer.get("server_max_window_bits") or MAX_WINDOW_BITS))
    if server_bits < MIN_WINDOW_BITS:
        return None
    client_bits = MAX_WINDOW_BITS
    if "client_max_window_bits" in offer:
        client_bits = min(WINDOW_BITS, int(offer["client_max_window_bits"] or MAX_WINDOW_BITS))
    return DeflateParameters(
        server_no_context_takeover=not settings.context_takeover or "server_no_context_takeover" in offer,
        client_no_context_takeover=not settings.context_takeover or "client_no_context_takeover" in offer,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
        level=settings.level,
        memory_level=settings.memory_level,
    )


def _is_absent(value: str | None) -> bool:
    return value is None


def _is_window(value: str | None) -> bool:
    return value in _WINDOWS


def _is_window_or_absent(value: str | None) -> bool:
    return value is None or value in _WINDOWS


_WINDOWS = frozenset(map(str, range(8, MAX_WINDOW_BITS + 1)))
_IS_VALID: dict[str, Callable[[str | None], bool]] = {
    "server_no_context_takeover": _is_absent,
    "client_no_context_takeover": _is_absent,
    "server_max_window_bits": _is_window,
    "client_max_window_bits": _is_window_or_absent,
}


def _describe(agreed: DeflateParameters, is_client_window_agreed: bool) -> str:
    parts = [NAME]
    if agreed.server_no_context_takeover:
        parts.append("server_no_context_takeover")
    if agreed.client_no_context_takeover:
        parts.append("client_no_context_takeover")
    if agreed.server_max_window_bits != MAX_WINDOW_BITS:
        parts.append(f"server_max_window_bits={agreed.server_max_window_bits}")
    if is_client_window_agreed:
        # not allowed unless the client has said that it understands it (section 7.1.2.2)
        parts.append(f"client_max_window_bits={agreed.client_max_window_bits}")
    return "; ".join(parts)


class Deflater:
    """Compresses a server's messages, one whole message at a time and in the order in which they are sent.

    Keeps zlib's state, some tens of KB, between messages only if both sides agreed on context takeover, and from the
    first compressed message on.
    """

    __slots__ = ("_parameters", "_zlib")

    def __init__(self, parameters: DeflateParameters) -> None:
        self._parameters = parameters
        self._zlib: Any = None

    def compress(self, payload: bytes) -> bytes:
        """The compressed form of one message, for a frame with the first reserved bit set."""
        if not payload:
            return EMPTY
        compressor = self._zlib or self._new()
        data: bytes = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        if not self._parameters.server_no_context_takeover:
            self._zlib = compressor
        return data[:-4]

    def _new(self) -> Any:
        parameters = self._parameters
        return zlib.compressobj(parameters.level, zlib.DEFLATED, -parameters.server_max_window_bits, parameters.memory_level)


class Inflater:
    """Decompresses a client's messages as they arrive, and never more of one than is accepted.

    Args:
        parameters: what was agreed on.
        max_size: bytes of the largest message, decompressed.

    For each message: ``start()``, ``inflate(chunk)`` as often as needed, ``finish()``. At most ``max_size + 1`` bytes
    come out of that: the one too many says that the message is too large, and it has to be given up then.
    """

    __slots__ = ("_final_blocks", "_is_empty", "_max_size", "_parameters", "_room", "_zlib")

    def __init__(self, parameters: DeflateParameters, max_size: int) -> None:
        self._parameters = parameters
        self._max_size = max_size
        self._zlib: Any = None
        self.start()

    def start(self) -> None:
        """A message begins."""
        self._room = self._max_size + 1
        self._final_blocks = 0
        self._is_empty = True

    def inflate(self, chunk: bytes) -> bytes:
        """What the next bytes of the message contain.

        Raises:
            FrameError: they are not compressed data (close code 1007).
        """
        if not chunk:
            return b""
        self._is_empty = False
        output = self._inflate(chunk)
        if not self._zlib.eof:
            return output
        parts = [output]
        while self._zlib.eof and self._room:
            # a block said to be the last one: what follows begins anew
            rest = self._zlib.unused_data
            self._start_again()
            if not rest:
                break
            parts.append(self._inflate(rest))
        return b"".join(parts)

    def finish(self) -> bytes:
        """The last bytes of the message, if there are any left.

        Raises:
            FrameError: as ``inflate`` does.
        """
        output = b"" if self._is_empty or not self._room else self.inflate(TAIL)
        if self._parameters.client_no_context_takeover:
            self._zlib = None
        return output

    def _inflate(self, chunk: bytes) -> bytes:
        if not self._room:
            return b""
        if self._zlib is None:
            self._zlib = zlib.decompressobj(-self._parameters.client_max_window_bits)
        try:
            output: bytes = self._zlib.decompress(chunk, self._room)
        except zlib.error as error:
            raise FrameError(CloseCode.INVALID_DATA, f"the compressed data is damaged: {error}") from None
        self._room -= len(output)
        return output

    def _start_again(self) -> None:
        self._final_blocks += 1
        if self._final_blocks > MAX_FINAL_BLOCKS:
            raise FrameError(CloseCode.POLICY_VIOLATION, f"more than {MAX_FINAL_BLOCKS} final blocks in a message")
        self._zlib = zlib.decompressobj(-self._parameters.client_max_window_bits)
