"""The UDP socket: datagrams are read in the hub, and passed to the connection whose id they have. Clients connect here.

Owns the limits on connections: how many there may be, and how many whose handshake is not complete. If many handshakes are under
way, a client first has to prove that its address is its own (Retry, RFC 9000 section 8.1.2).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
)
from aioquic.quic.retry import QuicRetryTokenHandler
from gevent.server import DatagramServer
from gevent.socket import socket as GeventSocket

from engineio_wsgi.errors import CannotListen, ConfigurationError
from engineio_wsgi.http3.certificates import DATAGRAM_SIZE, ID_SIZE, CertificateFiles
from engineio_wsgi.http3.connection import MAX_STREAMS, Http3Connection
from engineio_wsgi.http3.neighbours import Neighbours
from engineio_wsgi.http3.session import Session
from engineio_wsgi.log import log_violation
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.forks import hold
from engineio_wsgi.vendors.aioquic_connections import PacedConnection, header_of
from engineio_wsgi.vendors.gevent_sockets import c_socket

if TYPE_CHECKING:
    from _socket import socket as CSocket

    from aioquic.quic.connection import NetworkAddress

__all__ = ["Http3Listener", "Limits"]

logger = logging.getLogger("engine.webtransport")

#: datagrams that are read before the event loop looks at other connections and at timers
BATCH = 64
#: bytes that the kernel is asked to keep for us, between two turns of the event loop. It may grant less
RECEIVE_BUFFER = 4_194_304


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a listener has.

    Attributes:
        connections: at most.
        handshakes: of which so many may not have completed their handshake.
        retry_above: the number of such connections beyond which clients have to prove their address first.
        timeout: seconds until a client has opened a session.
    """

    connections: int
    handshakes: int = 500
    retry_above: int = 50
    timeout: float = 10.0


