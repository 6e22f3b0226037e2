"""The part of the WebSocket transport that moves to another process: what has to be sent along, and how it goes on from there."""

from __future__ import annotations

from typing import NamedTuple

from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, Deflater
from engineio_wsgi.protocol.websocket.frames import DecoderSnapshot, FrameDecoder
from engineio_wsgi.runtime.connection import Connection, ConnectionSnapshot
from engineio_wsgi.runtime.loop import Stream
from engineio_wsgi.transports.base import Entry
from engineio_wsgi.transports.connected import ConnectedTransport
from engineio_wsgi.transports.entries import EntrySnapshot, has_callback, restore_entries, snapshots_of

__all__ = ["MovableWebSocket", "WebSocketSnapshot"]


class WebSocketSnapshot(NamedTuple):
    """A WebSocket transport between two reads.

    Attributes:
        name: of the transport.
        binary: whether the client accepts binary frames.
        subprotocol: the sub-protocol that was negotiated, if one was.
        deflate: the parameters of compression that were negotiated; empty if none were.
        deflate_threshold: bytes from which messages are compressed.
        connection: the bytes of the connection.
        decoder: what has arrived of an unfinished frame or message.
        in_flight: the entries that were taken out of the write buffer and have not been sent completely.
    """

    name: str
    binary: bool
    subprotocol: str | None
    deflate: tuple[int, ...]
    deflate_threshold: int
    connection: ConnectionSnapshot
    decoder: DecoderSnapshot
    in_flight: tuple[EntrySnapshot, ...]


class MovableWebSocket(ConnectedTransport):
    """See the module."""

    __slots__ = ()

    wire: Connection
    subprotocol: str | None
    _binary: bool
    _decoder: FrameDecoder
    _deflate_threshold: int
    _deflater: Deflater | None

    def _frames(self, entries: list[Entry]) -> list[bytes]:
        raise NotImplementedError

    def obstacle(self, is_local: bool = False) -> str | None:
        """Why it cannot go on in another process; ``None`` if it can."""
        if self.wire.secure:
            return "its TLS connection ends in this process"
        if not self.wire.movable or not self._decoder.movable:
            return "its connection ends, or a compressed message is half received"
        if not is_local and self.wire.is_half_of_pair:
            return "another process has its connection"
        if self._deflater is not None and self._deflater.settings is None:
            return "its messages are compressed with context takeover"
        if has_callback(self.unsent_entries()):
            return "a callback of send() is waiting for its message"
        return None

    def snapshot(self) -> WebSocketSnapshot:
        """What another process needs besides the file descriptor, if there is no :meth:`obstacle`."""
        return WebSocketSnapshot(
            self.name, self._binary, self.subprotocol, () if self._deflater is None else self._deflater.parameters.as_tuple(),
            self._deflate_threshold, self.wire.snapshot(), self._decoder.snapshot(), snapshots_of(self.unsent_entries()))

    def give_away(self) -> Stream:
        """Return the socket, which is the caller's from now on. Nothing is read and written here any more."""
        self._in_flight = None
        return self.wire.give_away()

    def restore(self, snapshot: WebSocketSnapshot) -> None:
        """Go on where another process has stopped. For a new transport, before it is opened. Sends and reads nothing yet.

        Raises:
            ValueError: the snapshot is not valid.
        """
        entries = restore_entries(snapshot.in_flight)
        if entries:
            self._in_flight = (entries, self._frames(entries))

    def resume_sending(self, unsent: bytes) -> None:
        """Send what the other process has written, and the kernel has not taken. Before :meth:`open`."""
        if unsent:
            self.wire.keep(unsent)


def deflate_parameters(values: tuple[int, ...]) -> DeflateParameters | None:
    """The parameters in a snapshot; ``None`` if there are none.

    Raises:
        ValueError: there are no such parameters.
    """
    return DeflateParameters.of_tuple(values) if values else None
