"""A WebTransport client: aioquic over a blocking gevent socket. It can do what a browser does, and what none would do."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StopSendingReceived, StreamDataReceived, StreamReset

from engineio_wsgi.protocol.engineio.stream import StreamDecoder, encode_frame
from engineio_wsgi.runtime.clock import monotonic

#: seconds that a wait may take; only a failing test waits that long
PATIENCE = 60.0
CLOSE_SESSION = 0x2843
#: browsers take no certificate with a longer life for its hash
DAYS = 10


def make_certificate(folder: Path) -> dict[str, str]:
    """A certificate for 127.0.0.1 that browsers accept by its hash (P-256, a life of less than 14 days), and its key."""
    certfile, keyfile = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", str(DAYS), "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
               "-keyout", keyfile, "-out", certfile]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return {"certfile": certfile, "keyfile": keyfile}


def digest(certfile: str) -> str:
    """The SHA-256 of a certificate in hexadecimal, by which a browser may know it."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(Path(certfile).read_text())).hexdigest()


class Client:
    """One QUIC connection to a server.

    Args:
        address: the server's.
        window: bytes that the server may send on a stream before they are read.
        connect: whether to wait until the handshake is complete.
    """

    def __init__(self, address: tuple[str, int], *, window: int = 1_048_576, connect: bool = True) -> None:
        self.address = ("127.0.0.1", address[1])
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], max_datagram_frame_size=65536, verify_mode=0, max_stream_data=window,
            max_data=4 * window, server_name="127.0.0.1",
        )
        self.quic = QuicConnection(configuration=configuration)
        self._frozen: dict[int, int] = {}
        self.quic._write_stream_limits = self._write_stream_limits
        self.socket = gevent.socket.socket(gevent.socket.AF_INET, gevent.socket.SOCK_DGRAM)
        self.http: H3Connection | None = None
        self.responses: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.received: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        #: why the connection has ended
        self.terminated: ConnectionTerminated | None = None
        self._changed = gevent.event.Event()
        self.quic.connect(self.address, monotonic())
        self.send()
        self._reader = gevent.spawn(self._read)
        if connect:
            self.wait(lambda: self.http is not None)

    # -- the loop

    def send(self) -> None:
        """Send what aioquic has to send."""
        for data, address in self.quic.datagrams_to_send(monotonic()):
            self.socket.sendto(data, address)

    def _read(self) -> None:
        while self.terminated is None:
            due = self.quic.get_timer()
            wait = None if due is None else max(0.0, due - monotonic())
            self.socket.settimeout(wait)
            try:
                data, address = self.socket.recvfrom(65536)
                self.quic.receive_datagram(data, address, monotonic())
            except TimeoutError:
                self.quic.handle_timer(monotonic())
            except BlockingIOError:
                gevent.sleep(0)
                self.quic.handle_timer(monotonic())
            except OSError:
                return
            while (event := self.quic.next_event()) is not None:
                self._on_event(event)
            self.send()
            self._changed.set()
        self.socket.close()

    def _on_event(self, event: Any) -> None:
        if isinstance(event, HandshakeCompleted):
            self.http = H3Connection(self.quic, enable_webtransport=True)
        elif isinstance(event, ConnectionTerminated):
            self.terminated = event
        elif isinstance(event, (StreamReset, StopSendingReceived)):
            self.resets[event.stream_id] = event.error_code
        if isinstance(event, StreamDataReceived) and event.stream_id in self.received:
            # aioquic would take what comes on a stream of ours for frames of HTTP
            self.received[event.stream_id] += event.data
            self.ended |= {event.stream_id} if event.end_stream else set()
            return
        for received in self.http.handle_event(event) if self.http is not None else []:
            number = received.stream_id
            if isinstance(received, HeadersReceived):
                self.responses[number] = {name.decode(): value.decode() for name, value in received.headers}
                self.ended |= {number} if received.stream_ended else set()
            elif isinstance(received, DataReceived):
                self.bodies[number] = self.bodies.get(number, b"") + received.data
                self.ended |= {number} if received.stream_ended else set()

    def wait(self, condition: Callable[[], object]) -> None:
        """Block until ``condition()`` is true."""
        with gevent.Timeout(PATIENCE, AssertionError("it did not happen")):
            while not condition():
                self._changed.clear()
                self._changed.wait()

    # -- requests and sessions

    def request(self, path: str = "/engine.io/", *, origin: str | None = None, **pseudo: str) -> int:
        """Ask for a session; returns the id of the request's stream. A pseudo-header of another value is a keyword argument."""
        assert self.http is not None
        fields = {"method": "CONNECT", "scheme": "https", "authority": "{}:{}".format(*self.address), "path": path,
                  "protocol": "webtransport", **pseudo}  # fmt: skip
        headers = [(f":{name}".encode(), value.encode()) for name, value in fields.items() if value]
        headers.append((b"sec-webtransport-http3-draft02", b"1"))
        if origin is not None:
            headers.append((b"origin", origin.encode()))
        number = self.quic.get_next_available_stream_id()
        self.http.send_headers(number, headers)
        self.send()
        return number

    def response(self, number: int) -> dict[str, str]:
        """The headers of the answer to a request, its status among them."""
        self.wait(lambda: number in self.responses or self.terminated)
        return self.responses[number]

    def open(self, path: str = "/engine.io/", **options: Any) -> Stream:
        """Open a session, and a stream in it."""
        number = self.request(path, **options)
        assert self.response(number)[":status"] == "200", self.responses[number]
        return Stream(self, number)

    # -- flow control

    def pause_reading(self, stream: Stream) -> None:
        """Do not enlarge the window of a stream any more."""
        self._frozen[stream.number] = self.quic._streams[stream.number].max_stream_data_local

    def resume_reading(self, stream: Stream) -> None:
        """Enlarge it again."""
        del self._frozen[stream.number]
        self.send()

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        if stream.stream_id not in self._frozen:
            QuicConnection._write_stream_limits(self.quic, builder, space, stream)

    def is_blocked(self, stream: Stream) -> bool:
        """Whether the server's window is used up."""
        state = self.quic._streams[stream.number]
        return bool(state.sender.highest_offset >= state.max_stream_data_remote)

    def sent(self, stream: Stream) -> int:
        """Bytes that were sent on a stream."""
        return int(self.quic._streams[stream.number].sender.highest_offset)

    def move(self) -> None:
        """Go on from another port, as a client behind another address does."""
        self._reader.kill()
        self.socket.close()
        self.socket = gevent.socket.socket(gevent.socket.AF_INET, gevent.socket.SOCK_DGRAM)
        self._reader = gevent.spawn(self._read)

    def close(self) -> None:
        """Leave, as a browser does when its page is left."""
        self.quic.close(0x100)
        self.send()
        self.stop()

    def stop(self) -> None:
        """Vanish without a word."""
        self._reader.kill()
        self.socket.close()


