"""What the Autobahn test suite asks of a WebSocket server, played against a raw echo application.

Sections 1 to 7, 9 (smaller), 10, 12 and 13, by a client of our own over real sockets. Stricter than the suite in two
things: a text is refused at its first bad byte (6.4.*), and the close code that is sent has to be the right one. In each
case the connection has to end cleanly: a close frame each way, then the server's end of the stream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from support.rawhttp import ConnectionEnded, HttpConnection
from support.rawwebsocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, WebSocketClient, frame_bytes
from support.serving import ErrorText

import engineio_wsgi

pytestmark = pytest.mark.ours

MAX_SIZE = 8 << 20
Expected = list[tuple[int, bytes]]


class EchoHandler(engineio_wsgi.WebSocketHandler):
    """Takes messages as large as the suite's."""

    max_message_size = MAX_SIZE


class CompressingHandler(EchoHandler):
    """The same with permessage-deflate."""

    per_message_deflate = engineio_wsgi.Deflate(threshold=0)


class ForgetfulHandler(EchoHandler):
    """The same without context takeover."""

    per_message_deflate = engineio_wsgi.Deflate(threshold=0, context_takeover=False)


def echo(environ: dict[str, Any], start_response: object) -> list[bytes]:
    """The application."""
    websocket = environ["wsgi.websocket"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []


def serve(handler: type) -> Iterator[tuple[str, int]]:
    """A server; at its end nothing has been complained of."""
    errors = ErrorText()
    server = WSGIServer(("127.0.0.1", 0), echo, handler_class=handler, log=None, error_log=errors)
    server.start()
    yield server.address
    server.stop(timeout=1)
    assert errors.text == ""


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    yield from serve(EchoHandler)


class Player:
    """The client: sends bytes as they are, and compares what comes."""

    def __init__(self, address: tuple[str, int], offer: str | None = None) -> None:
        headers = [] if offer is None else [("Sec-WebSocket-Extensions", offer)]
        self.http = HttpConnection(address)
        self.client = WebSocketClient.open(self.http, "/", headers)

    def send(self, chunks: Iterable[bytes]) -> None:
        """Send, and let the server read, chunk by chunk."""
        for chunk in chunks:
            self.http.send(chunk)
            gevent.sleep(0)

    def expect(self, frames: Expected) -> None:
        """The next frames are these."""
        for opcode, payload in frames:
            assert self.client.read_frame() == Frame(opcode, payload, True, 0)

    def expect_close(self, code: int | None) -> None:
        """The next frame is a close frame with that code, after which the server ends the stream."""
        frame = self.client.read_frame()
        assert frame.opcode == CLOSE, frame
        got = struct.unpack("!H", frame.payload[:2])[0] if frame.payload else None
        assert got == code
        frame.payload[2:].decode()
        with pytest.raises(ConnectionEnded):
            self.http.read(1)
        self.http.close()

    def finish(self) -> None:
        """A close of ours, answered with the same code."""
        self.client.close(1000)
        self.expect_close(1000)


#: as a close code: the server has no reason to close, we do it
NOT_CLOSED = -1


def play(
    address: tuple[str, int],
    data: bytes | list[bytes],
    expected: Expected,
    code: int | None = NOT_CLOSED,
    step: int | None = None,
) -> None:
    """One case: what is sent, what is echoed, and the code that the server then closes with (``None``: no code).

    ``data`` is sent at once, or in chunks of ``step`` bytes, or in the chunks given.
    """
    player = Player(address)
    chunks = data if isinstance(data, list) else [data]
    if step is not None:
        chunks = [chunk[start : start + step] for chunk in chunks for start in range(0, len(chunk), step)]
    sender = gevent.spawn(player.send, chunks)
    player.expect(expected)
    sender.get()
    if code == NOT_CLOSED:
        player.finish()
    else:
        player.expect_close(code)


def split(payload: bytes, size: int) -> list[bytes]:
    return [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]


def fragments(opcode: int, parts: list[bytes]) -> bytes:
    """A message in as many frames."""
    last = len(parts) - 1
    return b"".join(frame_bytes(CONTINUATION if index else opcode, part, fin=index == last) for index, part in enumerate(parts))


HELLO = frame_bytes(TEXT, b"Hello, world!")
HELLO_ECHO = (TEXT, b"Hello, world!")
SHORT_STEPS = pytest.mark.parametrize("step", [None, 1], ids=["at once", "octets"])

# -- 1 framing


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    ("size", "step"),
    [(0, None), (125, None), (126, None), (127, None), (128, None), (65_535, None), (65_536, None), (65_536, 997)],
)
def test_1_framing(address: tuple[str, int], opcode: int, size: int, step: int | None) -> None:
    payload = b"*" * size if opcode == TEXT else b"\xfe" * size
    play(address, frame_bytes(opcode, payload), [(opcode, payload)], step=step)


