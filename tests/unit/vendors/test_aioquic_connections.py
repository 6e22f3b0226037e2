"""vendors/aioquic_connections.py: what is relied upon inside aioquic."""

from __future__ import annotations

import inspect
import logging

import pytest
from aioquic.h3.connection import H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.stream import QuicStream
from support.webtransport import make_certificate

from engineio_wsgi.http3.certificates import CertificateFiles
from engineio_wsgi.vendors.aioquic_connections import PacedConnection, header_of, undecoded

CLIENT, SERVER = ("127.0.0.1", 1), ("127.0.0.1", 2)
WINDOW = 65_536


class Pair:
    """A client and a server without a network."""

    def __init__(self, certificate: dict[str, str]) -> None:
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=0, server_name="127.0.0.1")
        self.client = QuicConnection(configuration=configuration)
        self.now = 1.0
        self.client.connect(SERVER, self.now)
        first = self.client.datagrams_to_send(self.now)
        header = header_of(first[0][0], 8)
        self.server = PacedConnection(CertificateFiles(**certificate).configuration, header.destination_cid, None, 5)
        for data, _ in first:
            self.server.receive_datagram(data, CLIENT, self.now)
        self.run()

    def run(self) -> None:
        """Exchange datagrams until there are none."""
        for _ in range(200):
            self.now += 0.01
            sent = self.server.datagrams_to_send(self.now)
            for data, _ in sent:
                self.client.receive_datagram(data, SERVER, self.now)
            answers = self.client.datagrams_to_send(self.now)
            for data, _ in answers:
                self.server.receive_datagram(data, CLIENT, self.now)
            for quic in (self.server, self.client):
                due = quic.get_timer()
                if due is not None and due < self.now:
                    quic.handle_timer(self.now)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_certificate(tmp_path_factory.mktemp("aioquic"))


@pytest.fixture
def pair(certificate: dict[str, str]) -> Pair:
    return Pair(certificate)


def test_the_names(pair: Pair) -> None:
    source = inspect.getsource(QuicConnection)
    for name in ("_streams", "_close_event", "_local_max_data", "_local_max_streams_bidi", "_local_max_streams_uni", "_logger"):
        assert f"self.{name}" in source
    assert "self._write_stream_limits(builder=builder, space=space, stream=stream)" in source
    assert "self._write_connection_limits(builder=builder, space=space)" in source
    sender = QuicStream(0).sender
    assert (sender._buffer, sender._buffer_fin, sender._reset_error_code) == (b"", None, None)


def test_the_number_of_streams(pair: Pair) -> None:
    assert pair.client._remote_max_streams_bidi == pair.client._remote_max_streams_uni == 5


def test_a_window_is_opened_by_the_reader_and_not_by_what_arrives(pair: Pair) -> None:
    pair.client.send_stream_data(0, bytes(3 * WINDOW))
    pair.run()
    stream = pair.client._streams[0]
    assert stream.max_stream_data_remote == stream.sender.highest_offset == WINDOW
    pair.server.open_stream_window(0, 60_000, WINDOW)
    pair.run()
    assert stream.max_stream_data_remote == WINDOW, "what is held is not read"
    pair.server.open_stream_window(0, 0, WINDOW)
    pair.run()
    assert stream.max_stream_data_remote == stream.sender.highest_offset == 2 * WINDOW
    pair.server.open_stream_window(4, 0, WINDOW)  # there is no such stream


def test_the_window_of_all_streams(pair: Pair) -> None:
    limit = pair.client._remote_max_data
    pair.client.send_stream_data(0, bytes(WINDOW))
    pair.run()
    assert pair.client._remote_max_data == limit
    pair.server.open_window(limit // 2, limit)
    pair.run()
    assert pair.client._remote_max_data == limit + limit // 2


def test_what_is_not_acknowledged(pair: Pair) -> None:
    pair.client.send_stream_data(0, b"hello")
    pair.run()
    assert pair.server.can_send(0)
    assert pair.server.can_receive(0)
    pair.server.send_stream_data(0, bytes(1000), True)
    assert pair.server.unacknowledged(0) == 1000
    assert not pair.server.is_delivered(0)
    # it has an end, but may still be given up
    assert not pair.server.can_send(0)
    assert pair.server.can_reset(0)
    pair.run()
    assert pair.server.unacknowledged(0) == 0
    assert pair.server.is_delivered(0)
    assert not pair.server.can_send(0)
    assert not pair.server.can_reset(0)
    assert pair.server.unacknowledged(400) == 0


def test_a_stream_that_the_client_refuses(pair: Pair) -> None:
    pair.client.send_stream_data(0, b"hello")
    pair.run()
    pair.client.stop_stream(0, 1)
    pair.run()
    assert not pair.server.can_send(0)
    assert pair.server.is_delivered(0)


def test_the_end_is_known_before_its_event(pair: Pair) -> None:
    assert pair.server.ending is None
    pair.client.close(0x100, reason_phrase="bye")
    for data, _ in pair.client.datagrams_to_send(pair.now):
        pair.server.receive_datagram(data, CLIENT, pair.now)
    assert pair.server.ending is not None
    assert (pair.server.ending.error_code, pair.server.ending.reason_phrase) == (0x100, "bye")


def test_unfinished_frames(pair: Pair) -> None:
    http = H3Connection(pair.server, enable_webtransport=True)
    assert undecoded(http, 0) == 0
    pair.client.send_stream_data(0, b"\x01\x7f\xff" + bytes(1000))
    pair.run()
    while (event := pair.server.next_event()) is not None:
        http.handle_event(event)
    assert undecoded(http, 0) == 1000


def test_what_a_client_does_is_logged_at_debug(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "quic")
    pair.server._logger.warning("the client did %s", "something")
    assert caplog.records[-1].levelno == logging.DEBUG
    assert caplog.messages[-1] == "the client did something"


def test_a_datagram_that_is_none_of_quic() -> None:
    with pytest.raises(ValueError):
        header_of(b"hello", 8)
