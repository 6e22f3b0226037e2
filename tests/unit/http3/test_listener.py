"""http3/listener.py and connection.py: what clients that break the rules cost, and that nobody else notices."""

from __future__ import annotations

import logging
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import Setting
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, encode_quic_version_negotiation
from support.webtransport import Client, make_certificate

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.http.response import Response
from engineio_wsgi.http3 import certificates
from engineio_wsgi.http3.certificates import CertificateFiles
from engineio_wsgi.http3.connection import CONNECTION_WINDOW, MAX_STREAMS
from engineio_wsgi.http3.listener import Http3Listener, Limits
from engineio_wsgi.http3.ports import PacketStream, WebTransportSession
from engineio_wsgi.http3.session import Session
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.private_folders import folder_of_user
from engineio_wsgi.vendors.aioquic_connections import header_of

OK = Response("200 OK", [], b"")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate and its key."""
    return make_certificate(tmp_path_factory.mktemp("http3"))


class Echo:
    """An application that admits every session, and sends back what it reads."""

    def __init__(self) -> None:
        self.sessions: list[WebTransportSession] = []
        self.streams: list[PacketStream] = []
        #: whether streams are read
        self.reads = True

    def answer(self, session: Session) -> None:
        """Admit a session."""
        session.environ["engineio.webtransport"].admit(self.serve)
        session.answer(OK)

    def serve(self, session: WebTransportSession) -> None:
        """The session is open."""
        self.sessions.append(session)
        session.on_stream(self.on_stream)

    def on_stream(self, stream: PacketStream) -> None:
        """The session has a stream."""
        self.streams.append(stream)
        if self.reads:
            stream.watch(lambda: self.read(stream))

    @staticmethod
    def read(stream: PacketStream) -> None:
        """Send back what there is."""
        try:
            data = stream.recv(65536)
        except OSError:
            stream.unwatch()
            return
        if data:
            stream.write(data)
        else:
            stream.unwatch()
            stream.finish(0, "")


@pytest.fixture
def listen(certificate: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """A factory of listeners with an `Echo`: ``listen(**limits)``."""
    running: list[Http3Listener] = []

    def start(shared: bool = False, certificate: dict[str, str] = certificate, **limits: Any) -> Any:
        echo = Echo()
        files = CertificateFiles(**certificate)
        listener = Http3Listener(("127.0.0.1", 0), files, Limits(**{"connections": 1000, **limits}), echo.answer, shared)
        listener.listen()
        running.append(listener)
        return listener, echo

    yield start
    for listener in running:
        listener.close_connections()


def check_served(listener: Http3Listener) -> None:
    """Another client is served."""
    client = Client(listener.address)
    stream = client.open("/").send("4hello")
    assert stream.packet() == "4hello"
    client.close()


def first_datagram(**configured: Any) -> bytes:
    """What a client begins with."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="127.0.0.1", **configured)
    quic = QuicConnection(configuration=configuration)
    quic.connect(("127.0.0.1", 1), monotonic())
    return quic.datagrams_to_send(monotonic())[0][0]


def udp() -> Any:
    """A socket of a client."""
    sock = gevent.socket.socket(gevent.socket.AF_INET, gevent.socket.SOCK_DGRAM)
    sock.settimeout(60)
    return sock


def settle(listener: Http3Listener) -> None:
    """Return when all that was sent before has been read: loopback delivers in order."""
    check_served(listener)


def test_garbage_costs_nothing(listen: Any) -> None:
    listener, _ = listen()
    generator = random.Random(1)
    first = first_datagram()
    with udp() as sock:
        for index in range(500):
            data = bytearray(generator.randbytes(generator.randrange(1400)))
            if index % 3 == 0:
                data = bytearray(first[:generator.randrange(1, len(first))])
            elif index % 3 == 1:
                data = bytearray(first)
                data[0] ^= generator.randrange(256)
                data[1 + generator.randrange(4)] ^= generator.randrange(256)
            sock.sendto(bytes(data), listener.address)
            if index % 50 == 0:
                gevent.sleep(0)
    settle(listener)
    assert listener.handshakes <= 100
    check_served(listener)


def test_beyond_some_handshakes_clients_have_to_prove_their_address(listen: Any) -> None:
    listener, _ = listen(retry_above=3, handshakes=5)
    with udp() as sock:
        for _ in range(50):
            sock.sendto(first_datagram(), listener.address)
        answers = [header_of(sock.recv(2000), 8).packet_type for _ in range(47)]
    assert answers.count(QuicPacketType.RETRY) >= 40
    assert (listener.connections, listener.handshakes) == (3, 3)
    # a client that answers gets in
    check_served(listener)
    assert listener.handshakes == 3


