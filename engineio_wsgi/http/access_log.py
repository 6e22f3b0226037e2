"""The access log's lines. Owns their format, which is gevent's."""

from __future__ import annotations

from datetime import datetime
from time import time

from engineio_wsgi.vendors.gevent_servers import discards_lines

__all__ = ["format_line", "is_silent"]

_timestamp = (0, "")


def _now() -> str:
    """The local time to the second, formatted once a second."""
    global _timestamp
    now = int(time())
    second, text = _timestamp
    if second != now:
        text = str(datetime.fromtimestamp(now))
        _timestamp = now, text
    return text


def format_line(client_address: object, request_line: str | None, status: str, length: int, seconds: float | None) -> str:
    """The line of one request.

    Args:
        client_address: a tuple with the host first, or the path of a Unix socket.
        status: the code alone.
        length: bytes that were sent, including the head.
        seconds: from the end of the request's head to the end of the response; ``None`` without a complete response.
    """
    host = client_address[0] if isinstance(client_address, tuple) else client_address
    if request_line and not request_line.isascii():
        # it could contain control sequences of a terminal
        request_line = request_line.encode("ascii", "backslashreplace").decode()
    delta = "-" if seconds is None else f"{seconds:.6f}"
    return f'{host or "-"} - - [{_now()}] "{request_line or ""}" {status} {length or "-"} {delta}'


def is_silent(log: object) -> bool:
    """Whether a server's log discards its lines: ``None``, or what pywsgi makes of ``log=None``."""
    return log is None or discards_lines(log)
