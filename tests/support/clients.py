"""Engine.IO clients for the tests. They send nothing by themselves.

Both have the same methods, so that a test can run over either transport: ``send(*packets)``, ``recv()``, ``say(*data)``,
``hear()``, ``echo(data)``, ``vanish()``. Packets are those of `support.codec`.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any
from urllib.parse import urlencode

from support import codec
from support.codec import Packet
from support.rawhttp import PLAIN_TEXT, Headers, HttpConnection, Response
from support.rawwebsocket import Closed, WebSocketClient
from support.serving import Served


def packet_of(data: str | bytes) -> Packet:
    """The message packet that carries ``data``."""
    return "4" + data if isinstance(data, str) else data


def data_of(packet: Packet) -> str | bytes:
    """The data of a message packet."""
    if isinstance(packet, bytes):
        return packet
    assert packet[:1] == "4", f"expected a message, got the packet {packet[:80]!r}"
    return packet[1:]


class Session:
    """The base class of both kinds of client."""

    transport = ""

    def __init__(self, served: Served, eio: int, query: dict[str, str], headers: Headers) -> None:
        self.served = served
        self.eio = eio
        self.headers = list(headers)
        self.query = {"EIO": str(eio), "transport": self.transport, **query}
        self.info: dict[str, Any] = {}
        self.inbox: deque[Packet] = deque()

    @property
    def sid(self) -> str:
        """The session id."""
        return str(self.info["sid"])

    def target(self, **more: str) -> str:
        """The request target of this session's requests."""
        query = {**self.query, **more}
        if self.info:
            query.setdefault("sid", self.sid)
        return f"{self.served.path}?{urlencode(query)}"

    def opened(self, packet: Packet) -> None:
        """Note what the open packet says."""
        assert isinstance(packet, str)
        assert packet[:1] == "0"
        self.info = json.loads(packet[1:])

    def send(self, *packets: Packet) -> None:
        """Send packets, in one piece if the transport can."""
        raise NotImplementedError

    def recv(self) -> Packet:
        """The next packet."""
        raise NotImplementedError

    def vanish(self) -> None:
        """Close the TCP connection without a close packet or frame, while the server waits for data on it."""
        raise NotImplementedError

    def close(self) -> None:
        """End the session as a client does."""
        raise NotImplementedError

    def say(self, *data: str | bytes) -> None:
        """Send messages."""
        self.send(*map(packet_of, data))

    def hear(self) -> str | bytes:
        """The data of the next packet, which must be a message."""
        return data_of(self.recv())

    def echo(self, data: str | bytes) -> None:
        """Send a message, which must be the next that comes back."""
        self.say(data)
        heard = self.hear()
        assert heard == data

    def hear_many(self, count: int) -> list[str | bytes]:
        """The data of the next ``count`` packets."""
        return [self.hear() for _ in range(count)]


