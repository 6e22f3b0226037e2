"""http3/connection.py: what a client that breaks the rules costs, and how requests, sessions and connections end."""

from __future__ import annotations

import logging
import tracemalloc
from typing import Any

import gevent
import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import Setting
from support.quic import check_served, first_datagram, udp
from support.webtransport import Client

from engineio_wsgi.http3.connection import CONNECTION_WINDOW, MAX_STREAMS
from engineio_wsgi.http3.ports import PacketStream


def test_a_connection_without_a_session_is_closed(listen: Any) -> None:
    listener, _ = listen(timeout=0.05)
    client = Client(listener.address)
    client.wait(lambda: client.terminated)
    with udp() as sock:
        sock.sendto(first_datagram(), listener.address)
        while listener.connections:
            gevent.sleep(0.01)


def test_a_connection_with_a_session_stays(listen: Any) -> None:
    listener, _ = listen(timeout=0.05)
    client = Client(listener.address, connect=False)
    client.wait(lambda: client.http is not None or client.terminated)
    if client.terminated:
        return  # this machine took longer for the handshake
    stream = client.open("/").send("4hello")
    assert stream.packet() == "4hello"
    gevent.sleep(0.1)
    assert stream.send("4again").packet() == "4again"
    client.close()


def test_a_client_that_opens_too_many_streams(listen: Any) -> None:
    listener, echo = listen()
    client = Client(listener.address)
    session = client.open("/")
    session.send("4hello").packet()
    others = [type(session)(client, session.session).send("4other") for _ in range(10)]
    client.wait(lambda: all(other.number in client.resets for other in others))
    assert len(echo.streams) == 1
    assert session.send("4again").packet() == "4again"
    client.close()


def test_a_client_that_ignores_the_limit_on_streams(listen: Any) -> None:
    listener, _ = listen()
    client = Client(listener.address)
    client.wait(lambda: client.quic._remote_max_streams_bidi)
    client.quic._remote_max_streams_bidi = 1000
    client.quic.send_stream_data(4 * MAX_STREAMS, b"hello")
    client.send()
    client.wait(lambda: client.terminated)
    assert client.terminated is not None
    assert client.terminated.reason_phrase == "Too many streams open"
    check_served(listener)


def test_datagrams_and_unidirectional_streams_are_refused(listen: Any) -> None:
    listener, _ = listen()
    client = Client(listener.address)
    session = client.open("/")
    assert client.http is not None
    for _ in range(100):
        client.http.send_datagram(session.session, bytes(1000))
    number = client.http.create_webtransport_stream(session.session, is_unidirectional=True)
    client.quic.send_stream_data(number, b"hello")
    client.send()
    client.wait(lambda: number in client.resets)
    assert session.send("4hello").packet() == "4hello"
    client.close()


def test_a_session_too_many(listen: Any) -> None:
    listener, _ = listen()
    client = Client(listener.address)
    streams = [client.open("/") for _ in range(4)]
    assert client.response(client.request("/"))[":status"] == "429"
    assert [stream.send("4hello").packet() for stream in streams] == ["4hello"] * 4
    client.close()


def test_clients_may_fill_no_table_of_header_fields(listen: Any) -> None:
    listener, _ = listen()
    client = Client(listener.address)
    client.open("/")
    client.wait(lambda: client.http.received_settings is not None)
    assert client.http.received_settings[Setting.QPACK_MAX_TABLE_CAPACITY] == 0
    client.close()


def test_header_fields_that_are_too_large_together(listen: Any) -> None:
    listener, _ = listen()
    client = Client(listener.address)
    # compressed they are smaller: a zero has five bits
    assert client.response(client.request("/" + "0" * 10_000, origin="https://" + "0" * 12_000))[":status"] == "431"
    assert client.open("/").send("4hello").packet() == "4hello"
    client.close()


