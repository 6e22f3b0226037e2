"""What the command line's server prints: log lines from a level upwards, and a line for each request."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from typing import TextIO

from engineio_wsgi.log import SHOWN, DebugHandler

__all__ = ["AccessLog", "access_log", "add_logging_flags", "set_up_logging"]

LEVELS = ("debug", "info", "warning", "error", "critical")
#: a session id in a request line is a credential
SID = re.compile(rf"([?&]sid=[^&\s]{{{SHOWN}}})[^&\s]+")


class AccessLog:
    """Where gevent's server writes a line for each request: stderr, with session ids cut short."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        """What gevent calls with a line for its log."""
        self._stream.write(SID.sub(r"\1...", line))
        self._stream.flush()


def add_logging_flags(parser: argparse.ArgumentParser, default: object) -> None:
    """The flags about what is printed."""
    parser.add_argument("--log-level", metavar="LEVEL", choices=LEVELS, type=str.lower, default=default,
                        help="the least level of the log lines that are printed: debug, info, warning, error or critical "
                             "(the engine's from info on a terminal, else warning)")
    parser.add_argument("--access-log", action=argparse.BooleanOptionalAction, default=default,
                        help="print a line for each request to stderr (on a terminal)")


def access_log(wanted: bool | None) -> AccessLog | None:
    """The log of requests, or ``None``. ``wanted`` is ``None`` by default: there is a log if stderr is a terminal."""
    is_wanted = sys.stderr.isatty() if wanted is None else wanted
    return AccessLog(sys.stderr) if is_wanted else None


def set_up_logging(level: str | None) -> None:
    """Print log lines to stderr, unless the application has logging of its own; what ``DEBUG`` prints is not printed again.

    Args:
        level: the least that is printed; ``None`` prints warnings, and on a terminal the engine's refusals, too.
    """
    root, engine = logging.getLogger(), logging.getLogger("engine")
    if root.handlers:
        if level is not None:
            engine.setLevel(level.upper())
        return
    logging.basicConfig(level=(level or "warning").upper(), format="%(levelname)s %(name)s: %(message)s")
    for printer in engine.handlers:
        if isinstance(printer, DebugHandler):
            root.handlers[0].addFilter(printer.leaves)
    if level is None and engine.level == logging.NOTSET and sys.stderr.isatty():
        engine.setLevel(logging.INFO)
