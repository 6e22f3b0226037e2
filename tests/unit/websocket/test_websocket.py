"""The application's WebSocket over a real socket pair: the methods of gevent-websocket's, and the closing handshake."""

from __future__ import annotations

import gc
import weakref
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket
from gevent.exceptions import ConcurrentObjectUseError
from geventwebsocket.exceptions import WebSocketError
from support.rawwebsocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame_bytes

from engineio_wsgi.errors import UsageError
from engineio_wsgi.protocol.websocket.frames import Close, FrameDecoder, Item, Ping, Pong
from engineio_wsgi.protocol.websocket.handshake import HandshakeRefused
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.websocket import frame_writer
from engineio_wsgi.websocket.websocket import WebSocket

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "PATH_INFO": "/chat",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_ORIGIN": "http://example.com",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


class Deflate:
    threshold = 10
    level = 6
    memory_level = 5
    context_takeover = True


class Client:
    """The other end: says what it is told to, and reads what comes."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.decoder = FrameDecoder(1 << 30, masked=False)
        self.items: list[Item] = []

    def read_head(self) -> bytes:
        """The handshake's response."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        return head

    def say(self, opcode: int, payload: bytes, **options: Any) -> None:
        """Send one frame."""
        self.sock.sendall(frame_bytes(opcode, payload, **options))

    def hear(self) -> Item | None:
        """The next item; ``None`` at the end of the stream."""
        while not self.items:
            data = self.sock.recv(65_536)
            if not data:
                return None
            self.items += self.decoder.feed(data)
        return self.items.pop(0)


class Scene:
    """A WebSocket and its client."""

    def __init__(self) -> None:
        near, far = gevent_socket.socketpair()
        far.settimeout(60)
        self.near = near
        self.client = Client(far)
        self.wires: list[Connection] = []

    def answer_handshake(self, head: bytes, more: bool) -> Connection:
        """What the handler does."""
        wire = Connection(detach(self.near))
        self.wires.append(wire)
        wire.write(head)
        return wire

    def offer(self, changes: dict[str, str] | None = None, **settings: Any) -> WebSocket:
        """A WebSocket that nobody has used yet."""
        return WebSocket({**ENVIRON, **(changes or {})}, self.answer_handshake, **settings)

    def open(self, changes: dict[str, str] | None = None, **settings: Any) -> WebSocket:
        """An accepted one, the response read."""
        websocket = self.offer(changes, **settings)
        websocket.accept()
        self.client.read_head()
        return websocket


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.client.sock.close()
    for wire in scene.wires:
        wire.close()
    scene.near.close()


# -- the handshake


@pytest.mark.parametrize(
    "use",
    [
        lambda websocket: websocket.closed,
        lambda websocket: websocket.accept(),
        lambda websocket: websocket.send("x"),
        lambda websocket: websocket.send_frame(b"x", WebSocket.OPCODE_PING),
        lambda websocket: websocket.close(),
        lambda websocket: gevent.spawn(websocket.receive).join(0),
    ],
    ids=["closed", "accept", "send", "send_frame", "close", "receive"],
)
def test_every_use_accepts(scene: Scene, use: Callable[[WebSocket], object]) -> None:
    websocket = scene.offer()
    assert not websocket.accepted
    assert websocket.refusal is None
    use(websocket)
    assert websocket.accepted
    head = scene.client.read_head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    websocket.accept()
    assert len(scene.wires) == 1
    websocket.finish()


def test_looking_does_not_accept(scene: Scene) -> None:
    handler = SimpleNamespace(logger=object(), server=SimpleNamespace(application=SimpleNamespace(current_app="app")))
    websocket = scene.offer(handler=handler)
    assert (websocket.origin, websocket.path, websocket.version) == ("http://example.com", "/chat", "13")
    assert websocket.protocol is None
    assert websocket.handler is handler
    assert websocket.logger is handler.logger
    assert websocket.current_app == "app"
    assert websocket.environ["PATH_INFO"] == "/chat"
    websocket.finish()
    assert not websocket.accepted
    assert not scene.wires


