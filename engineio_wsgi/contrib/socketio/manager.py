"""python-socketio's manager of rooms, which encodes and frames an event once for all who get it.

Owns `EmitOnce`, the part that other managers mix in. Knows nothing of other workers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import socketio
from socketio import packet

from engineio_wsgi.contrib.socketio.packets import HasBinary, dumps
from engineio_wsgi.contrib.socketio.session import SocketIOSession
from engineio_wsgi.session.outgoing import Bundle

__all__ = ["EmitOnce", "LocalManager"]


class EmitOnce(socketio.Manager):  # type: ignore[misc]  # no types
    """Emits to clients of this process."""

    def emit(self, event: str, data: Any, namespace: str, room: Any = None, skip_sid: Any = None, callback: Any = None,
             to: Any = None, volatile: bool = False, **kwargs: Any) -> None:
        """As python-socketio's. Without a callback, the event is encoded and framed once.

        To one client, it blocks while the client's write buffer is full, as `EngineAdapter.send`. To several, it never blocks: a
        client whose write buffer is full is disconnected, or left out if the event is ``volatile``.
        """
        room = to or room
        server = self.server
        if namespace not in self.rooms:
            return
        if callback or not server.sends_directly:
            super().emit(event, data, namespace, room=room, skip_sid=skip_sid, callback=callback)
            return
        message = self._message(event, data, namespace)
        sockets = self._sockets(namespace, room, _skipped(skip_sid))
        if len(sockets) == 1:
            server.eio.send_to(sockets[0], message, volatile)
        elif sockets:
            server.eio.broadcast(sockets, Bundle(message) if isinstance(message, str) else message, volatile)

    def _message(self, event: str, data: Any, namespace: str) -> str | Bundle:
        """The packet of an event, with its attachments if there are bytes in it."""
        arguments = data if isinstance(data, tuple) else () if data is None else (data,)
        try:
            text = dumps([event, *arguments])
        except HasBinary:
            encoded = self.server.packet_class(packet.EVENT, namespace=namespace, data=[event, *arguments]).encode()
            return Bundle(*encoded)
        return "2" + text if namespace == "/" else f"2{namespace},{text}"

    def _sockets(self, namespace: str, room: Any, skipped: Collection[str]) -> list[SocketIOSession]:
        """The sessions of those in a room, or in several."""
        here = self.server.eio.sockets
        if room is None or type(room) is str:
            members = self.rooms[namespace].get(room)
            if members is None:
                return []
            if room is not None and not skipped and len(members) == 1:
                found = [here.get(eio_sid) for eio_sid in members.values()]
            else:
                found = [here.get(eio_sid) for sid, eio_sid in list(members.items()) if sid not in skipped]
        else:
            found = [here.get(eio_sid) for sid, eio_sid in self.get_participants(namespace, room) if sid not in skipped]
        return [socket for socket in found if socket is not None]

    def trigger_callback(self, sid: str, id: int, data: Any) -> None:
        """Call the callback of an acknowledgement; one that nobody waits for is ignored."""
        # in each client's dict of callbacks, 0 is the place of the counter
        if id and id in self.callbacks.get(sid, ()):
            super().trigger_callback(sid, id, data)


class LocalManager(EmitOnce):
    """The manager of a server that has been given none, until its engine has joined a cluster."""


def _skipped(skip_sid: Any) -> Collection[str]:
    return () if skip_sid is None else skip_sid if isinstance(skip_sid, list) else (skip_sid,)
