"""The clients of ``reloads.py``: thousands of sessions in one process, that number their messages and check the server's.

They are cheaper than those of ``support``, and know no more of HTTP and WebSocket than the server needs of them. What they do
when a connection ends is what browsers do: a request that has got no byte of a response over a connection that was used before
is sent again over another one.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pool import Group
from support import codec

from engineio_wsgi.runtime.clock import monotonic

#: seconds that a response, a pong or an answer may take
PATIENCE = 120.0
#: seconds between two pings of a client of revision 3
PING_PERIOD = 20.0
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ENDS = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_TYPE = re.compile(rb"\r\ncontent-type: *([^\r]+)", re.IGNORECASE)


class Ended(Exception):
    """The server has closed a connection or a session."""


class Reply(NamedTuple):
    """A response."""

    status: int
    content_type: str
    body: bytes


class Connection:
    """A client's connection for requests, or for the frames that come after a handshake.

    Args:
        address: of the server.
        counters: of all clients.
    """

    def __init__(self, address: tuple[str, int], counters: Counter[str]) -> None:
        self._address = address
        self._counters = counters
        self._sock: socket.socket | None = None
        self._buffer = b""

    def request(self, method: str, target: str, body: bytes = b"", more: str = "") -> Reply:
        """Send a request and return its response. Blocks.

        Raises:
            Ended: the connection has ended before the response did.
        """
        host = f"{self._address[0]}:{self._address[1]}"
        size = f"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {len(body)}\r\n" if method == "POST" else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{size}{more}\r\n".encode()
        for _ in range(3):
            is_used = self._sock is not None
            if not is_used:
                self._open()
            try:
                self.send(head + body)
                return self._reply()
            except (Ended, OSError) as error:
                self.close()
                if not is_used or self._buffer:
                    raise Ended(f"{method}: {error or 'the connection has ended'}") from error
                self._counters["repeated requests"] += 1
        raise Ended(f"{method}: three connections have ended")

    def _open(self) -> None:
        self._buffer = b""
        self._sock = socket.create_connection(self._address, PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send bytes. Blocks."""
        if self._sock is None:
            raise Ended("the connection is closed")
        self._sock.sendall(data)

    def _receive(self) -> None:
        """Wait for more bytes."""
        sock = self._sock
        data = sock.recv(65536) if sock is not None else b""
        if not data:
            raise Ended("the connection has ended")
        self._buffer += data

    def _reply(self) -> Reply:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._receive()
        head, self._buffer = self._buffer[:end + 2], self._buffer[end + 4:]
        status = int(head[9:12])
        match = _LENGTH.search(head)
        length = int(match[1]) if match is not None else 0
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        if _ENDS.search(head) is not None:
            self.close()
        kind = _TYPE.search(head)
        return Reply(status, kind[1].decode().lower().replace(" ", "") if kind is not None else "", body)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The opcodes and payloads of the server's frames, which are never fragmented here. Blocks between them.

        Raises:
            Ended: the connection has.
        """
        while True:
            while len(self._buffer) < 2:
                self._receive()
            size, start = self._buffer[1] & 127, 2
            if size >= 126:
                start = 4 if size == 126 else 10
                while len(self._buffer) < start:
                    self._receive()
                size = int.from_bytes(self._buffer[2:start], "big")
            while len(self._buffer) < start + size:
                self._receive()
            frame = self._buffer[0] & 15, self._buffer[start:start + size]
            self._buffer = self._buffer[start + size:]
            yield frame

    def close(self) -> None:
        """Close it. Harmless if repeated."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def frame_of(opcode: int, payload: bytes) -> bytes:
    """A client's frame; its mask is 0, which is a mask as any other and takes no time."""
    size = len(payload)
    head = bytes([0x80 | opcode, 0x80 | size]) if size < 126 else bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


