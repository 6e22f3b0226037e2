"""http3/listener.py: who may connect, what garbage costs, and several processes on one port."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, encode_quic_version_negotiation
from support.quic import Echo, check_served, first_datagram, udp
from support.webtransport import Client, make_certificate

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.http3 import certificates
from engineio_wsgi.http3.certificates import CertificateFiles
from engineio_wsgi.http3.listener import Http3Listener, Limits
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.private_folders import folder_of_user
from engineio_wsgi.vendors.aioquic_connections import header_of


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