# -- 2 pings and pongs


@SHORT_STEPS
@pytest.mark.parametrize("payload", [b"", b"Hello, world!", bytes([0, 255, 254, 253, 252, 251, 0, 255]), b"\xfe" * 125])
def test_2_1_to_2_6_ping(address: tuple[str, int], payload: bytes, step: int | None) -> None:
    play(address, frame_bytes(PING, payload), [(PONG, payload)], step=step)


def test_2_5_ping_too_long(address: tuple[str, int]) -> None:
    play(address, frame_bytes(PING, b"\xfe" * 126), [], 1002)


@pytest.mark.parametrize("payload", [b"", b"unsolicited pong payload"])
def test_2_7_to_2_9_unsolicited_pong(address: tuple[str, int], payload: bytes) -> None:
    play(address, frame_bytes(PONG, payload), [])
    play(address, frame_bytes(PONG, payload) + frame_bytes(PING, b"ping payload"), [(PONG, b"ping payload")])


@SHORT_STEPS
def test_2_10_and_2_11_ten_pings(address: tuple[str, int], step: int | None) -> None:
    payloads = [b"payload-%d" % number for number in range(10)]
    play(
        address,
        b"".join(frame_bytes(PING, payload) for payload in payloads),
        [(PONG, payload) for payload in payloads],
        step=step,
    )


# -- 3 reserved bits, 4 opcodes


@SHORT_STEPS
@pytest.mark.parametrize(("opcode", "rsv"), [(TEXT, 1), (TEXT, 2), (TEXT, 3), (TEXT, 4), (BINARY, 5), (PING, 6), (CLOSE, 7)])
def test_3_reserved_bits(address: tuple[str, int], opcode: int, rsv: int, step: int | None) -> None:
    bad = frame_bytes(opcode, b"", rsv=rsv)
    play(address, bad, [], 1002, step)
    play(address, HELLO + bad + frame_bytes(PING, b""), [HELLO_ECHO], 1002, step)


@SHORT_STEPS
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"reserved opcode payload"])
def test_4_reserved_opcodes(address: tuple[str, int], opcode: int, payload: bytes, step: int | None) -> None:
    bad = frame_bytes(opcode, payload)
    play(address, bad, [], 1002, step)
    play(address, HELLO + bad + frame_bytes(PING, b""), [HELLO_ECHO], 1002, step)


# -- 5 fragmentation


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_5_1_and_5_2_fragmented_control(address: tuple[str, int], opcode: int) -> None:
    play(address, fragments(opcode, [b"fragment1", b"fragment2"]), [], 1002)


PING_BETWEEN = frame_bytes(PING, b"ping payload")


@pytest.mark.parametrize("between", [b"", PING_BETWEEN], ids=["together", "ping between"])
@pytest.mark.parametrize("separately", [False, True], ids=["one chop", "frames"])
@pytest.mark.parametrize("step", [None, 1])
def test_5_3_to_5_8_two_fragments(address: tuple[str, int], between: bytes, separately: bool, step: int | None) -> None:
    first, second = frame_bytes(TEXT, b"fragment1", fin=False), frame_bytes(CONTINUATION, b"fragment2")
    frames = [first, between, second] if separately else [first + between + second]
    pong = [(PONG, b"ping payload")] if between else []
    play(address, frames, [*pong, (TEXT, b"fragment1fragment2")], step=step)


