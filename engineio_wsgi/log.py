"""Logging: the names of the loggers, the ``DEBUG`` variable of the reference server, the limit on repeated lines,
and the shortening of session ids.

The package logs to :data:`LOGGERS`, and adds a handler only if ``DEBUG`` is set. If an application has not configured logging,
Python's last-resort handler prints warnings, and the tracebacks of listeners that fail; a ``NullHandler`` would hide them.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Hashable, Mapping
from typing import TextIO

from engineio_wsgi.runtime.clock import monotonic

__all__ = ["LOGGERS", "DebugHandler", "Scopes", "Throttle", "log_violation", "set_up_debug", "shorten"]

#: all loggers of the package, which are the scopes of ``DEBUG``; the manual describes them
LOGGERS = ("engine", "engine.socket", "engine.polling", "engine.ws", "engine.http", "engine.cluster", "engine.access",
           "engine.socketio", "engine.webtransport")
#: characters of a session id that are logged: the id is a credential
SHOWN = 6
#: ANSI colours that can be distinguished on light and dark terminals
COLOURS = (31, 32, 33, 34, 35, 36)

#: seconds for which the same log line is not written again
PERIOD = 60.0
#: the maximum number of keys that are kept; with more of them, lines are repeated and memory does not grow
MAX_KEYS = 1000


class Throttle:
    """A limit on repeated log lines: lets each key pass once a minute. The time is an argument.

    Example::

        throttle = Throttle()
        if throttle.passes((address, code), monotonic()):
            logger.info(...)
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[Hashable, float] = {}

    def passes(self, key: Hashable, now: float) -> bool:
        """Whether ``key`` may pass at the time ``now``: it has not passed within the last minute."""
        if self._until.get(key, now) > now:
            return False
        if len(self._until) >= MAX_KEYS:
            self._until.clear()
        self._until[key] = now + PERIOD
        return True


_violations = Throttle()


def log_violation(logger: logging.Logger, address: object, kind: object, text: str, *details: object) -> None:
    """Log a client's violation at INFO, once a minute per address and kind.

    Args:
        address: the client's address: ``REMOTE_ADDR``, or the tuple of a socket.
        kind: the kind of violation.
    """
    host = address[0] if isinstance(address, tuple) else address
    if _violations.passes((host, kind), monotonic()):
        logger.info(text, *details)


def shorten(sid: str) -> str:
    """The first characters of a session id, which distinguish sessions and do not reveal the id."""
    return sid[:SHOWN] + "…"


class Scopes:
    """The loggers that a ``DEBUG`` variable selects: names separated by commas or spaces, ``*`` wild, ``-name`` excluded.

    Example::

        Scopes("engine*,-engine.http").chooses("engine.ws")    # True
    """

    def __init__(self, text: str) -> None:
        names = re.split(r"[\s,]+", text.strip())
        self._chosen = [_pattern(name) for name in names if name and not name.startswith("-")]
        self._excluded = [_pattern(name[1:]) for name in names if name.startswith("-")]

    def __bool__(self) -> bool:
        return bool(self._chosen)

    def chooses(self, name: str) -> bool:
        """Whether the logger of this name is selected. ``engine:ws``, as the reference server writes it, is ``engine.ws``."""
        if any(pattern.fullmatch(name) for pattern in self._excluded):
            return False
        return any(pattern.fullmatch(name) for pattern in self._chosen)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name.replace(":", ".")).replace(r"\*", ".*"))


class DebugHandler(logging.Handler):
    """Writes the selected scopes to a stream, with the time since the last line; coloured on a terminal."""

    def __init__(self, scopes: Scopes, stream: TextIO) -> None:
        super().__init__(logging.DEBUG)
        self._scopes = scopes
        self._stream = stream
        self._is_coloured = stream.isatty()
        self._last = monotonic()

    def leaves(self, record: logging.LogRecord) -> bool:
        """Whether this handler does not write the record: a filter for other handlers of the same stream."""
        return record.name.partition(".")[0] != "engine" or not self._scopes.chooses(record.name)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, if its logger is selected."""
        if self.leaves(record):
            return
        now = monotonic()
        since, self._last = now - self._last, now
        name = record.name
        if self._is_coloured:
            name = f"\033[{COLOURS[sum(name.encode()) % len(COLOURS)]};1m{name}\033[0m"
        try:
            self._stream.write(f"{name} {self.format(record)} +{_duration(since)}\n")
            self._stream.flush()
        except Exception:  # as the handlers of the standard library: logging does not fail its caller
            self.handleError(record)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"


def set_up_debug(environ: Mapping[str, str] = os.environ, stream: TextIO | None = None) -> logging.Handler | None:
    """Write the scopes that ``DEBUG`` selects to ``stream`` (by default stderr). Without ``DEBUG``, change nothing.

    Returns:
        The handler that was added, or ``None``.
    """
    root = logging.getLogger("engine")
    scopes = Scopes(environ.get("DEBUG", ""))
    if not scopes or not any(scopes.chooses(name) for name in LOGGERS):
        return None
    handler = DebugHandler(scopes, stream or sys.stderr)
    root.addHandler(handler)
    for name in LOGGERS:
        if scopes.chooses(name):
            logging.getLogger(name).setLevel(logging.DEBUG)
        elif scopes.chooses("engine"):  # whose level it would inherit
            logging.getLogger(name).setLevel(logging.INFO)
    return handler
