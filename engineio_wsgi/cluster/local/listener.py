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
from gevent.pool import Pool
from gevent.socket import wait_read

from engineio_wsgi.cluster.local.channel import PATIENCE, Channel
from engineio_wsgi.cluster.local.names import Names, belongs_to_us
from engineio_wsgi.cluster.messages import Message
from engineio_wsgi.errors import BadMessage, ConfigurationError
from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["UnixListener"]

logger = logging.getLogger("engine.cluster")

#: open channels; further ones wait in the kernel's queue. Few are idle. Each of the others carries one request, which another
#: worker has accepted within its own limits
MAX_CHANNELS = 10_000
#: seconds until the next attempt to accept, if no file descriptor was left
ACCEPT_PAUSE = 0.1


class UnixListener:
    """One worker's listening socket. Made in the hub, after any fork.

    Args:
        names: of the sockets.
        worker_id: this worker's.
        receive: called in the channel's greenlet with each request's first message. May raise ``OSError`` and
            ``BadMessage``, which close the channel.
        listener: the socket, if it comes from another process.

    Raises:
        ConfigurationError: such sockets cannot be made here.
        FileExistsError: the id is taken.
    """

    def __init__(self, names: Names, worker_id: str, receive: Callable[[Channel, Message], object],
                 listener: _socket.socket | None = None) -> None:
        self._names = names
        self._worker_id = worker_id
        self._receive = receive
        #: channels between two requests
        self._idle: set[Channel] = set()
        self._throttle = Throttle()
        self._closed = False
        #: whether requests over channels are not served any more, either
        self._released = False
        # Any: the stub of C sockets does not know `_accept`
        self._listener: Any = _listen(names, worker_id) if listener is None else listener
        #: the greenlets of the channels
        self._channels = Pool(MAX_CHANNELS)
        self._greenlet = gevent.spawn(self._accept)

    def _accept(self) -> None:
        """Accept channels; while there are too many, they wait."""
        while True:
            wait_read(self._listener.fileno())
            try:
                number, _address = self._listener._accept()
            except BlockingIOError:
                continue
            except OSError as error:
                # too many files are open
                self._warn("a connection from another worker cannot be accepted: %s", error)
                gevent.sleep(ACCEPT_PAUSE)
                continue
            sock = _socket.socket(fileno=number)
            if belongs_to_us(sock):
                sock.setblocking(False)
                self._channels.spawn(self._serve, Channel(sock))
            else:
                self._warn("a connection of another user's process was closed%s", "")
                sock.close()

    def _serve(self, channel: Channel) -> None:
        try:
            while (message := self._next(channel)) is not None:
                self._receive(channel, message)
                channel.close_descriptors()
        except BadMessage as error:
            self._warn("a message of another process was refused: %s", error)
        except OSError as error:
            logger.debug("= another worker closed its channel: %s", error)
        finally:
            channel.close()

    def _next(self, channel: Channel) -> Message | None:
        """The first message of the next request; ``None`` if there is none."""
        if self._released:
            return None
        self._idle.add(channel)
        try:
            return channel.await_request(PATIENCE)
        finally:
            self._idle.discard(channel)

    def _warn(self, text: str, detail: object) -> None:
        if self._throttle.passes((text, str(detail)), monotonic()):
            logger.warning(text, detail)

    def close(self) -> None:
        """Accept no more channels; requests under way may finish. Harmless if repeated."""
        if self._closed:
            return
        self._released = True
        self.give_away()
        self._names.release(self._worker_id)
        for channel in self._idle:
            channel.shut_down()

    def fileno(self) -> int:
        """The descriptor of the listening socket."""
        number: int = self._listener.fileno()
        return number

    def pause(self) -> None:
        """Accept no more channels: they wait in the kernel's queue. Those that were accepted are served."""
        self._greenlet.kill()

    def resume(self) -> None:
        """Accept again."""
        self._greenlet = gevent.spawn(self._accept)

    def give_away(self) -> None:
        """Another process accepts under this name now. Channels that were accepted here are served as long as they are open."""
        self._closed = True
        self._greenlet.kill()
        self._listener.close()

    def after_fork(self) -> None:
        """In a forked child: the socket and its name are the parent's."""
        if not self._closed:
            self._closed = True
            self._greenlet.kill(block=False)
            self._listener.close()


def _listen(names: Names, worker_id: str) -> _socket.socket:
    try:
        return names.listen(worker_id)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigurationError(f"cluster: workers cannot listen for each other here: {error}") from error