class Stream:
    """The stream of a session, with packets in both directions."""

    def __init__(self, client: Client, session: int) -> None:
        assert client.http is not None
        self.client = client
        self.session = session
        self.number = client.http.create_webtransport_stream(session)
        client.received[self.number] = b""
        self._decoder = StreamDecoder(1 << 62)
        #: the data of the open packet
        self.opened: dict[str, Any] = {}
        self._packets: list[str | bytes] = []

    def write(self, data: bytes, end: bool = False) -> Stream:
        """Send bytes."""
        self.client.quic.send_stream_data(self.number, data, end)
        self.client.send()
        return self

    def send(self, *contents: str | bytes) -> Stream:
        """Send packets: text with its packet type, or binary messages."""
        return self.write(b"".join(map(encode_frame, contents)))

    def packet(self) -> str | bytes:
        """The next packet."""
        self.client.wait(self._has_packet)
        return self._packets.pop(0)

    def packet_or_end(self) -> str | bytes | None:
        """The next packet; ``None`` if the server has ended the session or the stream before it."""
        client = self.client
        client.wait(lambda: self._has_packet() or client.terminated or self.has_ended)
        return self._packets.pop(0) if self._has_packet() else None

    @property
    def has_ended(self) -> bool:
        """Whether the server has ended the session, or the stream."""
        return self.session in self.client.ended or self.number in self.client.resets

    def wait_delivered(self) -> None:
        """Block until the server has acknowledged what was sent, or the connection has ended."""
        sender = self.client.quic._streams[self.number].sender
        self.client.wait(lambda: not sender._buffer or self.client.terminated or self.has_ended)

    def _has_packet(self) -> bool:
        data, self.client.received[self.number] = self.client.received[self.number], b""
        self._packets += self._decoder.feed(data)
        return bool(self._packets)

    def handshake(self) -> dict[str, Any]:
        """Begin an Engine.IO session, and return the data of its open packet."""
        packet = self.send("0").packet()
        assert isinstance(packet, str) and packet[0] == "0", packet
        self.opened = json.loads(packet[1:])
        return self.opened

    @property
    def closing(self) -> tuple[int, str] | None:
        """The code and the reason with which the server has closed the session."""
        body = self.client.bodies.get(self.session, b"")
        if self.session not in self.client.ended or not body:
            return None
        buffer = Buffer(data=body)
        assert buffer.pull_uint_var() == CLOSE_SESSION
        size = buffer.pull_uint_var()
        return buffer.pull_uint32(), buffer.pull_bytes(size - 4).decode()

    def wait_closed(self) -> tuple[int, str]:
        """Block until the server has closed the session."""
        self.client.wait(lambda: self.closing is not None)
        assert self.closing is not None
        return self.closing

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the session, as a browser does."""
        assert self.client.http is not None
        content = code.to_bytes(4, "big") + reason.encode()
        capsule = encode_uint_var(CLOSE_SESSION) + encode_uint_var(len(content)) + content
        self.client.http.send_data(self.session, capsule, end_stream=True)
        self.client.send()
