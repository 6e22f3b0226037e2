"""permessage-deflate (RFC 7692): its negotiation in the handshake, compression, and decompression.

Owns the extension's parameters and the zlib objects. Knows nothing of frames and of the meaning of messages.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import astuple, dataclass
from typing import Any, Protocol, Self

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode
from websockets.headers import build_extension, parse_extension
from websockets.typing import ExtensionHeader

from engineio_wsgi.errors import FrameError, ProtocolError

__all__ = ["DeflateParameters", "DeflateSettings", "Deflater", "Inflater", "negotiate", "parse_extensions"]

NAME = "permessage-deflate"

#: the end of every compressed message, which is not sent (RFC 7692 section 7.2.1)
TAIL = b"\x00\x00\xff\xff"
#: an empty message, for which zlib writes nothing (section 7.2.3.6)
EMPTY = b"\x00"
#: LZ77 window that the server compresses with, as a power of two, and asks clients for: 4 KiB. With 15, zlib takes 128 KB
#: more for each connection, and messages of a few KiB come out as large
WINDOW_BITS = 12
MAX_WINDOW_BITS = 15
#: final blocks that a message may contain (section 7.2.3.4 has one); each needs a new zlib object
MAX_FINAL_BLOCKS = 64

#: zlib cannot write raw deflate with a window of 256 bytes; older versions of websockets agree to it
SMALLEST_WINDOW = ("server_max_window_bits", "8")
#: an empty element of a header's list. RFC 9110 section 5.6.1 has recipients ignore it; RFC 6455 section 9.1 has none
_EMPTY_ELEMENT = re.compile(r"(?:^|,)[ \t]*,")
#: characters of a malformed header that an error repeats
MAX_QUOTED = 120


class DeflateSettings(Protocol):
    """The application's settings; the ``Deflate`` option is an implementation.

    ``threshold`` is the size in bytes from which messages are compressed; ``level`` (0 to 9, -1 for zlib's own choice)
    and ``memory_level`` (1 to 9) are zlib's; without ``context_takeover`` each message is compressed by itself: it is larger, and
    nothing is kept between messages.
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
    """The parameters that client and server agreed on, and the server's zlib settings.

    The window bits are powers of two, 8 to 15.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = MAX_WINDOW_BITS
    client_max_window_bits: int = MAX_WINDOW_BITS
    level: int = -1
    memory_level: int = 8

    def as_tuple(self) -> tuple[int, ...]:
        """The parameters as numbers, for another process."""
        return tuple(map(int, astuple(self)))

    @classmethod
    def of_tuple(cls, values: tuple[int, ...]) -> Self:
        """The parameters with these numbers.

        Raises:
            ValueError: there are no such parameters.
        """
        server_alone, client_alone, server_bits, client_bits, level, memory = values
        in_range = 8 < server_bits <= MAX_WINDOW_BITS and 8 <= client_bits <= MAX_WINDOW_BITS and -1 <= level <= 9
        if not (in_range and 1 <= memory <= 9):
            raise ValueError(f"no parameters of permessage-deflate: {values}")
        return cls(server_no_context_takeover=bool(server_alone), client_no_context_takeover=bool(client_alone),
                   server_max_window_bits=server_bits, client_max_window_bits=client_bits, level=level, memory_level=memory)


def parse_extensions(header: str) -> list[ExtensionHeader]:
    """The offers in a ``Sec-WebSocket-Extensions`` header, most wanted first, in linear time.

    Each is a name and its parameters, as pairs of a name and a value or ``None``.

    Raises:
        ProtocolError: the header does not conform to RFC 6455 section 9.1.
    """
    header = header.strip(" \t")
    if not header:
        return []
    try:
        if _EMPTY_ELEMENT.search(header) is None:
            return parse_extension(header)
        problem = "an element is empty"
    except InvalidHeader as error:
        problem = str(error)
    raise ProtocolError(f"Sec-WebSocket-Extensions is malformed: {problem[:MAX_QUOTED]}")


def negotiate(header: str, settings: DeflateSettings) -> tuple[DeflateParameters, str] | None:
    """Choose among the offers of a client.

    Args:
        header: the request's ``Sec-WebSocket-Extensions``.
        settings: how the server wants to compress.

    Returns:
        The parameters, and the response's ``Sec-WebSocket-Extensions``; ``None`` if no offer is acceptable.

    Raises:
        ProtocolError: the header is malformed.
    """
    factory = _FACTORIES[settings.context_takeover]
    for name, offered in parse_extensions(header):
        if name.lower() != NAME or SMALLEST_WINDOW in offered:
            continue
        try:
            answer, agreed = factory.process_request_params(offered, ())
        except NegotiationError:
            # RFC 7692 section 7.1: an offer with anything unknown or invalid in it is declined
            continue
        return DeflateParameters(
            server_no_context_takeover=agreed.local_no_context_takeover,
            client_no_context_takeover=agreed.remote_no_context_takeover,
            server_max_window_bits=agreed.local_max_window_bits,
            client_max_window_bits=agreed.remote_max_window_bits,
            level=settings.level,
            memory_level=settings.memory_level,
        ), build_extension([(factory.name, answer)])
    return None


#: by whether messages may refer to the ones before them
_FACTORIES = {
    takeover: ServerPerMessageDeflateFactory(
        server_no_context_takeover=not takeover, client_no_context_takeover=not takeover,
        server_max_window_bits=WINDOW_BITS, client_max_window_bits=WINDOW_BITS)
    for takeover in (False, True)
}


class Compressor(Protocol):
    """What is used of zlib's object, which has no public type."""

    def compress(self, data: bytes, /) -> bytes:
        """Compress some data; returns what is ready."""
        ...

    def flush(self, mode: int, /) -> bytes:
        """The rest, up to a boundary."""
        ...


class Deflater:
    """Compresses a server's messages, each as a whole, in the order in which they are sent.

    Keeps zlib's state, some tens of KB, between messages only if both sides agreed on context takeover, and from the
    first compressed message on.
    """

    __slots__ = ("_parameters", "_zlib")

    def __init__(self, parameters: DeflateParameters) -> None:
        self._parameters = parameters
        self._zlib: Compressor | None = None

    @property
    def parameters(self) -> DeflateParameters:
        """The parameters that client and server agreed on."""
        return self._parameters

    @property
    def settings(self) -> tuple[int, int, int] | None:
        """What the output depends on besides the message; ``None`` if it also depends on the messages before it."""
        parameters = self._parameters
        if not parameters.server_no_context_takeover:
            return None
        return parameters.server_max_window_bits, parameters.level, parameters.memory_level

    def compress(self, payload: bytes) -> bytes:
        """The compressed form of one message, for a frame with the first reserved bit set."""
        if not payload:
            return EMPTY
        compressor = self._zlib or self._new()
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        if not self._parameters.server_no_context_takeover:
            self._zlib = compressor
        return data[:-4]

    def _new(self) -> Compressor:
        parameters = self._parameters
        return zlib.compressobj(parameters.level, zlib.DEFLATED, -parameters.server_max_window_bits, parameters.memory_level)


class Inflater:
    """Decompresses a client's messages while they arrive, up to a limit.

    Args:
        parameters: those that were agreed on.
        max_size: bytes of the largest message, decompressed.

    For each message: ``start()``, ``inflate(chunk)`` as often as needed, ``finish()``. At most ``max_size + 1`` bytes
    come out of that: one more than allowed says that the message is too large, and the caller has to stop then.
    """

    __slots__ = ("_final_blocks", "_is_empty", "_max_size", "_parameters", "_room", "_zlib")

    def __init__(self, parameters: DeflateParameters, max_size: int) -> None:
        self._parameters = parameters
        self._max_size = max_size
        self._zlib: Any = None  # zlib's object, which has no public type; ``None`` between messages
        self.start()

    def start(self) -> None:
        """A message begins."""
        self._room = self._max_size + 1
        self._final_blocks = 0
        self._is_empty = True

    def inflate(self, chunk: bytes) -> bytes:
        """Decompress the next bytes of the message.

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
            # a final block: a new stream follows
            rest = self._zlib.unused_data
            self._start_again()
            if not rest:
                break
            parts.append(self._inflate(rest))
        return b"".join(parts)

    def finish(self) -> bytes:
        """The last bytes of the message.

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
