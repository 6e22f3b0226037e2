"""The applications of the tests: what each does with a session. The script of the reference server has the same names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def echo(server: Any) -> None:
    """Sends every message back."""

    @server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str | bytes) -> None:
            socket.send(data)


def hello(server: Any) -> None:
    """Sends two messages when a client connects."""

    @server.on("connection")
    def connection(socket: Any) -> None:
        socket.send("utf 8 string")
        socket.send(b"\x00\x01\x02")


def told(server: Any) -> None:
    """Does what the client's messages say, in JSON: ``["send", [data…]]``, ``["then_close", [data…]]``, ``["discard"]``…"""

    @server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            verb, *arguments = json.loads(data)
            for item in arguments[0] if arguments else []:
                socket.send(bytes.fromhex(item["hex"]) if isinstance(item, dict) else item)
            if verb in ("close", "then_close"):
                socket.close()
            elif verb == "discard":
                socket.close(discard=True)


def silent(server: Any) -> None:
    """Receives messages, and sends nothing."""

    @server.on("connection")
    def connection(socket: Any) -> None:
        socket.on("message", lambda data: None)


APPS: dict[str, Callable[[Any], None]] = {"echo": echo, "hello": hello, "told": told, "silent": silent}