@SHORT_STEPS
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", [b"", b"non-continuation payload"])
def test_5_9_to_5_14_nothing_to_continue(address: tuple[str, int], fin: bool, payload: bytes, step: int | None) -> None:
    bad = frame_bytes(CONTINUATION, payload, fin=fin)
    play(address, bad + HELLO, [], 1002, step)
    play(address, fragments(TEXT, [b"frag", b"ment"]) + bad + HELLO, [(TEXT, b"fragment")], 1002, step)


def test_5_15_to_5_17_continuations_between_messages(address: tuple[str, int]) -> None:
    whole = fragments(TEXT, [b"fragment1", b"fragment2"])
    open_end = frame_bytes(CONTINUATION, b"fragment3", fin=False)
    play(address, whole + open_end + frame_bytes(TEXT, b"fragment4"), [(TEXT, b"fragment1fragment2")], 1002)
    for fin in (False, True):
        round_ = frame_bytes(CONTINUATION, b"fragment1", fin=fin) + fragments(TEXT, [b"fragment2", b"fragment3"])
        play(address, round_ * 2, [], 1002)


def test_5_18_message_in_a_message(address: tuple[str, int]) -> None:
    play(address, frame_bytes(TEXT, b"fragment1", fin=False) + frame_bytes(TEXT, b"fragment2"), [], 1002)


@SHORT_STEPS
def test_5_19_and_5_20_five_fragments_and_pings(address: tuple[str, int], step: int | None) -> None:
    parts = [b"fragment%d" % number for number in range(1, 6)]
    frames = split(fragments(TEXT, parts), len(fragments(TEXT, parts[:1])))
    chunks = [*frames[:2], frame_bytes(PING, b"pongme 1!"), *frames[2:4], frame_bytes(PING, b"pongme 2!"), frames[4]]
    play(address, chunks, [(PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, b"".join(parts))], step=step)


# -- 6 UTF-8

GOOD = "Hello-µ@ßöäüàá-UTF-8!!".encode()
KOSME = "κόσμε".encode()
#: after KOSME: up to the first byte that cannot be right, and the rest of it
BAD_AFTER_KOSME = {
    "surrogate": (b"\xed\xa0", b"\x80edited"),
    "beyond Unicode": (b"\xf4\x90", b"\x80\x80edited"),
    "lone continuation": (b"\x80", b"edited"),
    "cut short": (b"\xf0\x9f\x98e", b"dited"),
}

VALID_UTF8 = {
    "6.5 kosme": KOSME,
    "6.6 first of each length": b"\x00\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80",
    "6.7 last of each length": b"\x7f\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf",
    "6.9 other borders": b"\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd",
    "6.22 noncharacters": "".join(map(chr, [0xFFFE, 0xFFFF, *range(0x1FFFE, 0x10FFFF, 0x10000), 0x10FFFF])).encode(),
    "6.23 specials": "\ufff9\ufffc\ufffd".encode(),
    "6.2 mixed": GOOD,
}

INVALID_UTF8 = {
    "6.3 surrogate": KOSME + b"\xed\xa0\x80edited",
    "6.8 five bytes": b"\xf8\x88\x80\x80\x80",
    "6.8 six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "6.10 beyond Unicode": b"\xf4\x90\x80\x80",
    "6.11 last of five bytes": b"\xfb\xbf\xbf\xbf\xbf",
    "6.12 continuation": b"\x80",
    "6.12 continuations": b"\x80\xbf\x80\xbf",
    "6.13 lonely starts": b"\xc0 \xc1 \xc2 ",
    "6.13 lonely starts of three": b"\xe0 \xe1 ",
    "6.13 lonely starts of four": b"\xf0 \xf1 ",
    "6.14 last byte missing, two": b"\xc2",
    "6.14 last byte missing, three": b"\xe0\xa0",
    "6.14 last byte missing, four": b"\xf0\x90\x80",
    "6.15 several missing": b"\xc2\xe0\xa0\xf0\x90\x80",
    "6.16 fe": b"\xfe",
    "6.16 ff": b"\xff",
    "6.17 overlong slash": b"\xc0\xaf",
    "6.17 overlong slash, three": b"\xe0\x80\xaf",
    "6.17 overlong slash, four": b"\xf0\x80\x80\xaf",
    "6.18 highest overlong": b"\xc1\xbf\xe0\x9f\xbf\xf0\x8f\xbf\xbf",
    "6.19 overlong zero": b"\xc0\x80",
    "6.20 first high surrogate": b"\xed\xa0\x80",
    "6.20 last low surrogate": b"\xed\xbf\xbf",
    "6.21 surrogate pair": b"\xed\xa0\x80\xed\xb0\x80",
}


