"""A client for tests: opens sessions of an application in the same process, without a port.

Its bytes go through a pair of sockets to the real handler, so that an application's middlewares, ``allow_request`` and handlers
run as they do for a browser. For one thread, with gevent or without: the server's part runs while the client waits.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from secrets import token_bytes
from typing import Any, Self, TypeAlias
from urllib.parse import urlencode
from wsgiref.types import WSGIApplication

import gevent
from gevent import socket as gevent_socket
from gevent.lock import Semaphore
from gevent.queue import Empty, Queue

from engineio_wsgi.errors import ProtocolError, Refused, SocketClosed
from engineio_wsgi.handoff.adopter import Adopter
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio import v4
from engineio_wsgi.protocol.websocket.frames import (
    Close,
    FrameDecoder,
    Item,
    Opcode,
    Ping,
    Pong,
    Violation,
    encode_close,
    encode_frame,
)
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.server import servers
from engineio_wsgi.session.socket import Socket, as_message

__all__ = ["Client"]

#: the content of an open packet, in which each key has a type of its own
Handshake: TypeAlias = dict[str, Any]

#: seconds in which the server has to do its part
PATIENCE = 10.0
#: bytes of the largest message that the client accepts
MAX_MESSAGE = 1 << 30
#: bytes of the largest head of a response
MAX_HEAD = 65_536
#: the default address of the client
ADDRESS = "127.0.0.1"
#: the host that Django's test runner allows
DJANGO_HOST = "testserver"
END = Packet(PacketType.CLOSE)


class Client:
    """One session of a WSGI application that has an engine. Connects at once.

    Args:
        app: the application as it is deployed: what ``server.wrap`` returned, a Flask application with the extension, ….
        path: the engine's, with a slash at the end if it has one.
        transport: ``"polling"`` or ``"websocket"``; see also :meth:`upgrade`.
        headers: of every request. ``Host`` is ``localhost`` by default, and ``testserver`` under Django's test runner.
        cookies: of every request, by name; values may be ``str``, what ``get_cookie`` of Flask's test client returns, or
            Django's test client's ``cookies`` altogether.
        query: what the query of every request holds beside the protocol's.
        heartbeat: whether pings are answered; ``False`` is for tests of what happens if they are not.
        remote_address: the client's, as the application sees it.

    Raises:
        Refused: the handshake was refused.
        ProtocolError: the application has answered something that is no handshake.

    Example::

        with Client(app, cookies={"session": flask_client.get_cookie("session")}) as client:
            client.send("hello")
            assert client.receive() == "hello tobi"
    """

    def __init__(self, app: WSGIApplication, path: str = "/engine.io/", *, transport: str = "polling",
                 headers: Mapping[str, str] | None = None, cookies: Mapping[str, object] | None = None,
                 query: Mapping[str, str] | None = None, heartbeat: bool = True, remote_address: str = ADDRESS) -> None:
        self._adopter = Adopter(app)
        self._address = remote_address
        self._headers = {"Host": _default_host(), **_cookie_header(cookies), **(headers or {})}
        self._path = path
        self._query = {**(query or {}), "EIO": "4"}
        self._heartbeat = heartbeat
        self._inbox = Queue()
        self._ended = False
        self._upgrading = False
        #: the name of the transport in use
        self.transport = transport
        self._carrier: _Polling | _WebSocket = self._websocket() if transport == "websocket" else _Polling(self)
        try:
            opened = self._carrier.open()
            #: the content of the open packet: ``sid``, ``upgrades``, ``pingInterval``, …
            self.handshake: Handshake = _handshake_of(opened)
        except BaseException:
            self._carrier.end()
            raise
        self._query["sid"] = self.sid
        self._socket = self._find_socket()
        for packet in opened[1:]:
            self.take(packet)
        self._reader = gevent.spawn(self._carrier.read)

    @property
    def sid(self) -> str:
        """The session's id."""
        return str(self.handshake["sid"])

    @property
    def socket(self) -> Socket | None:
        """The server's end of the session; ``None`` if its engine is in another process."""
        if self._socket is not None and self._socket.moved:
            self._socket = self._find_socket()
        return self._socket

    def _find_socket(self) -> Socket | None:
        return next(filter(None, [server.clients.get(self.sid) for server in list(servers)]), None)

    @property
    def connected(self) -> bool:
        """Whether the session is open, as far as the client knows."""
        return not self._ended

    @property
    def close_reason(self) -> str | None:
        """The close reason, as ``close`` listeners get it; ``None`` while the session is open."""
        return None if self.socket is None else self.socket.close_reason

    # -- messages

    def send(self, *data: str | bytes) -> None:
        """Send messages; ``str`` is text, bytes-like is binary. Blocks until the server has read them.

        Raises:
            SocketClosed: the session has ended.
            Refused: the server has not taken them.
            TypeError: a message has another type.
        """
        packets = [Packet(PacketType.MESSAGE, as_message(each)) for each in data]
        if self._ended:
            raise SocketClosed("the session has ended", self.close_reason)
        self._carrier.send(packets)

    def receive(self, timeout: float = 5.0) -> str | bytes:
        """The next message. Blocks until there is one.

        Raises:
            TimeoutError: there was none within ``timeout`` seconds.
            SocketClosed: the session has ended, and there will be none.
        """
        deadline = Deadline(timeout)
        while self._inbox.empty():
            if deadline.has_passed():
                raise TimeoutError(f"no message within {timeout:g} s; the session is open, over {self.transport}")
            with suppress(Empty):
                self._inbox.peek(timeout=deadline.left)
        packet: Packet = self._inbox.get()
        if packet is END:
            self._inbox.put(END)
            raise SocketClosed(f"no message will come: the session has ended ({self.close_reason or 'the server is gone'})",
                               self.close_reason)
        return packet.data

    def wait_closed(self, timeout: float = 5.0) -> str | None:
        """Block until the session has ended on both sides. Returns the :attr:`close_reason`.

        Raises:
            TimeoutError: it has not within ``timeout`` seconds.
        """
        deadline = Deadline(timeout)
        while not self._ended or (self.socket is not None and not self.socket.closed):
            if deadline.has_passed():
                raise TimeoutError(f"the session is still open after {timeout:g} s, over {self.transport}")
            gevent.sleep(0.001)
        return self.close_reason

    # -- upgrade and end

    def upgrade(self) -> None:
        """Upgrade a polling session to WebSocket. Blocks until the upgrade is done.

        Raises:
            Refused: the server refused the upgrade.
        """
        candidate = self._websocket()
        self._upgrading = True
        try:
            candidate.open(probing=True)
        except BaseException:
            candidate.end()
            self._upgrading = False
            self._reader.join(0)
            if self._reader.dead:
                self._reader = gevent.spawn(self._carrier.read)
            raise
        # the server answers the poll that is waiting, which ends the reader
        self._reader.join(PATIENCE)
        candidate.write(Packet(PacketType.UPGRADE))
        self._carrier.end()
        self._carrier, self.transport, self._upgrading = candidate, "websocket", False
        self._reader = gevent.spawn(candidate.read)

    def close(self) -> None:
        """Send a close packet, and wait until the server has ended the session. Harmless if repeated."""
        if not self._ended:
            self._carrier.goodbye()
            self._end()
            if self.socket is not None:
                self.socket.wait_closed(PATIENCE)
        self._clear_away()

    def vanish(self) -> None:
        """Close the connections without a close packet, as a browser that crashes does. Does not block."""
        self._end()
        self._clear_away()

    def _clear_away(self) -> None:
        self._carrier.end()
        self._reader.kill()
        self._adopter.close(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- called by _Polling and _WebSocket

    def connect(self) -> gevent_socket.socket:
        """A new connection to the application: a gevent socket."""
        ours, theirs = gevent_socket.socketpair()
        ours.settimeout(None)
        origin = {"SERVER_NAME": "localhost", "SERVER_PORT": "80"}
        self._adopter.adopt(theirs, (self._address, 0), environ=origin)
        return ours

    def target(self, transport: str) -> str:
        """The path and query of a request."""
        return f"{self._path}?{urlencode({**self._query, 'transport': transport})}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        return self._headers

    @property
    def upgrading(self) -> bool:
        """Whether polling has to stop, because the session is upgrading."""
        return self._upgrading

    def take(self, packet: Packet) -> None:
        """Handle a packet that has arrived."""
        if packet.type is PacketType.MESSAGE:
            self._inbox.put(packet)
        elif packet.type is PacketType.PING and self._heartbeat:
            # the session may have ended meanwhile, and then the answer is not needed
            with suppress(Refused, SocketClosed):
                self._carrier.send([Packet(PacketType.PONG, packet.data)])
        elif packet.type is PacketType.CLOSE:
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._inbox.put(END)

    def _websocket(self) -> _WebSocket:
        return _WebSocket(self)


class _Connection(HTTPConnection):
    """An HTTP client on a connected socket."""

    def __init__(self, sock: gevent_socket.socket) -> None:
        super().__init__("localhost")
        self.sock = sock
        self.auto_open = 0


class _Polling:
    """The GETs and POSTs of a session."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._getting = _Connection(client.connect())
        self._posting = _Connection(client.connect())
        # a pong may be posted while the test posts a message
        self._one_at_a_time = Semaphore()

    def open(self) -> list[Packet]:
        """Send the handshake. Returns the packets of the response."""
        return v4.decode_payload(self._request(self._getting, "GET"))

    def read(self) -> None:
        """Poll until the session has ended or upgrades."""
        client = self._client
        while client.connected and not client.upgrading:
            try:
                packets = v4.decode_payload(self._request(self._getting, "GET"))
            except (Refused, OSError, HTTPException):
                packets = [END]
            for packet in packets:
                client.take(packet)

    def send(self, packets: list[Packet]) -> None:
        """POST packets."""
        try:
            with self._one_at_a_time:
                self._request(self._posting, "POST", v4.encode_payload(packets))
        except (OSError, HTTPException) as error:
            raise SocketClosed(f"the server has closed the connection: {error}", self._client.close_reason) from error

    def goodbye(self) -> None:
        """Send a close packet. The session may have ended already."""
        try:
            self.send([Packet(PacketType.CLOSE)])
        except (Refused, SocketClosed):
            return

    def end(self) -> None:
        """Close the connections."""
        self._getting.close()
        self._posting.close()

    def _request(self, connection: _Connection, method: str, body: bytes | None = None) -> bytes:
        headers = self._client.headers if body is None else {**self._client.headers, "Content-Type": "text/plain;charset=UTF-8"}
        connection.request(method, self._client.target("polling"), body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise Refused(response.status, content)
        return content


class _WebSocket:
    """The WebSocket of a session, or the candidate of an upgrade."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sock = client.connect()
        self._decoder = FrameDecoder(MAX_MESSAGE, masked=False)
        self._items: list[Item] = []

    def open(self, probing: bool = False) -> list[Packet]:
        """Send the handshake. Returns the first packet, or the answer to a probe."""
        headers = {
            **self._client.headers, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": b64encode(token_bytes(16)).decode(),
        }  # fmt: skip
        lines = [f"GET {self._client.target('websocket')} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
        self._sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._take_head()
        if probing:
            self.write(Packet(PacketType.PING, "probe"))
        packet = self._next()
        if probing and (packet.type, packet.data) != (PacketType.PONG, "probe"):
            raise ProtocolError(f"the answer to the probe was {packet!r}")
        return [packet]

    def _take_head(self) -> None:
        """Read the response, and leave the frames that follow it in the connection.

        Raises:
            Refused: it is none that switches protocols.
        """
        with gevent.Timeout(PATIENCE, TimeoutError("the WebSocket handshake was not answered")):
            while b"\r\n\r\n" not in (head := self._sock.recv(MAX_HEAD, gevent_socket.MSG_PEEK)):
                if not head:
                    raise ProtocolError("the connection was closed instead of a response to the WebSocket handshake")
                gevent.sleep(0.001)
        if head.startswith(b"HTTP/1.1 101 "):
            self._sock.recv(head.index(b"\r\n\r\n") + 4)
            return
        response = HTTPResponse(self._sock)
        response.begin()
        raise Refused(response.status, response.read())

    def read(self) -> None:
        """Read until the session has ended."""
        while self._client.connected:
            self._client.take(self._next())

    def _next(self) -> Packet:
        """The next packet; `END` when the connection has ended."""
        while True:
            while self._items:
                item = self._items.pop(0)
                if isinstance(item, Ping):
                    self._write(Opcode.PONG, item.payload)
                elif isinstance(item, Close):
                    return END
                elif isinstance(item, Violation):
                    raise ProtocolError(f"the server has sent a WebSocket frame that is not valid: {item.reason}")
                elif not isinstance(item, Pong):
                    return v4.decode_packet(item)
            try:
                data = self._sock.recv(MAX_HEAD)
            except OSError:
                data = b""
            if not data:
                return END
            self._items = self._decoder.feed(data)

    def send(self, packets: list[Packet]) -> None:
        """Send packets, and let the server read them."""
        for packet in packets:
            self.write(packet)
        gevent.sleep(0)

    def write(self, packet: Packet) -> None:
        """Send one packet."""
        frame = v4.encode_packet(packet)
        if isinstance(frame, str):
            self._write(Opcode.TEXT, frame.encode("utf-8", "replace"))
        else:
            self._write(Opcode.BINARY, frame)

    def _write(self, opcode: int, payload: bytes) -> None:
        try:
            self._sock.sendall(_masked(encode_frame(opcode, payload), len(payload)))
        except OSError as error:
            raise SocketClosed(f"the server has closed the connection: {error}", self._client.close_reason) from error

    def goodbye(self) -> None:
        """Send a close packet. The session may have ended already."""
        close = encode_close()
        try:
            self._sock.sendall(_masked(close, len(close) - 2))
        except OSError:
            return

    def end(self) -> None:
        """Close the connection."""
        self._sock.close()


def _masked(frame: bytes, size: int) -> bytes:
    """Make a client's frame of a server's frame with ``size`` bytes of payload: it is masked with zeros."""
    head = len(frame) - size
    return frame[:1] + bytes((frame[1] | 0x80,)) + frame[2:head] + bytes(4) + frame[head:]


def _default_host() -> str:
    """``localhost``; in Django's test runner the one host that it allows for its own test client."""
    django = sys.modules.get("django.conf")
    is_django = django is not None and django.settings.configured and DJANGO_HOST in django.settings.ALLOWED_HOSTS
    return DJANGO_HOST if is_django else "localhost"


def _handshake_of(packets: list[Packet]) -> Handshake:
    """The content of the open packet, which is the first of a session.

    Raises:
        ProtocolError: it is another one.
    """
    if not packets or packets[0].type is not PacketType.OPEN:
        raise ProtocolError(f"a session does not begin with {packets[:1]!r}")
    opened: Handshake = json.loads(packets[0].data)
    return opened


def _cookie_header(cookies: Mapping[str, object] | None) -> dict[str, str]:
    """The header that carries cookies; empty without cookies."""
    pairs = [f"{name}={getattr(value, 'value', value)}" for name, value in (cookies or {}).items()]
    return {"Cookie": "; ".join(pairs)} if pairs else {}