def test_trailers_behind_the_answer_are_ignored(listen: Any, caplog: pytest.LogCaptureFixture) -> None:
    listener, _ = listen()
    client = Client(listener.address)
    number = client.request("/", method="GET", protocol="")
    assert client.response(number)[":status"] == "404"
    assert client.http is not None
    client.http.send_headers(number, [(b"x-trailer", b"1")])
    client.send()
    # before the client has acknowledged the answer's end, too
    number = client.request("/", method="GET", protocol="")
    client.http.send_headers(number, [(b"x-trailer", b"1")])
    client.send()
    assert client.response(number)[":status"] == "404"
    assert client.open("/").send("4hello").packet() == "4hello"
    assert listener.connections == 1
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    client.close()


def test_an_unfinished_request_is_not_kept(listen: Any) -> None:
    listener, _ = listen()
    client = Client(listener.address)
    number = client.quic.get_next_available_stream_id()
    # the head of a HEADERS frame of 1 GB
    client.quic.send_stream_data(number, b"\x01" + encode_uint_var(1 << 30) + bytes(20_000))
    client.send()
    client.wait(lambda: client.terminated)
    assert client.terminated is not None
    assert client.terminated.error_code == 0x107
    check_served(listener)


def test_what_is_kept_of_a_client_that_nobody_reads(listen: Any) -> None:
    listener, echo = listen()
    echo.reads = False
    client = Client(listener.address)
    streams = [client.open("/") for _ in range(4)]
    for stream in streams:
        stream.write(bytes(1_000_000))
    client.wait(lambda: all(map(client.is_blocked, streams)) or client.quic._remote_max_data_used >= client.quic._remote_max_data)
    assert sum(map(client.sent, streams)) <= CONNECTION_WINDOW
    # what is read makes room
    echo.reads = True
    received = 0
    for stream in echo.streams:
        stream.watch(lambda stream=stream: echo.read(stream))
    for stream in streams:
        client.wait(lambda stream=stream: len(client.received[stream.number]) == 1_000_000)
        received += len(client.received[stream.number])
    assert received == 4_000_000
    client.close()


def test_a_client_that_leaves_gaps(listen: Any) -> None:
    """It sends the last byte of its window, and nothing before it: what is in between takes memory, but the window stays."""
    listener, _ = listen()
    client = Client(listener.address)
    session = client.open("/")
    session.send("4hello").packet()
    quic = client.quic
    sender = quic._streams[session.number].sender
    before = quic._streams[session.number].max_stream_data_remote
    tracemalloc.start()
    for _ in range(20):
        limit = quic._streams[session.number].max_stream_data_remote
        gap = limit - 1 - sender._buffer_stop
        sender._buffer_start = sender._buffer_stop = sender._buffer_stop + gap
        sender._buffer.clear()
        quic.send_stream_data(session.number, b"x")
        client.send()
        check_served(listener)
        if gap <= 0:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert quic._streams[session.number].max_stream_data_remote == before
    assert peak < 8_000_000
    client.stop()


def test_sessions_of_a_connection_that_is_lost_end(listen: Any) -> None:
    listener, echo = listen()
    client = Client(listener.address)
    client.open("/").send("4hello").packet()
    lost: list[object] = []
    echo.streams[0].watch(lambda: lost.append(_error_of(echo.streams[0])))
    client.quic.close(0x101, reason_phrase="because")
    client.send()
    while not lost:
        gevent.sleep(0)
    assert "because" in str(lost[0])
    client.stop()


def _error_of(stream: PacketStream) -> OSError | None:
    stream.unwatch()
    try:
        stream.recv(100)
    except OSError as error:
        return error
    return None


def test_a_client_whose_address_changes(listen: Any) -> None:
    listener, _ = listen()
    client = Client(listener.address)
    stream = client.open("/")
    assert stream.send("4hello").packet() == "4hello"
    client.move()
    assert stream.send("4from elsewhere").packet() == "4from elsewhere"
    client.close()