def test_6_1_empty_text(address: tuple[str, int]) -> None:
    play(address, frame_bytes(TEXT, b""), [(TEXT, b"")])
    play(address, fragments(TEXT, [b"", b"", b""]), [(TEXT, b"")])
    play(address, fragments(TEXT, [b"", b"middle frame payload", b""]), [(TEXT, b"middle frame payload")])


@pytest.mark.parametrize("size", [None, 11, 1], ids=["whole", "halves", "octets"])
@pytest.mark.parametrize("payload", VALID_UTF8.values(), ids=VALID_UTF8)
def test_6_valid_utf8(address: tuple[str, int], payload: bytes, size: int | None) -> None:
    play(address, fragments(TEXT, split(payload, size or len(payload))), [(TEXT, payload)])
    play(address, frame_bytes(TEXT, payload), [(TEXT, payload)], step=1)


@pytest.mark.parametrize("payload", INVALID_UTF8.values(), ids=INVALID_UTF8)
def test_6_invalid_utf8(address: tuple[str, int], payload: bytes) -> None:
    play(address, HELLO + frame_bytes(TEXT, payload), [HELLO_ECHO], 1007)
    play(address, fragments(TEXT, split(payload, 1)), [], 1007)
    play(address, frame_bytes(TEXT, payload), [], 1007, step=1)


@pytest.mark.parametrize(("bad", "rest"), BAD_AFTER_KOSME.values(), ids=BAD_AFTER_KOSME)
def test_6_4_refused_at_once_by_frames(address: tuple[str, int], bad: bytes, rest: bytes) -> None:
    """6.4.1 and 6.4.2: the last fragment is never sent."""
    player = Player(address)
    player.send([frame_bytes(TEXT, KOSME, fin=False), frame_bytes(CONTINUATION, bad, fin=False)])
    player.expect_close(1007)


@pytest.mark.parametrize(("bad", "rest"), BAD_AFTER_KOSME.values(), ids=BAD_AFTER_KOSME)
def test_6_4_refused_at_once_within_a_frame(address: tuple[str, int], bad: bytes, rest: bytes) -> None:
    """6.4.3 and 6.4.4: the rest of the frame is never sent."""
    player = Player(address)
    frame = frame_bytes(TEXT, KOSME + bad + rest)
    cut = len(frame) - len(rest)
    player.send([frame[: 6 + len(KOSME)], frame[6 + len(KOSME) : cut - 1], frame[cut - 1 : cut]])
    player.expect_close(1007)


# -- 7 the closing handshake


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame_bytes(CLOSE, struct.pack("!H", code) + reason)


def test_7_1_1_message_then_close(address: tuple[str, int]) -> None:
    play(address, HELLO + close_frame(1000), [HELLO_ECHO], 1000)


@pytest.mark.parametrize("after", [close_frame(1000), frame_bytes(PING, b""), HELLO], ids=["close", "ping", "text"])
def test_7_1_2_to_7_1_4_nothing_counts_after_a_close(address: tuple[str, int], after: bytes) -> None:
    play(address, close_frame(1000) + after, [], 1000)


def test_7_1_5_close_in_a_message(address: tuple[str, int]) -> None:
    play(
        address,
        frame_bytes(TEXT, b"fragment1", fin=False) + close_frame(1000) + frame_bytes(CONTINUATION, b"fragment2"),
        [],
        1000,
    )


