"""A small HTTP client on a gevent socket, which can also send parts of requests.

The tests' process is not patched: the servers run in its hub, and the tests block on sockets in its main greenlet.
"""

from __future__ import annotations

import json
import socket as stdlib_socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from gevent import socket

Headers = Iterable[tuple[str, str]]

PLAIN_TEXT = ("Content-Type", "text/plain;charset=UTF-8")
#: seconds after which a client gives up; far more than anything here takes
PATIENCE = 60.0


class ConnectionEnded(Exception):
    """The server closed the connection in the middle of a message, or before it."""


@dataclass(frozen=True)
class Response:
    """One HTTP response, read to its end."""

    status: int
    reason: str
    header_list: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header; several are joined with commas, ``None`` if there is none."""
        values = self.headers(name)
        return ", ".join(values) if values else None

    def headers(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.header_list if key.lower() == name.lower()]

    def tokens(self, name: str) -> set[str]:
        """The members, in lower case, of a header that is a list."""
        return {token.strip().lower() for token in (self.header(name) or "").split(",") if token.strip()}

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class HttpConnection:
    """One connection to a server. The test decides when something is sent and read."""

    #: those of the running test, which are closed when it ends
    opened: ClassVar[list[HttpConnection]] = []

    def __init__(self, address: tuple[str, int], *, receive_buffer: int | None = None, tls: Any = None) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.opened.append(self)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(address)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname=address[0])
        self.buffer = b""
        self.method = "GET"

    # -- out

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.sock.sendall(data)

    def start(self, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> None:
        """Send a request and do not wait for its response."""
        fields = list(headers)
        if body is not None and not any(name.lower() == "content-length" for name, _ in fields):
            fields.append(("Content-Length", str(len(body))))
        self.send(self.head(method, target, fields) + (body or b""))

    def head(self, method: str, target: str, headers: Headers = ()) -> bytes:
        """The first lines of a request. Remembers the method: a response to HEAD has no body."""
        self.method = method
        fields = list(headers)
        if not any(name.lower() == "host" for name, _ in fields):
            fields.insert(0, ("Host", "{}:{}".format(*self.address)))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def request(self, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> Response:
        """Send a request and wait for its response."""
        self.start(method, target, headers, body)
        return self.response()

    def get(self, target: str, headers: Headers = ()) -> Response:
        """GET and wait."""
        return self.request("GET", target, headers)

    def post(self, target: str, body: bytes, headers: Headers = (PLAIN_TEXT,)) -> Response:
        """POST and wait."""
        return self.request("POST", target, headers, body)

    # -- in

    def response(self) -> Response:
        """Read the next response to its end."""
        while (response := self._final_response()) is None:
            pass
        return response

    def _final_response(self) -> Response | None:
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head[:-4].split("\r\n")
        _, status, reason = (status_line + " ").split(" ", 2)
        headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if status == "100":
            return None
        response = Response(int(status), reason.strip(), headers, b"")
        return Response(response.status, response.reason, headers, self._body(response))

    def _body(self, response: Response) -> bytes:
        if self.method == "HEAD" or response.status in (101, 204, 304):
            return b""
        if response.header("Transfer-Encoding") == "chunked":
            return self._chunked_body()
        length = response.header("Content-Length")
        if length is not None:
            return self.read(int(length))
        return self.read_to_end()

    def _chunked_body(self) -> bytes:
        parts = []
        while size := int(self.read_until(b"\r\n"), 16):
            parts.append(self.read(size))
            self.read(2)
        self.read(2)
        return b"".join(parts)

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionEnded(f"the connection ended after {self.buffer[:200]!r}")
        self.buffer += data

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        if len(self.buffer) < size:
            parts, have = [self.buffer], len(self.buffer)
            self.buffer = b""
            while have < size:
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionEnded(f"the connection ended {size - have} bytes early")
                parts.append(data)
                have += len(data)
            self.buffer = b"".join(parts)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to ``mark`` and the mark."""
        while mark not in self.buffer:
            self._more()
        end = self.buffer.index(mark) + len(mark)
        data, self.buffer = self.buffer[:end], self.buffer[end:]
        return data

    def read_to_end(self) -> bytes:
        """Everything until the server closes or resets the connection."""
        parts = [self.buffer]
        self.buffer = b""
        try:
            while data := self.sock.recv(65536):
                parts.append(data)
        except ConnectionError:
            pass
        return b"".join(parts)

    # -- the end

    def finish(self) -> None:
        """Close the sending side (FIN); the other side can still be read."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    @classmethod
    def close_all(cls) -> None:
        """Close every connection that is still open."""
        while cls.opened:
            cls.opened.pop().close()
