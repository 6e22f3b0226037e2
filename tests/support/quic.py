"""An application of http3/ without an engine, and what a client's first datagram is."""

from __future__ import annotations

from typing import Any

import gevent.socket
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from engineio_wsgi.http.response import Response
from engineio_wsgi.http3.listener import Http3Listener
from engineio_wsgi.http3.ports import PacketStream, WebTransportSession
from engineio_wsgi.http3.session import Session
from engineio_wsgi.runtime.clock import monotonic
from support.webtransport import Client

OK = Response("200 OK", [], b"")


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