def test_7_1_6_large_message_then_close(address: tuple[str, int]) -> None:
    payload = b"BAsd7&jh23" * 26_214
    play(address, frame_bytes(TEXT, payload) + close_frame(1000) + frame_bytes(PING, b""), [(TEXT, payload)], 1000)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", None),
        (b"a", 1002),
        (struct.pack("!H", 1000), 1000),
        (struct.pack("!H", 1000) + b"Hello World!", 1000),
        (struct.pack("!H", 1000) + b"*" * 123, 1000),
        (struct.pack("!H", 1000) + b"*" * 124, 1002),
        (struct.pack("!H", 1000) + KOSME + b"\xed\xa0\x80edited", 1007),
    ],
)
def test_7_3_and_7_5_close_payloads(address: tuple[str, int], payload: bytes, code: int | None) -> None:
    play(address, frame_bytes(CLOSE, payload), [], code)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_7_7_valid_close_codes(address: tuple[str, int], code: int) -> None:
    play(address, close_frame(code), [], code)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535])
@pytest.mark.parametrize("reason", [b"", b"reason"])
def test_7_9_and_7_13_invalid_close_codes(address: tuple[str, int], code: int, reason: bytes) -> None:
    play(address, close_frame(code, reason), [], 1002)


# -- 9 sizes, smaller than the suite's where its own would take seconds