class Http3Listener(DatagramServer):  # type: ignore[misc]
    """See the module.

    Args:
        address: a port, ``(host, port)``, ``"host:port"`` or a bound UDP socket.
        certificate: of the server.
        limits: how many there may be.
        on_request: called in the hub with each session that a client asks for; its request has to be answered.
        shared: whether other processes receive on the same port.
    """

    def __init__(self, address: object, certificate: CertificateFiles, limits: Limits,
                 on_request: Callable[[Session], object], shared: bool = False) -> None:
        self._given_address = address
        self._shared = shared
        # gevent wants a function for each datagram, and does not call it: `do_read` returns none
        super().__init__(("", address) if isinstance(address, int) else address, self.do_read)
        self._certificate = certificate
        self._limits = limits
        self._on_request = on_request
        self._retry = QuicRetryTokenHandler()
        self._by_id: dict[bytes, Http3Connection] = {}
        self._ids: dict[Http3Connection, set[bytes]] = {}
        #: connections whose handshake is not complete
        self._handshakes: set[Http3Connection] = set()
        #: whether new connections are ignored, because the server is about to end
        self.closing = False
        self._raw: CSocket | None = None
        self._neighbours: Neighbours | None = None

    def listen(self) -> None:
        """Bind the address, and start to receive. Does not block.

        Raises:
            CannotListen: the address cannot be used; an ``OSError``.
            ConfigurationError: processes that share the port could not reach each other.
        """
        try:
            self.start()
        except OSError as error:
            raise CannotListen(error, self._given_address) from None
        self._raw = c_socket(self.socket)
        self._raw.setblocking(False)
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        hold(self._raw)
        if self._shared:
            try:
                self._neighbours = Neighbours(self.address[1], self._on_passed_on)
            except ConfigurationError:
                self.close_connections()
                raise

    def get_listener(self, address: tuple[str, int], family: int | None = None) -> GeventSocket:
        """Called by gevent to bind the socket: gevent's own would let two servers bind a port, and leave it open if it cannot."""
        sock = GeventSocket(family or socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if self._shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
        return sock

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._ids)

    @property
    def handshakes(self) -> int:
        """How many of them have not completed their handshake."""
        return len(self._handshakes)

    @property
    def _mark(self) -> bytes:
        """What the ids of this process' connections begin with."""
        return b"" if self._neighbours is None else self._neighbours.mark

    @property
    def passed_on(self) -> int:
        """Datagrams of other processes' connections that were passed on to them."""
        return 0 if self._neighbours is None else self._neighbours.passed_on

    # -- datagrams

    def do_read(self) -> None:
        """Called by gevent in the hub, whenever the socket is readable."""
        touched: dict[Http3Connection, None] = {}
        now = monotonic()
        for _ in range(BATCH):
            try:
                data, address = self._socket.recvfrom(DATAGRAM_SIZE)
            except BlockingIOError:
                break
            except OSError as error:
                # an ICMP message about an earlier datagram, for example
                logger.debug("= receiving a datagram failed: %s", error)
                break
            connection = self._connection_of(data, address, now)
            if connection is not None:
                self._pass_on(connection, data, address, now)
                touched[connection] = None
        for connection in touched:
            connection.settle()

    def _on_passed_on(self, data: bytes, address: NetworkAddress) -> None:
        """Another process has passed a datagram on."""
        now = monotonic()
        connection = self._connection_of(data, address, now, passed_on=True)
        if connection is not None:
            self._pass_on(connection, data, address, now)
            connection.settle()

    @staticmethod
    def _pass_on(connection: Http3Connection, data: bytes, address: NetworkAddress, now: float) -> None:
        try:
            connection.receive(data, address, now)
        except Exception:
            # what a client sends must not harm others, whatever aioquic makes of it
            logger.exception("a datagram of %s could not be processed; its connection is dropped", address[0])
            connection.abort()

    def send_to(self, data: bytes, address: NetworkAddress) -> None:
        """Send a datagram. If the kernel does not take it, it is lost, and QUIC sends its content again."""
        try:
            if self._raw is not None:
                self._raw.sendto(data, address)
        except OSError as error:
            logger.debug("= sending a datagram failed: %s", error)

    def _connection_of(self, data: bytes, address: NetworkAddress, now: float, passed_on: bool = False) -> Http3Connection | None:
        """The connection of a datagram, which may be new; ``None`` if the datagram was ignored, answered or passed on."""
        try:
            header = header_of(data, ID_SIZE)
        except ValueError:
            return None
        connection = self._by_id.get(header.destination_cid)
        if connection is not None:
            return connection
        if not passed_on and self._neighbours is not None and self._neighbours.pass_on(header.destination_cid, data, address):
            return None
        if header.packet_type is QuicPacketType.ONE_RTT or len(data) < SMALLEST_MAX_DATAGRAM_SIZE:
            return None
        if header.version not in self._certificate.configuration.supported_versions:
            self._negotiate_version(header, address)
            return None
        return self._admit(header, address, now) if header.packet_type is QuicPacketType.INITIAL else None

    def _negotiate_version(self, header: QuicHeader, address: NetworkAddress) -> None:
        """Tell the client which versions there are. Another server's negotiation gets no answer: the two would go on for ever."""
        if header.packet_type is not QuicPacketType.VERSION_NEGOTIATION:
            self.send_to(encode_quic_version_negotiation(
                source_cid=header.destination_cid, destination_cid=header.source_cid,
                supported_versions=self._certificate.configuration.supported_versions), address)

    def _admit(self, header: QuicHeader, address: NetworkAddress, now: float) -> Http3Connection | None:
        """A new connection, if there is room, and if the client has proved its address where it has to."""
        if self.closing:
            return None
        limits = self._limits
        if len(self._ids) >= limits.connections or len(self._handshakes) >= limits.handshakes:
            log_violation(logger, address, "full", "< %s: no more connections are taken (%d, of which %d are in their handshake)",
                          address[0], len(self._ids), len(self._handshakes))
            return None
        original, retried = header.destination_cid, None
        if header.token:
            try:
                original = self._retry.validate_token(address=address, destination_cid=header.destination_cid,
                                                      token=header.token, now=now)
            except ValueError:
                return None
            retried = header.destination_cid
        elif len(self._handshakes) >= limits.retry_above:
            self._ask_again(header, address, now)
            return None
        quic = PacedConnection(self._certificate.current(now), original, retried, MAX_STREAMS, self._mark)
        connection = Http3Connection(self, quic, self.loop, self.address[:2], limits.timeout)
        self._ids[connection] = set()
        self._handshakes.add(connection)
        self.on_id(connection, header.destination_cid)
        self.on_id(connection, quic.host_cid)
        return connection

    def _ask_again(self, header: QuicHeader, address: NetworkAddress, now: float) -> None:
        """Send a token, which only the owner of the address gets. Nothing is kept of the client."""
        source = os.urandom(ID_SIZE)
        assert header.version is not None
        token = self._retry.create_token(address=address, original_destination_connection_id=header.destination_cid,
                                         retry_source_connection_id=source, now=now)
        self.send_to(encode_quic_retry(version=header.version, source_cid=source, destination_cid=header.source_cid,
                                       original_destination_cid=header.destination_cid, retry_token=token), address)

    # -- from the connections

    def on_id(self, connection: Http3Connection, identifier: bytes) -> None:
        """Datagrams for this connection id are the connection's."""
        self._by_id[identifier] = connection
        self._ids[connection].add(identifier)

    def on_id_retired(self, identifier: bytes) -> None:
        """They are not any more."""
        connection = self._by_id.pop(identifier, None)
        if connection is not None:
            self._ids[connection].discard(identifier)

    def on_connected(self, connection: Http3Connection) -> None:
        """The handshake is complete: the client's address is its own."""
        self._handshakes.discard(connection)

    def on_request(self, session: Session) -> None:
        """A client asks for a session."""
        self._on_request(session)

    def on_ended(self, connection: Http3Connection) -> None:
        """The connection has ended."""
        self._handshakes.discard(connection)
        for identifier in self._ids.pop(connection, ()):
            self._by_id.pop(identifier, None)

    # -- the end

    def stop_opening(self) -> None:
        """Take no more connections; those that there are go on."""
        self.closing = True

    def close_connections(self) -> None:
        """Tell the clients that their connections end, and close the socket."""
        for connection in list(self._ids):
            connection.close()
            connection.settle()
            connection.abort()
        self._raw = None
        if self._neighbours is not None:
            self._neighbours.close()
        self.stop()
