"""What a session needs of the registry that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.greenlet_pool import GreenletPool
from engineio_wsgi.runtime.observers import Observers
from engineio_wsgi.session.events import Listener
from engineio_wsgi.session.groups import Groups
from engineio_wsgi.session.heartbeat import HeartbeatTimer

if TYPE_CHECKING:
    from engineio_wsgi.session.session import Session

__all__ = ["SessionRegistry"]


class SessionRegistry(Protocol):
    """The sessions of a server, and what they share."""

    options: Options
    greenlets: GreenletPool
    heartbeat_timer: HeartbeatTimer
    groups: Groups
    observers: Observers
    #: what `Socket.server` returns. A session does nothing with it
    server: object

    def forget(self, session: Session) -> None:
        """Remove a session that has ended."""
        ...

    def let_go(self, session: Session) -> None:
        """Remove a session that goes on in another process."""
        ...

    def listeners_of(self, event: str) -> tuple[Listener, ...]:
        """The server's own listeners of an event."""
        ...
