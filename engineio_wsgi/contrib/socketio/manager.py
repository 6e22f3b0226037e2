"""python-socketio's manager of rooms, which encodes and frames an event once for all who get it.

Owns `EmitOnce`, the part that other managers mix in. Knows nothing of other workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from json.encoder import encode_basestring_ascii as quoted

import socketio
from socketio import packet

from engineio_wsgi.contrib.socketio.packets import dumps
from engineio_wsgi.contrib.socketio.session import SocketIOSession
from engineio_wsgi.contrib.socketio.untyped import Value
from engineio_wsgi.errors import HasBinary
from engineio_wsgi.session.outgoing import Bundle

__all__ = ["EmitOnce", "LocalManager", "PassesVolatile", "emitting_once", "with_volatile"]

#: whether the event that this greenlet emits is volatile: python-socketio's own managers pass no argument of ours on
_is_volatile: ContextVar[bool] = ContextVar("engineio_wsgi_socketio_volatile", default=False)


@contextmanager
def _volatile(volatile: bool) -> Iterator[None]:
    token = _is_volatile.set(volatile)
    try:
        yield
    finally:
        _is_volatile.reset(token)


class EmitOnce(socketio.Manager):  # type: ignore[misc]  # no types
    """Emits to clients of this process."""

    def emit(self, event: str, data: Value, namespace: str, room: Value = None, skip_sid: Value = None, callback: Value = None,
             to: Value = None, volatile: bool = False, **kwargs: Value) -> None:
        """As python-socketio's. Without a callback, the event is encoded and framed once.

        To one client, it blocks while the client's write buffer is full, as `EngineAdapter.send`. To several, it never blocks: a
        client whose write buffer is full is disconnected, or left out if the event is ``volatile``.
        """
        volatile = volatile or _is_volatile.get()
        room = to or room
        rooms = self.rooms.get(namespace)
        if rooms is None:
            return
        server = self.server
        if callback or not server.sends_directly:
            super().emit(event, data, namespace, room=room, skip_sid=skip_sid, callback=callback)
            return
        message = self.message_of(event, data, namespace)
        # the room that is named after a client: most events that handlers emit
        eio_sid = rooms[None].get(room) if skip_sid is None and type(room) is str and None in rooms else None
        if eio_sid is not None:
            server.eio.send(eio_sid, message, volatile)
        else:
            self._broadcast(self._sockets(namespace, room, _skipped(skip_sid)), message, volatile)

    def _broadcast(self, sockets: list[SocketIOSession], message: str | Bundle, volatile: bool) -> None:
        self.server.eio.broadcast(sockets, Bundle(message) if isinstance(message, str) else message, volatile)

    def own_session(self, namespace: str, room: Value) -> SocketIOSession | None:
        """The session of the client that a room is named after; ``None`` for other rooms, and for clients of other processes.

        Also ``None`` if the application has replaced :meth:`emit`, which has to see every event.
        """
        if type(room) is not str or "emit" in vars(self):
            return None
        try:
            found: SocketIOSession = self.server.eio.sockets[self.rooms[namespace][None][room]]
        except KeyError:
            return None
        return found

    def message_of(self, event: str, data: Value, namespace: str) -> str | Bundle:
        """The packet of an event, with its attachments if there are bytes in it."""
        if type(data) is str and type(event) is str and namespace == "/":
            return f"2[{quoted(event)},{quoted(data)}]"
        content = [event, *data] if isinstance(data, tuple) else [event] if data is None else [event, data]
        try:
            text = dumps(content)
        except HasBinary:
            return Bundle(*self.server.packet_class(packet.EVENT, namespace=namespace, data=content).encode())
        return "2" + text if namespace == "/" else f"2{namespace},{text}"

    def _sockets(self, namespace: str, room: Value, skipped: Collection[str]) -> list[SocketIOSession]:
        """The sessions of those in a room, or in several."""
        here = self.server.eio.sockets
        if room is None or isinstance(room, str):
            members = self.rooms[namespace].get(room)
            clients = [] if members is None else list(members.items())
        else:
            clients = list(self.get_participants(namespace, room))
        found = [here.get(eio_sid) for sid, eio_sid in clients if sid not in skipped]
        return [socket for socket in found if socket is not None]

    def trigger_callback(self, sid: str, id: int, data: Value) -> None:
        """Call the callback of an acknowledgement; one that nobody waits for is ignored."""
        # in each client's dict of callbacks, 0 is the place of the counter
        if id and id in self.callbacks.get(sid, ()):
            super().trigger_callback(sid, id, data)


def with_volatile(data: dict[str, Value]) -> dict[str, Value]:
    """What a manager publishes, with a mark if it is a volatile event."""
    return {**data, "volatile": True} if data["method"] == "emit" and _is_volatile.get() else data


class PassesVolatile:
    """Mixed into a manager that publishes: what is emitted as ``volatile`` is so in the other workers, too."""

    def emit(self, *args: Value, volatile: bool = False, **kwargs: Value) -> None:
        """As the manager's."""
        with _volatile(volatile):
            super().emit(*args, **kwargs)  # type: ignore[misc]  # the manager's

    def _publish(self, data: dict[str, Value]) -> None:
        super()._publish(with_volatile(data))  # type: ignore[misc]

    def _handle_emit(self, message: dict[str, Value]) -> None:
        with _volatile(_is_volatile.get() or message.get("volatile") is True):
            super()._handle_emit(message)  # type: ignore[misc]


class LocalManager(EmitOnce):
    """The manager of a server that has been given none, until its engine has joined a cluster."""


def emitting_once(manager_class: type) -> type:
    """A class of python-socketio's for a message queue, which emits to the clients of this process as `EmitOnce` does."""
    return type(manager_class.__name__, (PassesVolatile, manager_class, EmitOnce), {"__doc__": manager_class.__doc__})


def _skipped(skip_sid: Value) -> Collection[str]:
    return () if skip_sid is None else skip_sid if isinstance(skip_sid, list) else (skip_sid,)
