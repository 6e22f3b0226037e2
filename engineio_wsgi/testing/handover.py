"""A hand-over between two servers of one process, for tests of applications: everything is as between two processes, except that
snapshots and connections need not be sent.
"""

from __future__ import annotations

from gevent.event import AsyncResult

from engineio_wsgi.cluster.handover.format import decode, encode
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.errors import UsageError
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Stream
from engineio_wsgi.server import Server
from engineio_wsgi.session.movable import SessionSnapshot

__all__ = ["hand_over"]


class _Passage:
    """Takes sessions to another server of this process.

    Args:
        old: where they come from, and where they return to if the other server does not take them.
        new: where they go.
    """

    def __init__(self, old: Worker, new: Worker) -> None:
        self._old = old
        self._new = new

    def pack(self, snapshot: SessionSnapshot) -> bytes:
        """See `Carrier`."""
        return encode(snapshot)

    def take(self, sid: str, parcel: bytes, stream: Stream | None) -> AsyncResult:
        """See `Carrier`."""
        arrival = AsyncResult()
        snapshot = decode(parcel)
        try:
            self._new.prepare(snapshot, stream).resume()
            arrival.set(None)
        except ValueError as error:
            self._old.prepare(snapshot, stream).resume()
            arrival.set(f"the other server does not take it: {error}")
        return arrival


def hand_over(old: Server, new: Server, timeout: float = 10.0) -> dict[str, str]:
    """Move the sessions of one server to another one of this process, as a reload moves them to another process.

    Blocks until all have arrived, or stay. Requests of sessions that have moved are answered by ``new`` from now on, even if
    ``old`` gets them. The listeners of ``resume`` run soon after that: wait for what they do.

    Args:
        old: has the option ``handover``.
        new: an equal server, as the application would make it after the reload.
        timeout: seconds that listeners have to return.

    Returns:
        Why sessions stay, by their ids.

    Raises:
        UsageError: ``old`` does not have the option, or ``new`` has no listener of ``resume``.

    Example::

        old, new = create_server(), create_server()
        with Client(old.wrap(flask_app)) as client:
            hand_over(old, new)
            client.send("hello")
            assert client.receive() == "hello tobi"
    """
    if not old.options.handover:
        raise UsageError("the old server needs the option handover=True")
    if not new.listeners("resume"):
        raise UsageError("the new server needs a listener of 'resume': it registers the listeners of a session again")
    leaving, heir = old._worker, new._worker
    assert leaving.gate is not None
    heir.enter_hub()
    leaving.gate.follow(heir.handle_request)
    return leaving.move_sessions(_Passage(leaving, heir), monotonic() + timeout, is_local=True)
