"""One connection to Redis without a greenlet: sends commands, parses replies, and checks that the server still answers.

hiredis writes the commands and parses the replies; it knows no sockets. redis-py has opened the connection and logged in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import hiredis

from engineio_wsgi.runtime.connection import RECV_SIZE, Connection
from engineio_wsgi.runtime.loop import Watcher

__all__ = ["RedisConnection", "pack_command"]


def pack_command(*words: str | bytes) -> bytes:
    """The bytes of a command."""
    # Any: the stub of hiredis knows commands of one word only
    pack: Any = hiredis.pack_command
    return bytes(pack(words))


#: times ``RECV_SIZE`` that are read in one turn of the loop
MAX_READS = 256
#: seconds between two checks that something was received
CHECK_PERIOD = 1.0
PING = pack_command("PING")


class RedisConnection:
    """A connection that has logged in. Only the hub may use it.

    Args:
        connection: to it.
        patience: seconds that the server may be silent; after the first of them it is pinged.
        on_reply: called with each reply, which may be an error. Must not block.
        on_lost: called once, with the reason, when the connection is lost.
    """

    def __init__(self, connection: Connection, patience: float, on_reply: Callable[[object], object],
                 on_lost: Callable[[Exception], object]) -> None:
        self._connection = connection
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._patience = patience
        #: checks in a row that found nothing received
        self._silent = 0
        self._timer: Watcher = gevent.get_hub().loop.timer(CHECK_PERIOD, CHECK_PERIOD)
        self._timer.start(self._check)
        connection.watch(self._read)

    def send(self, data: bytes) -> None:
        """Send commands. Never blocks."""
        try:
            self._connection.write(data)
        except OSError as error:
            self._lose(error)

    def _read(self) -> None:
        """Read everything that has arrived: after a pause, the withdrawal of a request may be far behind the request."""
        connection = self._connection
        try:
            for _ in range(MAX_READS):
                data = connection.recv(RECV_SIZE)
                if not data:
                    raise ConnectionResetError("it has closed the connection")
                self._parse(data)
                # TLS comes in smaller pieces
                if connection.closed or (len(data) < RECV_SIZE and not connection.secure):
                    return
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)

    def _parse(self, data: bytes) -> None:
        self._silent = 0
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._on_reply(reply)
        except hiredis.ProtocolError as error:
            self._lose(error)

    def _check(self) -> None:
        self._silent += 1
        if self._silent * CHECK_PERIOD > self._patience:
            self._lose(TimeoutError(f"it has not answered for {self._patience:g} s"))
        elif self._silent == 2:
            self.send(PING)

    def _lose(self, error: Exception) -> None:
        on_lost = self._on_lost
        self.close()
        on_lost(error)

    def close(self) -> None:
        """Close it; no callback is called any more. Harmless if repeated."""
        self._on_lost = self._on_reply = lambda _: None
        self._timer.close()
        self._connection.close()