class PollingSession(Session):
    """A polling client with one connection for its GETs and one for its POSTs."""

    transport = "polling"

    def __init__(self, served: Served, eio: int = 4, headers: Headers = (), **query: str) -> None:
        super().__init__(served, eio, query, headers)
        self.getting = served.connect()
        self.posting = served.connect()
        self.polling = False
        self.last: Response | None = None

    def open(self) -> PollingSession:
        """Shake hands; packets after the open packet go to the inbox."""
        packets = self._packets(self.getting.get(self.target(), self.headers))
        self.opened(packets[0])
        self.inbox.extend(packets[1:])
        return self

    def _packets(self, response: Response) -> list[Packet]:
        assert response.status == 200, (response.status, response.body)
        self.last = response
        content_type = (response.header("Content-Type") or "").lower().replace(" ", "")
        assert content_type in ("text/plain;charset=utf-8", "application/octet-stream")
        return codec.decode(response.body, self.eio, content_type)

    def start_poll(self, headers: Headers = ()) -> None:
        """Send a GET without waiting."""
        self.polling = True
        self.getting.start("GET", self.target(), [*self.headers, *headers])

    def park(self) -> None:
        """Send a GET and return when the server lets it wait."""
        self.start_poll()
        self.served.settle()

    def end_poll(self) -> list[Packet]:
        """Wait for the packets that answer the GET."""
        self.polling = False
        return self._packets(self.getting.response())

    def poll(self, headers: Headers = ()) -> list[Packet]:
        """One polling cycle."""
        self.start_poll(headers)
        return self.end_poll()

    def post(self, *packets: Packet) -> Response:
        """POST packets and return whatever the answer is."""
        return self.posting.post(self.target(), codec.encode(packets, self.eio), [*self.headers, PLAIN_TEXT])

    def send(self, *packets: Packet) -> None:
        response = self.post(*packets)
        assert (response.status, response.body) == (200, b"ok")

    def recv(self) -> Packet:
        while not self.inbox:
            if not self.polling:
                self.start_poll()
            self.inbox.extend(self.end_poll())
        return self.inbox.popleft()

    def vanish(self) -> None:
        if not self.polling:
            self.park()
        self.getting.close()
        self.posting.close()

    def close(self) -> None:
        self.send("1")

    def disconnect(self) -> None:
        """Close both connections and leave the session to the server."""
        self.getting.close()
        self.posting.close()


class WebSocketSession(Session):
    """A client on a WebSocket: of a new session, or (with ``sid=``) one that may take a session over."""

    transport = "websocket"

    def __init__(
        self, served: Served, eio: int = 4, headers: Headers = (), *, http: HttpConnection | None = None, **query: str
    ) -> None:
        super().__init__(served, eio, query, headers)
        self.ws = WebSocketClient.open(http or served.connect(), self.target(), self.headers)

    def open(self) -> WebSocketSession:
        """Wait for the open packet."""
        self.opened(self.recv())
        return self

    def send(self, *packets: Packet) -> None:
        for packet in packets:
            self.ws.send(b"\x04" + packet if isinstance(packet, bytes) and self.eio < 4 else packet)

    def recv(self) -> Packet:
        if self.inbox:
            return self.inbox.popleft()
        packet = self.ws.recv()
        if isinstance(packet, bytes) and self.eio < 4:
            assert packet[:1] == b"\x04"
            return packet[1:]
        return packet

    def vanish(self) -> None:
        self.ws.http.close()

    def close(self) -> None:
        self.ws.close()
        self.ws.wait_closed()
        self.vanish()


def open_session(
    served: Served, transport: str = "polling", eio: int = 4, headers: Headers = (), **query: str
) -> Session:
    """A new session over the named transport."""
    if transport == "polling":
        return PollingSession(served, eio, headers, **query).open()
    if transport == "upgraded":
        return upgrade(PollingSession(served, eio, headers, **query).open())
    return WebSocketSession(served, eio, headers, **query).open()


def probe(polling: PollingSession) -> WebSocketSession:
    """Open a WebSocket for a polling session and probe it."""
    candidate = WebSocketSession(polling.served, polling.eio, polling.headers, sid=polling.sid)
    candidate.info = polling.info
    candidate.send("2probe")
    assert candidate.recv() == "3probe"
    return candidate


def upgrade(polling: PollingSession) -> WebSocketSession:
    """Move a polling session over, as a client does: finish the poll before the upgrade packet is sent."""
    if not polling.polling:
        polling.start_poll()
    candidate = probe(polling)
    polling.inbox.extend(p for p in polling.end_poll() if p != "6")
    candidate.inbox = polling.inbox
    candidate.send("5")
    polling.disconnect()
    return candidate


def drain(session: Session) -> list[Any]:
    """All packets that still arrive; polling clients poll until the session ends."""
    if isinstance(session, PollingSession):
        received = list(session.inbox)
        while "1" not in received:
            received += session.poll()
        return [packet for packet in received if packet not in ("1", "6")]
    assert isinstance(session, WebSocketSession)
    received = []
    try:
        while True:
            received.append(session.recv())
    except Closed:
        return received
