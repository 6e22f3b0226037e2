"""The connection between the master process of the command and one of its workers: both ends, and the messages.

A worker says that it is ready, or why it cannot start, and which files it has loaded. The master says when the worker has to
stop. An end that breaks off means that the other process has ended. A message is a JSON object on a line of its own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import suppress

from gevent.socket import socket as GeventSocket

__all__ = ["MasterEnd", "Stop", "WorkerEnd", "inherit"]

#: tells a process that it is a worker: its generation, and the descriptors of its end and of its listeners
VARIABLE = "ENGINEIO_WORKER"


class Stop:
    """How a worker has to stop."""

    #: as all workers do: sessions are closed one by one
    GRACEFUL = "graceful"
    #: as the only one: sessions move to the other workers, or are closed one by one
    LEAVING = "leaving"
    #: as all workers of its generation: sessions move to the new ones, which accept the connections that come now
    REPLACED = "replaced"
    #: all sessions are closed at once
    QUICK = "quick"


class _End:
    """One end."""

    def __init__(self, sock: GeventSocket) -> None:
        self._sock = sock

    def _send(self, **message: object) -> None:
        # the other process may have ended, which is noticed where this end is read
        with suppress(OSError):
            self._sock.sendall(json.dumps(message).encode() + b"\n")

    def messages(self) -> Iterator[dict[str, object]]:
        """The messages of the other end, until it has ended. Blocks while there is none."""
        rest = b""
        while True:
            try:
                received = self._sock.recv(65536)
            except OSError:
                return
            if not received:
                return
            *lines, rest = (rest + received).split(b"\n")
            yield from map(json.loads, lines)


class MasterEnd(_End):
    """The master's end.

    Args:
        generation: the worker's.
        listeners: the sockets on which the worker accepts connections.
    """

    def __init__(self, generation: int, listeners: Iterable[GeventSocket]) -> None:
        near, self._far = socket.socketpair()
        super().__init__(GeventSocket(fileno=near.detach()))
        numbers = [self._far.fileno(), *(listener.fileno() for listener in listeners)]
        #: what the worker has to inherit
        self.descriptors = numbers
        self.environment = {VARIABLE: ",".join(map(str, [generation, *numbers]))}

    def passed(self) -> None:
        """The worker has its end."""
        self._far.close()

    def stop(self, how: str) -> None:
        """Tell the worker to stop, in one of the ways of :class:`Stop`."""
        self._send(stop=how)

    def close(self) -> None:
        """Let go of this end."""
        self._sock.close()


class WorkerEnd(_End):
    """The worker's end.

    Args:
        generation: the worker's.
        listeners: the sockets on which it accepts connections.
    """

    def __init__(self, sock: GeventSocket, generation: int, listeners: list[GeventSocket]) -> None:
        super().__init__(sock)
        self.generation = generation
        self.listeners = listeners
        self._told: set[str] = set()

    def ready(self) -> None:
        """This process serves."""
        self.tell_files()
        self._send(ready=True)

    def fail(self, text: str, status: int, files: Iterable[str] = ()) -> None:
        """This process cannot start.

        Args:
            text: why, in one line.
            status: the exit status of the command, if no other worker serves.
            files: that are to blame, beside those that are loaded.
        """
        self.tell_files(files)
        self._send(failed=text, status=status)

    def tell_files(self, more: Iterable[str] = ()) -> None:
        """Name the files of the modules that have been loaded since the last call."""
        loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        new = {os.path.abspath(name) for name in [*loaded, *more] if isinstance(name, str)} - self._told
        if new:
            self._told |= new
            self._send(files=sorted(new))

    def wait_for_stop(self, stop: Callable[[str], object]) -> None:
        """Call ``stop`` with what the master says. Blocks until the master has ended, which is a reason to stop as well."""
        for message in self.messages():
            stop(str(message.get("stop")))
        stop(Stop.GRACEFUL)


def inherit(environ: MutableMapping[str, str]) -> WorkerEnd | None:
    """The end of this process, if it is a worker. The variable is removed: children of this process are no workers.

    Args:
        environ: the process' environment.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    generation, *numbers = map(int, text.split(","))
    for number in numbers:
        os.set_inheritable(number, False)
    end, *listeners = [GeventSocket(fileno=number) for number in numbers]
    return WorkerEnd(end, generation, listeners)
