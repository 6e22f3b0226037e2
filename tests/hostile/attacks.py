"""Attacks on a running server, each a function that goes on until it is stopped: ``python tests/hostile/attacks.py NAME PORT``.

They use the raw clients of the tests, and take whatever the server does to them. What each finds wrong by itself (a header that
should not have been there) it prints; then the process ends with status 1.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import resource
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from support.clients import PollingSession, WebSocketSession, open_session
from support.rawhttp import ConnectionEnded, HttpConnection
from support.rawwebsocket import Closed, Refused, WebSocketClient, frame_bytes
from support.serving import EventLog, Served

#: what the server may do to an attacker
ANSWERS = (ConnectionEnded, Closed, Refused, OSError, AssertionError, ValueError)
GIB = 1 << 30
TARGET = "/engine.io/?EIO=4&transport=polling"
WEBSOCKET = "/engine.io/?EIO=4&transport=websocket"

Attack = Callable[[Served], None]


class Wrong(Exception):
    """The server has done what it must not."""


def together(count: int, task: Attack, served: Served) -> None:
    """So many attackers at a time, each again and again."""

    def again() -> None:
        while True:
            with contextlib.suppress(*ANSWERS):
                task(served)
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(again) for _ in range(count)], raise_error=True)


# -- connections

def half_open(served: Served) -> None:
    """10,000 connections, as far as files allow, with half a request head."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    connections = []
    with contextlib.suppress(OSError):
        for _ in range(min(10_000, limit - 100)):
            connections.append(served.connect())
            connections[-1].send(b"GET /engine.io/?EIO=4 HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    gevent.sleep(3600)


def byte_by_byte(data: bytes) -> Attack:
    """200 connections that send a byte a second."""

    def drip(served: Served) -> None:
        connection = served.connect()
        for index in range(len(data)):
            connection.send(data[index:index + 1])
            gevent.sleep(1)

    return lambda served: together(200, drip, served)


def slow_frames(served: Served) -> None:
    """200 WebSockets that send a byte a second of a frame."""

    def drip(served: Served) -> None:
        session = WebSocketSession(served).open()
        for byte in frame_bytes(1, b"4" + b"x" * 5000):
            session.ws.http.send(bytes([byte]))
            gevent.sleep(1)

    together(200, drip, served)


def connect_and_abort(served: Served) -> None:
    """Connections, handshakes and upgrades that are reset at once."""

    def abort(served: Served) -> None:
        connection = served.connect()
        connection.start("GET", random.choice(["/", TARGET, WEBSOCKET]))
        connection.reset()

    together(50, abort, served)


# -- sizes

def announced_gib(served: Served) -> None:
    """1 GiB announced, in a body and in a frame, and not sent."""

    def announce(served: Served) -> None:
        session = open_session(served, random.choice(["polling", "websocket"]))
        if isinstance(session, PollingSession):
            session.posting.send(session.posting.head("POST", session.target(), [("Content-Length", str(GIB))]) + b"4xxx")
            session.posting.response()
        else:
            assert isinstance(session, WebSocketSession)
            session.ws.http.send(b"\x81\xff" + GIB.to_bytes(8) + bytes(4) + b"4xxx")
            session.ws.wait_closed()

    together(50, announce, served)


def deflate_bombs(served: Served) -> None:
    """Messages of 100 KB that inflate to 100 MB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(b"4" + bytes(100_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    frame = frame_bytes(1, bomb.removesuffix(b"\x00\x00\xff\xff"), rsv=4)

    def throw(served: Served) -> None:
        websocket = WebSocketClient.open(served.connect(), WEBSOCKET, [("Sec-WebSocket-Extensions", "permessage-deflate")])
        websocket.http.send(frame)
        while True:
            websocket.recv()

    together(4, throw, served)


# -- numbers

def storm(frame: bytes) -> Attack:
    """100,000 of a small frame at a time."""
    data = frame * 1000

    def send(served: Served) -> None:
        session = WebSocketSession(served).open()
        reading = gevent.spawn(_read_all, session)
        try:
            for _ in range(100):
                session.ws.http.send(data)
                gevent.sleep(0)
        finally:
            reading.kill()
            session.vanish()

    return lambda served: together(2, send, served)


def _read_all(session: WebSocketSession) -> None:
    with contextlib.suppress(*ANSWERS):
        while session.ws.http.sock.recv(65_536):
            pass


def never_reads(served: Served) -> None:
    """Clients that ask for megabytes and read nothing, while the server broadcasts."""

    def ask(served: Served) -> None:
        session = WebSocketSession(served, http=HttpConnection(served.address, receive_buffer=4096)).open()
        for _ in range(100):
            session.say("flood")
        gevent.sleep(30)

    together(100, ask, served)


# -- guesses and garbage

def sid_guessing(served: Served) -> None:
    """Ids that look like ids."""

    def guess(served: Served) -> None:
        connection = served.connect()
        while True:
            sid = base64.urlsafe_b64encode(os.urandom(18)).decode()
            if connection.get(f"{TARGET}&sid={sid}").json()["code"] != 1:
                raise Wrong("a guessed id was not refused with code 1")

    together(20, guess, served)


def garbage(served: Served) -> None:
    """Bodies and frames of any bytes."""
    rng = random.Random(0)

    def send(served: Served) -> None:
        session = open_session(served, rng.choice(["polling", "websocket"]))
        data = rng.choice([rng.randbytes(rng.randint(0, 3000)), b"b" + rng.randbytes(50), b"4\xff\xfe", b"\x1e" * 5000, b"4" * 9])
        if isinstance(session, PollingSession):
            kind = rng.choice(["text/plain", "application/octet-stream", "application/x-www-form-urlencoded"])
            session.posting.post(session.target(), data, [("Content-Type", kind)])
        else:
            assert isinstance(session, WebSocketSession)
            session.ws.http.send(rng.choice([data, frame_bytes(rng.randint(0, 15), data[:125], rsv=rng.randint(0, 7))]))
            session.ws.wait_closed()

    together(20, send, served)


EVIL = "x\r\nX-Evil: 1\r\n\r\n<script>"


def header_injection(served: Served) -> None:
    """Line ends in every value that could reach a response."""
    places: list[tuple[str, list[tuple[str, str]]]] = [
        (f"{TARGET}&sid={quote(EVIL)}", []), (f"{TARGET}&j={quote(EVIL)}", []), (f"/engine.io/{quote(EVIL)}?EIO=4", []),
        (f"/engine.io/?EIO={quote(EVIL)}&transport={quote(EVIL)}", []),
        (TARGET, [("Origin", "https://a.example\\r\\nX-Evil: 1")]),
        (TARGET, [("Cookie", quote(EVIL))]), (TARGET, [("Access-Control-Request-Headers", quote(EVIL))]),
        (WEBSOCKET, [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
                     ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), ("Sec-WebSocket-Protocol", "a, " + quote(EVIL))]),
    ]

    def inject(served: Served) -> None:
        for target, headers in places:
            response = served.connect().request(random.choice(["GET", "OPTIONS"]), target, headers)
            if response.header("X-Evil") is not None or b"<script>" in response.body:
                raise Wrong(f"{target} {headers} came back in {response.header_list} {response.body!r}")

    together(5, inject, served)


def reflected_files(served: Served) -> None:
    """What a browser could be brought to run or to keep as a file: JSONP calls of one's own, and names of programs."""

    def reflect(served: Served) -> None:
        rosetta = "CWSMIKI0hCD0Up0IZUnnnnnnnnnnnnnnnnnnnUU5nnnnnn3Snn7iiudIbEAt333swW0ssG03"
        for target in ("/engine.io/setup.bat?EIO=4&transport=polling&j=calc", "/engine.io/;/x.cmd?EIO=4&transport=polling",
                       f"{TARGET}&j={rosetta}", f"{TARGET}&j=0||calc||"):
            response = served.connect().get(target)
            kind = response.header("Content-Type") or ""
            if response.status == 200 and (b"calc" in response.body or b"CWSMIKI" in response.body or "html" in kind):
                raise Wrong(f"{target}: {response.header_list} {response.body!r}")
            if response.header("X-Content-Type-Options") != "nosniff" and target.startswith("/engine.io/?"):
                raise Wrong(f"{target} without nosniff")

    together(5, reflect, served)


def other_sites(served: Served) -> None:
    """Pages of other origins, over every transport, and names that DNS was made to lead here."""

    def hijack(served: Served) -> None:
        origin = ("Origin", "https://evil.example")
        if served.connect().get(TARGET, [origin]).status != 403:
            raise Wrong("a page of another site got a session over polling")
        try:
            WebSocketClient.open(served.connect(), WEBSOCKET, [origin])
        except Refused as refused:
            if refused.response.status != 403:
                raise Wrong(f"a page of another site got {refused.response.status}") from refused
        else:
            raise Wrong("a page of another site got a session over WebSocket")
        connection = served.connect()
        connection.send(b"GET " + TARGET.encode() + b" HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        if connection.response().status == 200:
            raise Wrong("a session under another name")

    together(5, hijack, served)


HEAD = b"GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Slow: " + b"x" * 500
BODY = b"POST " + TARGET.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900
ATTACKS: dict[str, Attack] = {
    "half open": half_open,
    "slow heads": byte_by_byte(HEAD),
    "slow bodies": byte_by_byte(BODY),
    "slow frames": slow_frames,
    "connect and abort": connect_and_abort,
    "1 GiB announced": announced_gib,
    "deflate bombs": deflate_bombs,
    "empty frames": storm(frame_bytes(1, b"")),
    "pings": storm(frame_bytes(9, b"x" * 125)),
    "fragments": storm(frame_bytes(0, b"")),
    "never reads": never_reads,
    "sid guessing": sid_guessing,
    "garbage": garbage,
    "header injection": header_injection,
    "reflected files": reflected_files,
    "other sites": other_sites,
}


def main(name: str, port: int) -> None:
    """Attack until killed."""
    served: Any = Served(("127.0.0.1", port), EventLog(), handler="ours")
    try:
        ATTACKS[name](served)
    except Wrong as wrong:
        sys.exit(f"{name}: {wrong}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
