"""What is inside aioquic's QUIC and HTTP/3 connections.

Relies on: ``_buffer.Buffer``, which ``aioquic.buffer`` exports without saying so; ``QuicConnection._streams``, ``_close_event``,
``_logger``, ``_host_cids``, ``_local_initial_source_connection_id``, ``_replenish_connection_ids``, ``_local_max_data``,
``_local_max_streams_bidi`` and ``_local_max_streams_uni``; that ``_write_stream_limits`` and ``_write_connection_limits`` double
a limit of which more than half is used, and send one whose value has changed; ``QuicStreamSender._buffer``, which has the bytes
that are not acknowledged, ``_buffer_fin``, which is ``None`` until the stream was given an end, and ``_reset_error_code``;
``H3Connection._stream``, and the ``buffer`` of its streams; ``H3Connection._decoder`` and ``_get_local_settings``.
"""

from __future__ import annotations

import logging
from typing import Any

import pylsqpack
from aioquic._buffer import Buffer
from aioquic.h3.connection import H3Connection, Setting
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicHeader, pull_quic_header
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

__all__ = ["PacedConnection", "StaticHeadersConnection", "header_of", "undecoded"]


class _DebugLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs everything at DEBUG: aioquic warns of what a client does, and any client could fill a log."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # as the standard library types it
        """Called for each level."""
        super().log(logging.DEBUG, msg, *args, **kwargs)


class PacedConnection(QuicConnection):
    """A server's connection whose windows are opened by whoever reads: aioquic opens them when data arrives.

    Args:
        max_streams: bidirectional streams that the client may have open, and as many unidirectional ones.
        mark: what the ids of the connection begin with.
    """

    def __init__(self, configuration: QuicConfiguration, original_id: bytes, retry_id: bytes | None, max_streams: int,
                 mark: bytes = b"") -> None:
        super().__init__(configuration=configuration, original_destination_connection_id=original_id,
                         retry_source_connection_id=retry_id)
        self._mark = mark
        first = self._host_cids[0]
        first.cid = self.host_cid = self._local_initial_source_connection_id = self._marked(first.cid)
        self._logger = _DebugLogger(logging.getLogger("quic"), {})  # type: ignore[assignment]  # it has the same methods
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = max_streams

    @property
    def ending(self) -> ConnectionTerminated | None:
        """Why the connection is about to end, as soon as this is known; ``None`` if it is not. The event comes later."""
        return self._close_event

    def _marked(self, identifier: bytes) -> bytes:
        return self._mark + identifier[len(self._mark):]

    def _replenish_connection_ids(self) -> None:
        count = len(self._host_cids)
        super()._replenish_connection_ids()
        for made in self._host_cids[count:]:
            made.cid = self._marked(made.cid)

    # -- windows

    def open_stream_window(self, stream_id: int, held: int, window: int) -> None:
        """Let the client send ``window`` bytes of a stream beyond those that were read.

        Args:
            held: bytes that have been received in order, and not been read.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        limit = stream.receiver.starting_offset() - held + window
        if limit - stream.max_stream_data_local >= window // 4:
            stream.max_stream_data_local = limit

    def open_window(self, consumed: int, window: int) -> None:
        """Let the client send ``window`` bytes beyond the ``consumed`` ones of all streams."""
        limit = consumed + window
        if limit - self._local_max_data.value >= window // 4:
            self._local_max_data.value = limit

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        receiver = stream.receiver
        used, receiver.highest_offset = receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            receiver.highest_offset = used

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        used, self._local_max_data.used = self._local_max_data.used, 0
        try:
            super()._write_connection_limits(builder, space)
        finally:
            self._local_max_data.used = used

    # -- sending

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes of a stream that were passed to aioquic, and that the client has not acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def can_send(self, stream_id: int) -> bool:
        """Whether data can still be sent on a stream: the client has not refused it, and it has no end yet."""
        stream = self._streams.get(stream_id)
        return self.can_reset(stream_id) and stream is not None and stream.sender._buffer_fin is None

    def can_reset(self, stream_id: int) -> bool:
        """Whether a stream can be reset: the client has neither refused it, nor acknowledged all of it and its end."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.sender.is_finished and not _is_reset(stream)

    def can_receive(self, stream_id: int) -> bool:
        """Whether the client can still send on a stream."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.receiver.is_finished

    def is_delivered(self, stream_id: int) -> bool:
        """Whether the client has acknowledged a stream and its end, or has refused it."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender.is_finished or _is_reset(stream)


def _is_reset(stream: QuicStream) -> bool:
    return stream.sender._reset_error_code is not None


def header_of(data: bytes, id_size: int) -> QuicHeader:
    """The header of the first packet in a datagram.

    Raises:
        ValueError: it is none of QUIC.
    """
    return pull_quic_header(Buffer(data=data), host_cid_length=id_size)


class StaticHeadersConnection(H3Connection):
    """HTTP/3 with WebTransport, whose clients may not fill a table of header fields (RFC 9204, 3.2.3).

    With a table, a field of 4 KB is repeated by one byte, and 16 KB of a request become 65 MB.
    """

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic, enable_webtransport=True)
        self._decoder = pylsqpack.Decoder(0, 0)

    def _get_local_settings(self) -> dict[int, int]:
        return {**super()._get_local_settings(), Setting.QPACK_MAX_TABLE_CAPACITY: 0, Setting.QPACK_BLOCKED_STREAMS: 0}


def undecoded(http: H3Connection, stream_id: int) -> int:
    """Bytes of a stream that the HTTP/3 connection keeps until a frame is complete."""
    stream = http._stream.get(stream_id)
    return 0 if stream is None else len(stream.buffer)