ASCII = b"BAsd7&jh23" * (MAX_SIZE // 10 + 1)
OPCODES = pytest.mark.parametrize("opcode", [TEXT, BINARY])


@OPCODES
@pytest.mark.parametrize("size", [65_536, 262_144, 1 << 20, 4 << 20])
def test_9_1_and_9_2_large_messages(address: tuple[str, int], opcode: int, size: int) -> None:
    play(address, frame_bytes(opcode, ASCII[:size]), [(opcode, ASCII[:size])])


@OPCODES
@pytest.mark.parametrize(
    ("size", "fragment"),
    [(4 << 20, 64), (1 << 20, 256), (1 << 20, 1024), (4 << 20, 4096), (4 << 20, 65_536), (4 << 20, 1 << 20)],
)
def test_9_3_and_9_4_many_fragments(address: tuple[str, int], opcode: int, size: int, fragment: int) -> None:
    parts = split(ASCII[:size], fragment)
    # the suite's last fragment is an empty one
    play(address, fragments(opcode, [*parts, b""]), [(opcode, ASCII[:size])])


@OPCODES
@pytest.mark.parametrize("step", [64, 128, 256, 512, 1024, 2048])
def test_9_5_and_9_6_chops(address: tuple[str, int], opcode: int, step: int) -> None:
    size = 2048 * step
    play(address, frame_bytes(opcode, ASCII[:size]), [(opcode, ASCII[:size])], step=step)


@OPCODES
@pytest.mark.parametrize("size", [0, 16, 64, 256, 1024, 4096, 16_384, 65_536])
def test_9_7_and_9_8_round_trips(address: tuple[str, int], opcode: int, size: int) -> None:
    player = Player(address)
    for _ in range(50):
        player.send([frame_bytes(opcode, ASCII[:size])])
        player.expect([(opcode, ASCII[:size])])
    player.finish()


@OPCODES
@pytest.mark.parametrize("size", [16, 16_384])
def test_9_all_at_once(address: tuple[str, int], opcode: int, size: int) -> None:
    play(address, frame_bytes(opcode, ASCII[:size]) * 200, [(opcode, ASCII[:size])] * 200)


@pytest.mark.parametrize(
    "data",
    [
        frame_bytes(BINARY, b"")[:1] + b"\xff" + struct.pack("!Q", MAX_SIZE + 1) + b"mask",
        frame_bytes(BINARY, b"")[:1] + b"\xff" + struct.pack("!Q", 8 << 30) + b"mask" + b"x" * 100_000,
        frame_bytes(TEXT, ASCII[:MAX_SIZE], fin=False) + frame_bytes(CONTINUATION, b"x"),
    ],
    ids=["a byte too many", "8 GiB", "in fragments"],
)
def test_9_too_large(address: tuple[str, int], data: bytes) -> None:
    play(address, HELLO + data, [HELLO_ECHO], 1009)


# -- 10 what a client fragments by itself


def test_10_1_1_automatic_fragmentation(address: tuple[str, int]) -> None:
    play(address, fragments(TEXT, split(b"*" * 65_536, 1300)), [(TEXT, b"*" * 65_536)])


# -- 12 and 13 permessage-deflate


class CompressingPlayer(Player):
    """A client that has offered permessage-deflate, and keeps to what was agreed on."""

    def __init__(self, address: tuple[str, int], offer: str) -> None:
        super().__init__(address, offer)
        name, *parameters = (self.client.response.header("Sec-WebSocket-Extensions") or "").split("; ")
        assert name == "permessage-deflate"
        self.agreed = dict((parameter + "=").split("=")[:2] for parameter in parameters)
        self.reset_compressor()
        self.reset_decompressor()

    def reset_compressor(self) -> None:
        self.compressor = zlib.compressobj(wbits=-max(9, int(self.agreed.get("client_max_window_bits", 15))))

    def reset_decompressor(self) -> None:
        self.decompressor = zlib.decompressobj(-int(self.agreed.get("server_max_window_bits", 15)))

    def compress(self, payload: bytes) -> bytes:
        """The form in which a message travels."""
        if "client_no_context_takeover" in self.agreed:
            self.reset_compressor()
        return (self.compressor.compress(payload) + self.compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def round_trip(self, opcode: int, payload: bytes, fragment: int) -> int:
        """A message there and back; returns the size in which it came back."""
        data = self.compress(payload)
        frames = fragments(opcode, split(data, fragment) if fragment else [data])
        self.http.send(bytes([frames[0] | 0x40]) + frames[1:])
        frame = self.client.read_frame()
        assert (frame.opcode, frame.fin, frame.rsv) == (opcode, True, 4)
        if "server_no_context_takeover" in self.agreed:
            self.reset_decompressor()
        assert self.decompressor.decompress(frame.payload + b"\x00\x00\xff\xff") == payload
        return len(frame.payload)


def json_text(size: int) -> bytes:
    """Something of that size that compresses as such things do."""
    return b"".join(b'{"id": %d, "name": "user %d", "online": true}, ' % (n, n * n) for n in range(size // 30 + 1))[:size]


@pytest.fixture(params=[CompressingHandler, ForgetfulHandler])
def compressing(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    yield from serve(request.param)


OFFERS = {
    "13.1": "permessage-deflate; client_no_context_takeover; client_max_window_bits",
    "13.2": "permessage-deflate; server_no_context_takeover",
    "13.3": "permessage-deflate; server_max_window_bits=9",
    "13.4": "permessage-deflate; server_max_window_bits=15",
    "13.5": "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits=9",
    "13.6": "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=15",
    "13.7": "permessage-deflate; server_no_context_takeover; server_max_window_bits=8, permessage-deflate",
}


@OPCODES
@pytest.mark.parametrize(
    ("size", "fragment"),
    [
        (0, 0),
        (16, 0),
        (64, 0),
        (256, 0),
        (1024, 0),
        (4096, 0),
        (8192, 0),
        (16_384, 0),
        (32_768, 0),
        (65_536, 0),
        (131_072, 0),
        (8192, 256),
        (131_072, 4096),
    ],
)
def test_12_compression(compressing: tuple[str, int], opcode: int, size: int, fragment: int) -> None:
    player = CompressingPlayer(compressing, "permessage-deflate; client_max_window_bits")
    sizes = [player.round_trip(opcode, json_text(size), fragment) for _ in range(10)]
    assert size < 256 or max(sizes) < size / 2
    player.finish()


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize(("size", "fragment"), [(16, 0), (1024, 0), (8192, 256), (131_072, 0)])
def test_13_offers(compressing: tuple[str, int], offer: str, size: int, fragment: int) -> None:
    player = CompressingPlayer(compressing, offer)
    for opcode in (TEXT, BINARY) * 3:
        player.round_trip(opcode, json_text(size), fragment)
    player.finish()


def test_12_a_bomb(compressing: tuple[str, int]) -> None:
    player = CompressingPlayer(compressing, "permessage-deflate")
    player.http.send(frame_bytes(BINARY, player.compress(bytes(MAX_SIZE + 1)), rsv=4))
    player.expect_close(1009)
