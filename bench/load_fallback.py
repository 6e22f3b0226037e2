"""A load generator in Python, for machines without a C compiler. It is slower than the servers it loads, and says so.

Same arguments and output as ``load.c``, for the modes ``ws-echo``, ``poll-echo`` and ``http`` only. Checks every echo.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

MASK = bytes(4)


class Client:
    """One connection, and what it expects next."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.number = 0
        self.sid = ""
        self.posting = True

    def hear(self, end: bytes) -> bytes:
        """Block until ``end`` has come; returns all up to it."""
        while end not in self.buffer:
            self.fill()
        head, self.buffer = self.buffer.split(end, 1)
        return head

    def fill(self) -> None:
        """Block for the next bytes."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise SystemExit("load: the server closed a connection")
        self.buffer += data


def frame(payload: bytes) -> bytes:
    """A text frame, masked with zeros: Python would be slower still with another mask."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2)
    return head + MASK + payload


def take_frame(client: Client) -> bytes | None:
    """The payload of the next frame, if it is complete."""
    data = client.buffer
    if len(data) < 4:
        return None
    size, head = (data[1], 2) if data[1] < 126 else (int.from_bytes(data[2:4]), 4)
    if len(data) < head + size:
        return None
    client.buffer = data[head + size:]
    return data[head:head + size]


def take_response(client: Client) -> bytes | None:
    """The body of the next response, if it is complete."""
    head, end, rest = client.buffer.partition(b"\r\n\r\n")
    if not end:
        return None
    size = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    if len(rest) < size:
        return None
    client.buffer = rest[size:]
    return rest[:size]


def message(number: int, settings: dict[str, Any]) -> bytes:
    """A numbered message of the wanted size."""
    return (b"" if settings["raw"] else b"4") + b"%08x" % number + b"x" * (settings["size"] - 8)


def check(got: bytes, wanted: bytes) -> None:
    """Every echo has to be what was sent."""
    if got != wanted:
        raise SystemExit("load: an echo is not what was sent")


def request(client: Client, method: str, body: bytes = b"") -> bytes:
    """A request of a polling session."""
    length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
    sid = f"&sid={client.sid}" if client.sid else ""
    return f"{method} /engine.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n".encode() + body


def open_websocket(client: Client, settings: dict[str, Any]) -> None:
    """Handshake; the open packet is read unless ``raw``."""
    client.sock.sendall(b"GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    client.hear(b"\r\n\r\n")
    while not settings["raw"] and take_frame(client) is None:
        client.fill()
    for number in range(settings["outstanding"]):
        client.sock.sendall(frame(message(number, settings)))


def on_websocket(client: Client, settings: dict[str, Any]) -> int:
    """Take echoes, and send as many new messages."""
    done = 0
    while (payload := take_frame(client)) is not None:
        if payload == b"2" and not settings["raw"]:
            client.sock.sendall(frame(b"3"))
            continue
        check(payload, message(client.number, settings))
        client.sock.sendall(frame(message(client.number + settings["outstanding"], settings)))
        client.number += 1
        done += 1
    return done


def open_polling(client: Client, settings: dict[str, Any]) -> None:
    """Handshake, and the first POST."""
    client.sock.sendall(request(client, "GET"))
    while (body := take_response(client)) is None:
        client.fill()
    client.sid = json.loads(body[1:])["sid"]
    client.sock.sendall(request(client, "POST", message(0, settings)))


def on_polling(client: Client, settings: dict[str, Any]) -> int:
    """POST, then GET, and so on."""
    body = take_response(client)
    if body is None:
        return 0
    if client.posting:
        check(body, b"ok")
        client.posting = False
    elif body not in (b"2", b"6"):
        check(body, message(client.number, settings))
        client.number += 1
        client.posting = True
        client.sock.sendall(request(client, "POST", message(client.number, settings)))
        return 1
    client.sock.sendall(request(client, "GET"))
    return 0


def open_http(client: Client, settings: dict[str, Any]) -> None:
    """The first request."""
    client.sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")


def on_http(client: Client, settings: dict[str, Any]) -> int:
    """One response, one request."""
    if take_response(client) is None:
        return 0
    open_http(client, settings)
    return 1


MODES: dict[str, tuple[Callable[..., None], Callable[..., int]]] = {
    "ws-echo": (open_websocket, on_websocket),
    "poll-echo": (open_polling, on_polling),
    "http": (open_http, on_http),
}


def main() -> None:
    """As ``load.c``."""
    mode, port = sys.argv[1], int(sys.argv[2])
    if mode not in MODES:
        raise SystemExit(f"load: the fallback has only {', '.join(MODES)}; {mode} needs a C compiler")
    settings: dict[str, Any] = {"connections": 50, "outstanding": 1, "size": 32, "raw": 0, "seconds": 2.0}
    settings.update({name: float(value) if name == "seconds" else int(value)
                     for name, _, value in (argument.partition("=") for argument in sys.argv[3:])})
    begin, go_on = MODES[mode]
    poller, clients = select.epoll(), {}
    for _ in range(settings["connections"]):
        client = Client(port)
        clients[client.sock.fileno()] = client
        poller.register(client.sock.fileno(), select.EPOLLIN)
        begin(client, settings)
    start, done = time.monotonic(), 0
    while time.monotonic() < start + settings["seconds"] or not done:
        for number, _ in poller.poll(0.1):
            clients[number].fill()
            done += go_on(clients[number], settings)
    print(json.dumps({"operations": done, "seconds": time.monotonic() - start, "fallback": True}))


if __name__ == "__main__":
    main()