def test_a_token_of_another_address_is_worth_nothing(listen: Any) -> None:
    listener, _ = listen(retry_above=0)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="127.0.0.1")
    quic = QuicConnection(configuration=configuration)
    quic.connect(listener.address, monotonic())
    with udp() as own, udp() as other:
        own.sendto(quic.datagrams_to_send(monotonic())[0][0], listener.address)
        quic.receive_datagram(own.recv(2000), listener.address, monotonic())
        with_token = quic.datagrams_to_send(monotonic())[0][0]
        other.sendto(with_token, listener.address)
        settle(listener)
        assert listener.handshakes == 0
        own.sendto(with_token, listener.address)
        assert header_of(own.recv(2000), 8).packet_type in (QuicPacketType.INITIAL, QuicPacketType.HANDSHAKE)


def test_clients_beyond_the_limit_get_no_answer(listen: Any) -> None:
    listener, _ = listen(connections=2)
    clients = [Client(listener.address), Client(listener.address)]
    Client(listener.address, connect=False).stop()
    with udp() as sock:
        sock.sendto(first_datagram(), listener.address)
        clients[0].open("/").send("4hello").packet()
    assert listener.connections == 2
    clients[0].close()
    while listener.connections == 2:
        gevent.sleep(0)
    check_served(listener)
    clients[1].close()


def test_another_version(listen: Any) -> None:
    listener, _ = listen()
    datagram = bytearray(first_datagram())
    datagram[1:5] = b"\x1a\x2a\x3a\x4a"
    with udp() as sock:
        sock.sendto(bytes(datagram), listener.address)
        assert header_of(sock.recv(2000), 8).packet_type is QuicPacketType.VERSION_NEGOTIATION
        # an answer to an answer would go on for ever
        sock.sendto(encode_quic_version_negotiation(os.urandom(8), os.urandom(8), [0x1A2A3A4A] * 400), listener.address)
        settle(listener)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(2000)
    assert listener.handshakes == 0


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


def served_certificate(client: Client) -> object:
    """The serial number of the certificate that a client was given."""
    return client.quic.tls._peer_certificate.serial_number


def test_a_renewed_certificate_is_for_new_connections(listen: Any, certificate: dict[str, str], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_certificate(tmp_path)
    listener, _ = listen(certificate=files)
    client = Client(listener.address)
    stream = client.open("/")
    first = served_certificate(client)
    for name, path in certificate.items():
        Path(files[name]).write_bytes(Path(path).read_bytes())
    monkeypatch.setattr(certificates, "LOOK_PERIOD", 0.0)
    other = Client(listener.address)
    assert served_certificate(other) != first
    assert other.open("/").send("4hello").packet() == "4hello"
    assert stream.send("4still here").packet() == "4still here"
    client.close()
    other.close()


# -- several processes on one port


@pytest.fixture
def listen_beside(listen: Any, certificate: dict[str, str]) -> Iterator[Callable[[Http3Listener], Any]]:
    """A factory of listeners on the port of another one, as other processes would have them."""
    running: list[Http3Listener] = []

    def start(beside: Http3Listener) -> Any:
        echo = Echo()
        files = CertificateFiles(**certificate)
        running.append(Http3Listener(beside.address, files, Limits(1000), echo.answer, shared=True))
        running[-1].listen()
        return running[-1], echo

    yield start
    for listener in running:
        listener.close_connections()


def test_a_client_keeps_its_process_wherever_its_datagrams_arrive(listen: Any, listen_beside: Any) -> None:
    first, _ = listen(shared=True)
    listeners = [first, *(listen_beside(first)[0] for _ in range(3))]
    clients = [Client(first.address) for _ in range(8)]
    streams = [client.open("/") for client in clients]
    for stream in streams:
        assert stream.send("4hello").packet() == "4hello"
    for _ in range(4):
        for client, stream in zip(clients, streams, strict=True):
            client.move()
            assert stream.send("4from elsewhere").packet() == "4from elsewhere"
    assert sum(listener.connections for listener in listeners) == 8
    # of 32 new addresses, the kernel has given some to another listener, but for one case in 2 ** 60
    assert sum(listener.passed_on for listener in listeners) > 0
    for client in clients:
        client.close()


def test_a_client_keeps_its_process_when_others_begin_and_end(listen: Any, listen_beside: Any) -> None:
    first, _ = listen(shared=True)
    clients = [Client(first.address) for _ in range(8)]
    streams = [client.open("/") for client in clients]
    for _ in range(3):
        beside, _ = listen_beside(first)
        for stream in streams:
            assert stream.send("4hello").packet() == "4hello"
        beside.close_connections()
    for stream in streams:
        assert stream.send("4again").packet() == "4again"
    assert first.connections == 8
    for client in clients:
        client.close()


def test_a_port_whose_processes_cannot_reach_each_other_is_not_kept(certificate: dict[str, str], tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    with udp() as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = folder_of_user(f"udp-{address[1]}")
    folder.mkdir()
    folder.chmod(0o777)
    listener = Http3Listener(address, CertificateFiles(**certificate), Limits(1000), Echo().answer, shared=True)
    with pytest.raises(ConfigurationError, match="cannot reach each other"):
        listener.listen()
    with udp() as sock:
        sock.bind(address)


def test_two_servers_that_do_not_share_a_port(listen: Any, listen_beside: Any) -> None:
    first, _ = listen()
    with pytest.raises(OSError, match="cannot listen"):
        listen_beside(first)
