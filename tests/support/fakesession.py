"""A session over a transport that a test controls, and greenlets that use the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from engineio_wsgi.errors import SocketClosed, UsageError
from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.greenlet_pool import GreenletPool
from engineio_wsgi.runtime.observers import Observers
from engineio_wsgi.session.heartbeat import HeartbeatTimer
from engineio_wsgi.session.session import Session
from engineio_wsgi.session.socket import Socket
from engineio_wsgi.transports.base import Entry, Transport
from support.fakeloop import FakeLoop

ENVIRON = {
    "REQUEST_METHOD": "GET", "PATH_INFO": "/engine.io/", "QUERY_STRING": "EIO=4&user=tobi", "SERVER_NAME": "localhost",
    "SERVER_PORT": "80", "REMOTE_ADDR": "192.0.2.7", "HTTP_COOKIE": "user=tobi", "wsgi.url_scheme": "http",
}
#: what stays of a session's environ for as long as the session lives must not include these
CONNECTIONS = ["wsgi.input", "wsgi.websocket", "engineio.socket", "gunicorn.socket", "gunicorn.sock"]


class FakeTransport(Transport):
    """A transport whose client takes all packets when ``take`` is called."""

    name = "fake"

    def __init__(self) -> None:
        super().__init__()
        self.wakes = 0
        self.closings: list[str] = []
        self.arriving: list[str | bytes] = []
        self.under_way: list[Entry] = []

    def wake(self) -> None:
        """Note that there is something to write."""
        self.wakes += 1

    def wake_to_close(self) -> bool:
        """Whether anything is left."""
        return bool(self.outbox.entries)

    def take(self) -> list[Entry]:
        """Write everything that waits."""
        entries = self.outbox.take()
        self.sink.on_written(entries)
        return entries

    def arrive(self, *messages: str | bytes) -> None:
        """The client's messages become readable: whoever receives reads for itself, else a greenlet of the pool does."""
        self.arriving.extend(messages)
        if self.inbox.receiver is not None:
            gevent.get_hub().loop.run_callback(self.inbox.take_receiver().switch, True)
        else:
            self.read(0.0)

    def read(self, now: float) -> None:
        """Hand over what has arrived."""
        arriving, self.arriving = self.arriving, []
        self.inbox.enqueue(arriving)
        self.inbox.run_turn()

    def unsent_entries(self) -> list[Entry]:
        """What was taken, and not completely."""
        return self.under_way

    def close(self, reason: str | None = None) -> None:
        """The session has ended."""
        self.closings.append(str(reason))


class FakeHost:
    """The part of a server that a session needs."""

    def __init__(self, **options: Any) -> None:
        self.options = Options.create(**options)
        self.greenlets = GreenletPool()
        self.heartbeat_timer = HeartbeatTimer(FakeLoop(), 1.0)
        self.server = self
        self.observers = Observers()
        self.forgotten: list[Any] = []

    def forget(self, session: Any) -> None:
        """The session has ended."""
        self.forgotten.append(session)

    def let_go(self, session: Any) -> None:
        """The session goes on elsewhere."""
        self.forgotten.append(session)

    def listeners_of(self, event: str) -> tuple[Callable[..., Any], ...]:
        """None."""
        return ()


def opened_session(**options: Any) -> tuple[Any, Any]:
    """A session and its transport."""
    host: Any = FakeHost(**options)
    session = Session(host, "0123456789abcdef", 4, ENVIRON["REMOTE_ADDR"])
    session.present_as(Socket(session, {**ENVIRON, **dict.fromkeys(CONNECTIONS, object())}))
    transport = FakeTransport()
    session.open(transport, [])
    return session, transport


def opened(**options: Any) -> tuple[Any, Any]:
    """A session's `Socket`, and its transport."""
    session, transport = opened_session(**options)
    return session.socket, transport


def outcome(greenlet: gevent.Greenlet) -> Any:
    """What a greenlet returned or raised."""
    greenlet.join(60)
    assert greenlet.ready()
    return greenlet.exception or greenlet.value


def started(function: Callable[..., Any], *args: Any, **kwargs: Any) -> gevent.Greenlet:
    """Start a greenlet, and check that it blocks before its end."""
    greenlet = gevent.spawn(function, *args, **kwargs)
    gevent.sleep(0)
    assert not greenlet.ready()
    return greenlet


def quiet(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What ``function`` returns, or the error that it raises: an exception that leaves a greenlet would be printed."""
    try:
        return function(*args, **kwargs)
    except (SocketClosed, UsageError, TimeoutError) as error:
        return error
