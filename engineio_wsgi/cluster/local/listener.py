"""Unix-socket listener for requests from other workers, with one greenlet for each channel.

Owns the accepted channels, their limit, and the check that the other process runs as the same user. Knows nothing of the
requests.
"""

from __future__ import annotations

import _socket
import logging
from collections.abc import Callable
from typing import Any

import gevent

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel
from engineio_wsgi.cluster.local.names import Names, belongs_to_us
from engineio_wsgi.cluster.messages import BadMessage, Message
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.throttle import Throttle

__all__ = ["UnixListener"]

logger = logging.getLogger("engine.cluster")

READ = 1
#: channels at a time; further ones wait in the kernel's queue. Each carries a request that counts in another worker, too, or is
#: one of the few idle ones
MAX_CHANNELS = 10_000
#: channels that are accepted in one turn of the loop
MAX_ACCEPTED = 64
#: seconds until the next attempt to accept, after no file descriptor was left
ACCEPT_PAUSE = 0.1


class UnixListener:
    """One worker's listening socket. Made in the hub, after any fork.

    Args:
        names: of the sockets.
        worker_id: this worker's.
        receive: called in the channel's greenlet with each request's first message. May raise ``OSError`` and
            ``BadMessage``, which close the channel.

    Raises:
        ConfigurationError: such sockets cannot be made here.
        FileExistsError: the id is taken.
    """

    def __init__(self, names: Names, worker_id: str, receive: Callable[[Channel, Message], object]) -> None:
        self._names = names
        self._worker_id = worker_id
        self._receive = receive
        self._channels = 0
        #: channels between two requests
        self._idle: set[Channel] = set()
        self._complaints = Throttle()
        # Any: the stub of C sockets does not know `_accept`
        self._listener: Any = _listen(names, worker_id)
        # Any: a `Watcher`, or ``None`` once closed, which the callbacks of a watcher need not check
        self._watcher: Any = gevent.get_hub().loop.io(self._listener.fileno(), READ)
        self._watcher.start(self._accept)

    def _accept(self) -> None:
        """In the hub."""
        for _ in range(MAX_ACCEPTED):
            try:
                number, _address = self._listener._accept()
            except BlockingIOError:
                return
            except OSError as error:
                # too many files are open: the watcher would be called in every turn of the loop
                self._complain("a worker's connection cannot be accepted: %s", error)
                self._watcher.stop()
                gevent.spawn_later(ACCEPT_PAUSE, self._accept_again)
                return
            self._admit(_socket.socket(fileno=number))
            if self._channels >= MAX_CHANNELS:
                self._watcher.stop()
                return

    def _admit(self, sock: _socket.socket) -> None:
        if not belongs_to_us(sock):
            self._complain("a connection of another user's process was closed%s", "")
            sock.close()
            return
        sock.setblocking(False)
        self._channels += 1
        gevent.spawn(self._serve, Channel(sock))

    def _serve(self, channel: Channel) -> None:
        try:
            while (message := self._next(channel)) is not None:
                self._receive(channel, message)
                channel.close_descriptors()
        except BadMessage as error:
            self._complain("a message of another process was refused: %s", error)
        except OSError as error:
            logger.debug("= another worker closed its channel: %s", error)
        finally:
            channel.close()
            self._channels -= 1
            self._accept_again()

    def _accept_again(self) -> None:
        if self._watcher is not None and not self._watcher.active:
            self._watcher.start(self._accept)

    def _next(self, channel: Channel) -> Message | None:
        """The first message of the next request; ``None`` if there is none."""
        if self._watcher is None:
            return None
        self._idle.add(channel)
        try:
            return channel.await_request(PATIENCE)
        finally:
            self._idle.discard(channel)

    def _complain(self, text: str, detail: object) -> None:
        if self._complaints.passes((text, str(detail)), monotonic()):
            logger.warning(text, detail)

    def close(self) -> None:
        """Accept no more channels; requests under way may finish. Harmless if repeated."""
        if self._watcher is None:
            return
        self._watcher.stop()
        self._watcher.close()
        self._watcher = None
        self._listener.close()
        self._names.release(self._worker_id)
        for channel in self._idle:
            channel.hang_up()

    def forsake(self) -> None:
        """In a forked child: the socket and its name are the parent's."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
            self._listener.close()


def _listen(names: Names, worker_id: str) -> _socket.socket:
    try:
        return names.listen(worker_id)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigurationError(f"cluster: workers cannot listen for each other here: {error}") from error
