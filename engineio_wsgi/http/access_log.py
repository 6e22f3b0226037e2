"""The access log's lines. Owns their format, which is gevent's."""

from __future__ import annotations

from datetime import datetime
from time import time
from typing import Any

from engineio_wsgi.vendors.gevent_servers import discards_lines

__all__ = ["format_line", "is_silent"]

_timestamp = (0, "")


def _now() -> str:
    """The local time to the second, composed once a second."""
    global _timestamp
    now = int(time())
    second, text = _timestamp
    if second != now:
        text = str(datetime.fromtimestamp(now))
        _timestamp = now, text
    return text


def format_line(client_address: Any, request_line: str | None, status: str, length: int, seconds: float | None) -> str:
    """One request.

    Args:
        client_address: a tuple with the host first, or the path of a Unix socket.
        status: the code alone.
        length: bytes that were sent, the head included.
        seconds: from the end of the head to the end of the response; ``None`` if it never got that far.
    """
    host = client_address[0] if isinstance(client_address, tuple) else client_address
    if request_line and not request_line.isascii():
        # it may hold what a terminal takes for a command
        request_line = request_line.encode("ascii", "backslashreplace").decode()
    delta = "-" if seconds is None else f"{seconds:.6f}"
    return f'{host or "-"} - - [{_now()}] "{request_line or ""}" {status} {length or "-"} {delta}'


def is_silent(log: Any) -> bool:
    """Whether what is written to a server's log goes nowhere: what pywsgi makes of ``log=None``, or ``None`` itself."""
    return log is None or discards_lines(log)