class Gaps:
    """The longest times of one session since the last :meth:`restart`.

    Attributes:
        silence: seconds between two messages of the server.
        wait: seconds that a message has waited for its echo.
        is_heard: whether a message has been echoed that was sent since.
    """

    def __init__(self) -> None:
        self.silence = self.wait = 0.0
        self.is_heard = False
        self._began = self._heard = monotonic()

    def restart(self) -> None:
        """Begin to measure."""
        self.silence = self.wait = 0.0
        self.await_echo()

    def await_echo(self) -> None:
        """Notice the next echo."""
        self.is_heard = False
        self._began = monotonic()

    def pause(self) -> None:
        """The client itself has asked for no messages until now."""
        self._heard = monotonic()

    def hear(self, sent: float | None = None) -> None:
        """A message has come; it is the echo of one that was ``sent`` then."""
        now = monotonic()
        self.silence = max(self.silence, now - self._heard)
        self._heard = now
        if sent is not None:
            self.wait = max(self.wait, now - sent)
            self.is_heard = self.is_heard or sent >= self._began


class Session:
    """A client that sends numbered messages without a pause.

    Args:
        address: of the server.
        kind: ``"websocket"``, ``"polling"`` or ``"upgrading"``: such a one begins with polling, goes over to WebSocket in steps
            with pauses between them, ends, and begins again.
        eio: the revision.
        period: mean seconds between two messages.
        counters: of all clients.
    """

    def __init__(self, address: tuple[str, int], kind: str, eio: int, period: float, counters: Counter[str]) -> None:
        self.kind = kind
        self.eio = eio
        self.gaps = Gaps()
        #: what has gone wrong, in words
        self.failures: list[str] = []
        self.sid = ""
        self.stage = "opening"
        self._address = address
        self._period = period
        self._counters = counters
        self._getting = Connection(address, counters)
        self._posting = Connection(address, counters)
        self._stopping = Event()
        self._begin()

    def _begin(self) -> None:
        """What belongs to one session on the server."""
        self._outbox: deque[str] = deque()
        self._unanswered: deque[tuple[int, float]] = deque()
        self._sent = self._echoed = self._pushed = 0
        self._websocket: Connection | None = None
        self._polls = True
        #: set while no POST is under way
        self._has_posted = Event()
        self._has_posted.set()
        self._is_over = False
        self._greenlets = Group()
        self._answered = Event()
        self._finished = Event()
        self._pong = Event()
        self._poller: gevent.Greenlet | None = None

    # -- its life

    def run(self) -> None:
        """Until :meth:`stop`, and until all that was sent since the beginning has been answered."""
        try:
            self._live_once()
            while self.kind == "upgrading" and not self._stopping.is_set():
                self._begin()
                self._live_once()
        except Exception as error:
            self._fail(error)
        finally:
            self._getting.close()
            self._posting.close()

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()

    @property
    def is_over(self) -> bool:
        """Whether the server has ended the session."""
        return bool(self.failures)

    def _fail(self, error: object) -> None:
        if not self._is_over:
            self._is_over = True
            self._counters["closed"] += 1
            self.failures.append(f"{self.kind}, EIO {self.eio}, {self.sid}, {self.stage}: {error!r}")
            self._stopping.set()
        for event in (self._answered, self._finished, self._pong):
            event.set()

    def _live_once(self) -> None:
        """From a handshake to the answer to the last message."""
        self.stage = "opening"
        (self._open_websocket if self.kind == "websocket" else self._open_polling)()
        self.stage = "open"
        sender = self._spawn(self._send_all)
        if self.kind == "upgrading":
            self._spawn(self._upgrade)
            self._finished.wait()
        else:
            self._stopping.wait()
        sender.kill()
        try:
            if not self._is_over:
                self._finish()
        finally:
            self._is_over = True
            self._greenlets.kill()
            if self._websocket is not None:
                self._websocket.close()

    def _spawn(self, run: Callable[[], object]) -> gevent.Greenlet:
        """Run something beside, whose failure is the session's."""

        def guard() -> None:
            try:
                run()
            except Exception as error:
                self._fail(error)

        return self._greenlets.spawn(guard)

    def _finish(self) -> None:
        """Wait for the last echoes, and for what the server says that it has sent; then close the session."""
        self.stage = "finishing"
        self._has_posted.wait()
        self._outbox.append("4stop")
        self._flush()
        if not self._answered.wait(PATIENCE):
            raise Ended(f"no answer after {PATIENCE} s: {len(self._unanswered)} messages without an echo")
        if self._is_over:
            return
        self.stage = "closing"
        self._is_over = True
        self._counters["ended by the client"] += 1
        if self._websocket is not None:
            self._websocket.send(frame_of(CLOSE, b"\x03\xe8"))
        else:
            self._posting.request("POST", self._target("polling"), codec.encode(["1"], self.eio))
        self.gaps.pause()

    # -- what is sent

    def _send_all(self) -> None:
        """Number messages, and send them."""
        pinged = monotonic()
        while True:
            gevent.sleep(self._period * random.uniform(0.5, 1.5))
            if self.eio < 4 and monotonic() > pinged + PING_PERIOD:
                pinged = monotonic()
                self._outbox.append("2")
            self._outbox.append(f"4{self._sent}")
            self._unanswered.append((self._sent, monotonic()))
            self._sent += 1
            self._counters["sent"] += 1
            if self._has_posted.is_set():
                # in a greenlet of its own: this one may be killed
                self._spawn(self._flush)

    def _flush(self) -> None:
        """Send what waits, over the transport of now."""
        while self._outbox and self._has_posted.is_set() and not self._is_over:
            packets = list(self._outbox)
            if self._websocket is not None and not self._polls:
                self._outbox.clear()
                self._websocket.send(b"".join(frame_of(TEXT, packet.encode()) for packet in packets))
                return
            if not self._polls:
                return
            self._outbox.clear()
            self._has_posted.clear()
            try:
                reply = self._posting.request("POST", self._target("polling"), codec.encode(packets, self.eio))
            finally:
                self._has_posted.set()
            if reply.status != 200:
                raise Ended(f"POST: {reply.status} {reply.body[:200]!r}")

    def _target(self, transport: str) -> str:
        sid = f"&sid={self.sid}" if self.sid else ""
        return f"/engine.io/?EIO={self.eio}&transport={transport}{sid}"

    # -- what comes

    def _take(self, packet: str) -> None:
        match packet[:1]:
            case "4":
                self._take_message(packet[1], int(packet[2:]))
            case "2":
                self._outbox.append("3" + packet[1:])
                self._spawn(self._flush)
            case "1":
                raise Ended("the server has sent a close packet")

    def _take_message(self, kind: str, number: int) -> None:
        if kind == "e":
            expected, sent = self._unanswered.popleft() if self._unanswered else (-1, 0.0)
            self.gaps.hear(sent)
            self._echoed += 1
            self._counters["echoes"] += 1
        else:
            self.gaps.hear()
            expected = self._pushed
            self._pushed += kind == "p"
            self._counters["of the server"] += kind == "p"
        if number != expected or (kind == "s" and self._unanswered):
            self._counters["disordered"] += 1
            self.failures.append(f"{self.kind}, EIO {self.eio}, {self.sid}, {self.stage}: got {kind}{number}, expected "
                                 f"{expected}; {len(self._unanswered)} messages without an echo")
        if kind == "s":
            self._answered.set()

    def _open(self, packet: str) -> None:
        self.sid = json.loads(packet[1:])["sid"]
        self._counters["sessions"] += 1
        self.gaps.pause()

    # -- polling

    def _open_polling(self) -> None:
        self.sid = ""
        while (reply := self._getting.request("GET", self._target("polling"))).status == 503:
            self._counters["refused handshakes"] += 1
            gevent.sleep(random.uniform(1.0, 2.0))
        packets = self._packets(reply)
        self._open(packets[0])
        for packet in packets[1:]:
            self._take(packet)
        self._poller = self._spawn(self._poll)

    def _packets(self, reply: Reply) -> list[str]:
        if reply.status != 200:
            raise Ended(f"GET: {reply.status} {reply.body[:200]!r}")
        return [str(packet) for packet in codec.decode(reply.body, self.eio, reply.content_type)]

    def _poll(self) -> None:
        while self._polls:
            try:
                reply = self._getting.request("GET", self._target("polling"))
            except Ended:
                if self._is_over:
                    return
                raise
            if self._is_over:
                return
            for packet in self._packets(reply):
                self._take(packet)

    # -- WebSocket

    def _open_websocket(self) -> None:
        self.sid = ""
        self._websocket = self._handshake()
        self._polls = False
        frames = self._websocket.frames()
        self._open(next(frames)[1].decode())
        self._spawn(lambda: self._read(self._websocket, frames))

    def _handshake(self) -> Connection:
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        more = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        while True:
            connection = Connection(self._address, self._counters)
            reply = connection.request("GET", self._target("websocket"), more=more)
            if reply.status == 101:
                return connection
            connection.close()
            if reply.status != 503:
                raise Ended(f"WebSocket handshake: {reply.status} {reply.body[:200]!r}")
            self._counters["refused handshakes"] += 1
            gevent.sleep(random.uniform(1.0, 2.0))

    def _read(self, connection: Connection | None, frames: Iterator[tuple[int, bytes]]) -> None:
        """Take what comes over the WebSocket that is the transport."""
        assert connection is not None
        try:
            for opcode, payload in frames:
                if opcode == TEXT:
                    self._take(payload.decode())
                elif opcode == PING:
                    connection.send(frame_of(PONG, payload))
                elif opcode == CLOSE and not self._is_over:
                    raise Ended(f"close frame {payload[:2].hex()} {payload[2:]!r}")
        except (Ended, OSError):
            if not self._is_over:
                raise

    # -- the upgrade

    def _upgrade(self) -> None:
        """Talk, go over, talk, end. A pause comes before each step, so that reloads meet all of them."""
        self._linger("talking before an upgrade")
        while (candidate := self._probe()) is None:
            self._linger("after an upgrade that failed")
        frames = self._pause_polling(candidate)
        if frames is None:
            raise Ended("the WebSocket has ended after the pong: the client would be deaf")
        self.stage = "upgraded"
        self._websocket = candidate
        self._spawn(lambda: self._read(candidate, frames))
        self._flush()
        self._linger("talking after an upgrade")
        self._finished.set()

    def _linger(self, stage: str, longest: float = 3.0) -> None:
        self.stage = stage
        self._stopping.wait(random.uniform(0.0, longest))

    def _probe(self) -> Connection | None:
        """A WebSocket that has answered the probe; ``None`` if it has ended before."""
        self.stage = "opening a WebSocket"
        candidate: Connection | None = None
        try:
            candidate = self._handshake()
            self._linger("before the probe")
            candidate.send(frame_of(TEXT, b"2probe"))
            self.stage = "probing"
            for opcode, payload in candidate.frames():
                if opcode == TEXT and payload == b"3probe":
                    return candidate
                if opcode == CLOSE:
                    break
        except (Ended, OSError) as error:
            if candidate is None:
                self._counters[f"upgrades without a handshake ({error})"] += 1
        if candidate is not None:
            candidate.close()
        self._counters["abandoned upgrades"] += 1
        return None

    def _pause_polling(self, candidate: Connection) -> Iterator[tuple[int, bytes]] | None:
        """What follows the pong: end the polling, and say that the WebSocket is the transport. Returns its frames."""
        self.stage = "after the pong"
        self._polls = False
        assert self._poller is not None
        self._poller.join()
        self._has_posted.wait()
        self._linger("polling paused", 0.5)
        if self._is_over:
            return None
        self.stage = "sending the upgrade"
        candidate.send(frame_of(TEXT, b"5"))
        self._counters["upgrades"] += 1
        self.gaps.pause()
        self._unanswered = deque((number, monotonic()) for number, _ in self._unanswered)
        return candidate.frames()