def test_refusal(scene: Scene) -> None:
    websocket = scene.offer({"HTTP_SEC_WEBSOCKET_KEY": "bad"})
    assert "Sec-WebSocket-Key" in str(websocket.refusal)
    for use in (websocket.accept, websocket.receive, websocket.close, lambda: websocket.send("x"), lambda: websocket.closed):
        with pytest.raises(HandshakeRefused):
            use()
    assert not websocket.accepted
    assert not scene.wires


def test_headers_and_sub_protocols(scene: Scene) -> None:
    websocket = scene.offer({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a, b"}, protocols=["b", "c"])
    assert websocket.protocol == "a, b"
    websocket.accept([("Set-Cookie", "a=b")])
    head = scene.client.read_head()
    assert b"\r\nSet-Cookie: a=b\r\n" in head
    assert b"\r\nSec-WebSocket-Protocol: b\r\n" in head
    assert websocket.protocol == "b"


def test_a_sub_protocol_of_the_application(scene: Scene) -> None:
    websocket = scene.offer({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a, b"})
    with pytest.raises(ValueError, match="'c' was not offered, only a, b"):
        websocket.accept(protocol="c")
    websocket.accept(protocol="b")
    assert b"\r\nSec-WebSocket-Protocol: b\r\n" in scene.client.read_head()


def test_the_client_has_gone(scene: Scene) -> None:
    def answer_handshake(head: bytes, more: bool) -> Connection:
        raise BrokenPipeError("gone")

    websocket = WebSocket(dict(ENVIRON), answer_handshake)
    with pytest.raises(WebSocketError):
        websocket.accept()
    assert websocket.closed


# -- messages


@pytest.mark.parametrize(
    ("opcode", "payload", "message"),
    [
        (TEXT, "añ😀".encode(), "añ😀"),
        (BINARY, b"\x00\xff", b"\x00\xff"),
        (TEXT, b"", ""),
        (BINARY, b"", b""),
        (TEXT, b"x" * 100_000, "x" * 100_000),
        (BINARY, b"x" * 100_000, b"x" * 100_000),
    ],
)
def test_echo(scene: Scene, opcode: int, payload: bytes, message: str | bytes) -> None:
    websocket = scene.open()
    scene.client.say(opcode, payload)
    received = websocket.receive()
    assert received == message
    assert type(received) is type(message)
    websocket.send(received)
    assert scene.client.hear() == message


def test_messages_in_one_packet_come_in_order(scene: Scene) -> None:
    websocket = scene.open()
    data = [frame_bytes(TEXT, str(n).encode()) for n in range(20)]
    scene.client.sock.sendall(b"".join(data) + frame_bytes(CLOSE, b"\x03\xe8"))
    assert [websocket.receive() for _ in range(21)] == [*map(str, range(20)), None]


def test_a_fragmented_message(scene: Scene) -> None:
    websocket = scene.open()
    reader = gevent.spawn(websocket.receive)
    scene.client.say(TEXT, b"a", fin=False)
    scene.client.say(PING, b"between")
    assert scene.client.hear() == Pong(b"between")
    scene.client.say(CONTINUATION, b"b")
    assert reader.get(timeout=60) == "ab"


def test_pings_are_answered_in_order(scene: Scene) -> None:
    websocket = scene.open()
    scene.client.sock.sendall(
        frame_bytes(PING, b"1") + frame_bytes(PONG, b"unasked") + frame_bytes(PING, b"2") + frame_bytes(TEXT, b"x")
    )
    assert websocket.receive() == "x"
    assert [scene.client.hear(), scene.client.hear()] == [Pong(b"1"), Pong(b"2")]


@pytest.mark.parametrize(
    ("message", "binary", "heard"),
    [
        ("text", None, "text"),
        (b"bytes", None, b"bytes"),
        (bytearray(b"array"), None, b"array"),
        (memoryview(b"view"), None, b"view"),
        ("text", True, b"text"),
        (b"bytes", False, "bytes"),
        ("text", False, "text"),
        (b"bytes", True, b"bytes"),
        ("a\ud800", None, "a\ufffd"),
    ],
)
def test_send(scene: Scene, message: Any, binary: bool | None, heard: str | bytes) -> None:
    scene.open().send(message, binary)
    assert scene.client.hear() == heard


def test_send_refuses(scene: Scene) -> None:
    websocket = scene.open()
    for wrong in (None, 5, ["x"]):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            websocket.send(wrong)
    with pytest.raises(UnicodeDecodeError):
        websocket.send(b"\xff", binary=False)
    with pytest.raises(ValueError, match="126 bytes in a ping"):
        websocket.send_frame(b"x" * 126, WebSocket.OPCODE_PING)
    for opcode in (WebSocket.OPCODE_CONTINUATION, WebSocket.OPCODE_CLOSE, 3):
        with pytest.raises(ValueError, match="cannot be sent"):
            websocket.send_frame(b"", opcode)
    websocket.send_frame("ping", WebSocket.OPCODE_PING)
    websocket.send_frame("pong", WebSocket.OPCODE_PONG)
    websocket.send_frame("text", WebSocket.OPCODE_TEXT)
    websocket.send_frame(b"bytes", WebSocket.OPCODE_BINARY)
    assert [scene.client.hear() for _ in range(4)] == [Ping(b"ping"), Pong(b"pong"), "text", b"bytes"]


def test_compression(scene: Scene) -> None:
    websocket = scene.offer({"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate"}, deflate=Deflate())
    websocket.accept()
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n" in scene.client.read_head()
    compressor, decompressor = zlib.compressobj(wbits=-15), zlib.decompressobj(-12)
    for message in ("first message", "first message"):
        data = compressor.compress(message.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        scene.client.say(TEXT, data[:-4], rsv=4)
        assert websocket.receive() == message
        websocket.send(message)
        head = scene.client.sock.recv(2)
        assert head[0] == 0xC1
        payload = scene.client.sock.recv(head[1])
        assert decompressor.decompress(payload + b"\x00\x00\xff\xff") == message.encode()
    websocket.send("short")
    assert scene.client.hear() == "short"
    websocket.send_frame(b"longer than the threshold", WebSocket.OPCODE_PING)
    assert scene.client.hear() == Ping(b"longer than the threshold")


def test_compression_is_not_forced(scene: Scene) -> None:
    websocket = scene.offer(deflate=Deflate())
    websocket.accept()
    assert b"Extensions" not in scene.client.read_head()
    websocket.send("long enough to be compressed")
    assert scene.client.hear() == "long enough to be compressed"


def test_answers_to_a_batch_go_out_together_and_at_once(scene: Scene) -> None:
    websocket = scene.open()
    scene.client.sock.sendall(b"".join(frame_bytes(TEXT, b"%d" % n) for n in range(5)) + frame_bytes(PING, b"?"))
    messages = [websocket.receive() for _ in range(5)]
    for message in messages[:3]:
        websocket.send(message)
    # the ping has not been looked at yet: so more may be to come, and only the hub sends these
    assert scene.client.sock.recv(100) == b"\x81\x010\x81\x011\x81\x012"
    websocket.send(messages[3])
    websocket.close()
    assert [scene.client.hear(), scene.client.hear()] == ["3", Close(1000, "")]


# -- back-pressure


def send_until_it_fails(websocket: WebSocket) -> Exception:
    """What a sender runs into that does not look at anything."""
    try:
        while True:
            websocket.send(b"x" * 1_000_000)
    except OSError as error:
        return error


def test_a_slow_client_holds_up_the_sender(scene: Scene) -> None:
    websocket = scene.open()
    sent = []

    def send() -> None:
        for number in range(40):
            websocket.send(bytes([number]) * 100_000)
            sent.append(number)

    senders = [gevent.spawn(send), gevent.spawn(send)]
    gevent.idle()
    assert len(sent) < 80
    heard = [scene.client.hear() for _ in range(80)]
    gevent.joinall(senders, timeout=60, raise_error=True)
    assert len(sent) == 80
    assert sorted(heard) == sorted(bytes([number]) * 100_000 for number in range(40) for _ in range(2))


def test_a_client_that_takes_nothing_is_given_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_writer, "SEND_TIMEOUT", 0.01)
    websocket = scene.open()
    with pytest.raises(WebSocketError):
        while True:
            websocket.send(b"x" * 1_000_000)
    assert websocket.closed


def test_a_client_that_goes_away_ends_the_wait(scene: Scene) -> None:
    websocket = scene.open()

    sender = gevent.spawn(send_until_it_fails, websocket)
    gevent.idle()
    scene.client.sock.close()
    assert isinstance(sender.get(timeout=60), WebSocketError)
    assert websocket.closed


def test_closing_ends_the_wait(scene: Scene) -> None:
    websocket = scene.open()
    sender = gevent.spawn(send_until_it_fails, websocket)
    gevent.idle()
    websocket.close()
    assert isinstance(sender.get(timeout=60), WebSocketError)


# -- the end


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_the_client_closes(scene: Scene, code: int) -> None:
    websocket = scene.open()
    scene.client.say(CLOSE, code.to_bytes(2, "big") + b"bye")
    assert websocket.receive() is None
    assert websocket.closed
    assert scene.client.hear() == Close(code, "")
    assert scene.client.hear() is None
    for use in (websocket.receive, lambda: websocket.send("x"), lambda: websocket.send_frame("x", TEXT)):
        with pytest.raises(WebSocketError, match="already closed"):
            use()
    # as often as one likes
    websocket.close()


def test_the_client_closes_without_a_code(scene: Scene) -> None:
    websocket = scene.open()
    scene.client.say(CLOSE, b"")
    assert websocket.receive() is None
    assert scene.client.hear() == Close(None, "")


@pytest.mark.parametrize(
    ("arguments", "heard"),
    [
        ((), Close(1000, "")),
        ((1001,), Close(1001, "")),
        ((4000, "why"), Close(4000, "why")),
        ((1000, b"why"), Close(1000, "why")),
        ((1000, None), Close(1000, "")),
        ((1000, "x" * 200), Close(1000, "x" * 123)),
    ],
)
def test_the_application_closes(scene: Scene, arguments: tuple[Any, ...], heard: Close) -> None:
    websocket = scene.open()
    websocket.close(*arguments)
    assert websocket.closed
    assert scene.client.hear() == heard
    scene.client.say(CLOSE, b"\x03\xe8")
    assert scene.client.hear() is None
    with pytest.raises(WebSocketError):
        websocket.receive()


@pytest.mark.parametrize("code", [0, 1004, 1005, 1006, 1015, 2000, 5000])
def test_codes_that_must_not_be_sent(scene: Scene, code: int) -> None:
    websocket = scene.open()
    with pytest.raises(ValueError, match="must not be sent"):
        websocket.close(code)
    assert not websocket.closed


def test_the_application_returns(scene: Scene) -> None:
    scene.open().finish()
    assert scene.client.hear() == Close(1000, "")


def test_the_application_fails(scene: Scene) -> None:
    websocket = scene.open()
    websocket.finish(1011)
    websocket.finish(1000)
    assert scene.client.hear() == Close(1011, "")
    assert scene.client.hear() is None


def test_closing_wakes_the_receiver(scene: Scene) -> None:
    websocket = scene.open()
    reader = gevent.spawn(websocket.receive)
    gevent.idle()
    websocket.close(1001)
    assert reader.get(timeout=60) is None
    assert scene.client.hear() == Close(1001, "")
    # what still comes does not matter, and the connection ends when the client ends it
    scene.client.say(TEXT, b"late")
    assert scene.client.hear() is None
    scene.client.sock.close()
    with gevent.Timeout(60):
        while not scene.wires[0].closed:
            gevent.sleep(0)


def test_only_one_may_receive(scene: Scene) -> None:
    websocket = scene.open()
    reader = gevent.spawn(websocket.receive)
    gevent.idle()
    with pytest.raises(ConcurrentObjectUseError):
        websocket.receive()
    scene.client.say(TEXT, b"x")
    assert reader.get(timeout=60) == "x"


def test_a_receiver_that_gives_up_loses_nothing(scene: Scene) -> None:
    websocket = scene.open()
    with gevent.Timeout(0.001, False):
        websocket.receive()
    scene.client.say(TEXT, b"x")
    assert websocket.receive() == "x"


def test_the_client_disappears(scene: Scene) -> None:
    websocket = scene.open()
    scene.client.say(TEXT, b"unfinished", fin=False)
    scene.client.sock.close()
    assert websocket.receive() is None
    assert websocket.closed
    assert scene.wires[0].closed


def test_sending_after_the_client_has_gone(scene: Scene) -> None:
    websocket = scene.open()
    scene.client.sock.close()
    with pytest.raises(WebSocketError, match="dead"):
        websocket.send("x")
    assert websocket.closed


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame_bytes(TEXT, b"x", masked=False), 1002),
        (frame_bytes(TEXT, b"\xff"), 1007),
        (frame_bytes(TEXT, b"x" * 101), 1009),
        (frame_bytes(CLOSE, b"\x03\xed"), 1002),
    ],
    ids=["unmasked", "not UTF-8", "too large", "reserved code"],
)
def test_violations(scene: Scene, data: bytes, code: int) -> None:
    websocket = scene.open(max_size=100)
    scene.client.sock.sendall(frame_bytes(TEXT, b"before") + data + frame_bytes(TEXT, b"after"))
    assert websocket.receive() == "before"
    assert websocket.receive() is None
    assert websocket.closed
    close = scene.client.hear()
    assert isinstance(close, Close)
    assert close.code == code
    assert close.reason
    assert scene.client.hear() is None


def test_gevent_websockets_applications_are_told(scene: Scene) -> None:
    told: list[str] = []
    application = SimpleNamespace(current_app=SimpleNamespace(on_close=told.append))
    websocket = scene.open(handler=SimpleNamespace(server=SimpleNamespace(application=application)))
    scene.client.sock.close()
    assert websocket.receive() is None
    with pytest.raises(WebSocketError):
        websocket.receive()
    assert told == ["Connection closed", "Connection is already closed"]


@pytest.mark.parametrize(
    "end",
    [
        lambda websocket, client: websocket.close(),
        lambda websocket, client: (client.sock.close(), websocket.receive()),
        lambda websocket, client: websocket.detach([], None),
    ],
    ids=["closed", "lost", "taken"],
)
def test_nothing_is_left_for_the_garbage_collector(scene: Scene, end: Callable[..., object]) -> None:
    websocket = scene.open()
    gone = weakref.ref(websocket)
    gc.disable()
    try:
        end(websocket, scene.client)
        del websocket
        gevent.idle()
        assert gone() is None
    finally:
        gc.enable()


# -- taken over


def test_detach(scene: Scene) -> None:
    websocket = scene.offer({"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate"})
    wire, parameters = websocket.detach([("Set-Cookie", "io=1")], Deflate())
    head = scene.client.read_head()
    assert b"Set-Cookie: io=1" in head
    assert b"permessage-deflate" in head
    assert wire is scene.wires[0]
    assert parameters is not None
    assert parameters.memory_level == 5
    # it is no longer this object's to close
    assert websocket.closed
    websocket.close()
    websocket.finish()
    assert not wire.closed
    with pytest.raises(WebSocketError):
        websocket.send("x")
    with pytest.raises(UsageError):
        websocket.detach([], None)


def test_detach_after_accept(scene: Scene) -> None:
    websocket = scene.open()
    wire, parameters = websocket.detach([], Deflate())
    assert wire is scene.wires[0]
    assert parameters is None


def test_detach_after_receive(scene: Scene) -> None:
    websocket = scene.open()
    scene.client.say(TEXT, b"x")
    websocket.receive()
    with pytest.raises(UsageError):
        websocket.detach([], None)


def test_detach_of_a_refused_one(scene: Scene) -> None:
    with pytest.raises(HandshakeRefused):
        scene.offer({"HTTP_CONNECTION": "close"}).detach([], None)
