"""One connection to Redis without a greenlet: commands out, replies in, and whether the server still lives.

Owns the connection and the reading of replies, by hiredis' parser, which knows no sockets. Whose connection it is has been
settled by redis-py before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import hiredis

from engineio_wsgi.runtime.connection import RECV_SIZE, Connection

__all__ = ["RedisWire", "command"]


def command(*words: bytes) -> bytes:
    """A command's bytes (the Redis serialization protocol)."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


#: times ``RECV_SIZE`` that are read in one turn of the loop
MAX_READS = 256
#: seconds between two looks whether something was heard
LOOK_PERIOD = 1.0
PING = command(b"PING")


class RedisWire:
    """A connection on which somebody has logged in. Everything here is the hub's.

    Args:
        wire: the connection.
        patience: seconds that a server may say nothing; after the first of them it is asked for a sign of life.
        on_reply: called with each reply, which may be an error. Must not block.
        on_lost: called once, with the reason, when the connection is of no use any more.
    """

    def __init__(self, wire: Connection, patience: float, on_reply: Callable[[Any], object],
                 on_lost: Callable[[Exception], object]) -> None:
        self._wire = wire
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._patience = patience
        #: looks in a row at which nothing had been heard
        self._silent = 0
        self._timer: Any = gevent.get_hub().loop.timer(LOOK_PERIOD, LOOK_PERIOD)
        self._timer.start(self._look)
        wire.watch(self._read)

    def send(self, data: bytes) -> None:
        """Send commands. Never blocks."""
        try:
            self._wire.write(data)
        except OSError as error:
            self._lose(error)

    def _read(self) -> None:
        """All that is there: after a pause, what takes a request back may be far behind it, and nobody runs in between."""
        wire = self._wire
        try:
            for _ in range(MAX_READS):
                data = wire.recv(RECV_SIZE)
                if not data:
                    raise ConnectionResetError("it has closed the connection")
                self._take(data)
                # TLS comes in smaller pieces
                if wire.closed or (len(data) < RECV_SIZE and not wire.secure):
                    return
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)

    def _take(self, data: bytes) -> None:
        self._silent = 0
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._on_reply(reply)
        except hiredis.ProtocolError as error:
            self._lose(error)

    def _look(self) -> None:
        self._silent += 1
        if self._silent * LOOK_PERIOD > self._patience:
            self._lose(TimeoutError(f"it has not answered for {self._patience:g} s"))
        elif self._silent == 2:
            self.send(PING)

    def _lose(self, error: Exception) -> None:
        on_lost = self._on_lost
        self.close()
        on_lost(error)

    def close(self) -> None:
        """Close it; nothing is called any more. Harmless if repeated."""
        self._on_reply = self._on_lost = lambda _: None
        self._timer.stop()
        self._timer.close()
        self._wire.close()
