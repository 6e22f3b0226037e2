"""`ClusterManager`: rooms, broadcasts, acknowledgements and disconnections across the workers of the engine's own cluster.

Owns what is published and to whom. Messages are JSON; what is for one client is one message to its worker, which the client's id
names. Knows nothing of how workers reach each other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from socketio.pubsub_manager import PubSubManager

from engineio_wsgi.contrib.socketio.manager import EmitOnce, PassesVolatile, with_volatile
from engineio_wsgi.contrib.socketio.options import PATH
from engineio_wsgi.contrib.socketio.packets import dumps, loads
from engineio_wsgi.contrib.socketio.untyped import Value
from engineio_wsgi.emitter import Emitter
from engineio_wsgi.engine.registry import WORKER_ID_SIZE
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.random_ids import ID_SIZE as RANDOM_SIZE

__all__ = ["ClusterManager", "RoomCluster"]

logger = logging.getLogger("engine.socketio")

TOPIC = "socket.io"
#: seconds for which the workers are not looked for again: Redis has to be asked
WORKERS_PERIOD = 1.0
#: characters of a client's id: those that name its worker, and 120 random bits in base64
ID_SIZE = WORKER_ID_SIZE + RANDOM_SIZE


class RoomCluster(Protocol):
    """What a manager needs of ``server.cluster``."""

    worker_id: str

    def workers(self) -> list[str]:
        """The ids of all workers."""
        ...

    def publish(self, topic: str, data: str | bytes, *, session: str | None = None, worker: str | None = None) -> None:
        """Call the subscribers of a topic."""
        ...

    def subscribe(self, topic: str, callback: Callable[[str | bytes], object]) -> Callable[[], None]:
        """Be called with the messages of a topic."""
        ...


class ClusterManager(PassesVolatile, PubSubManager, EmitOnce):  # type: ignore[misc]  # no types
    """python-socketio's manager over the engine's own cluster: Unix sockets on one machine, or Redis.

    A server makes one by itself when its engine has a cluster and it was given no manager. A process that serves no clients, such
    as a task queue's worker, makes one to emit to the clients of the servers::

        manager = ClusterManager("local:shop", write_only=True)
        manager.emit("sold", {"id": 17}, room="visitors")

    Args:
        cluster: with ``write_only``, the servers' option ``cluster``.
        path: with ``write_only``, the servers' path.
        write_only: whether this process has no server, and only emits.
        logger: a logger, instead of the server's.
    """

    name = "cluster"

    def __init__(self, cluster: str | None = None, path: str = PATH, write_only: bool = False, logger: Value = None) -> None:
        super().__init__(channel=TOPIC, write_only=write_only, logger=logger)
        self._cluster: RoomCluster | None = None
        self._workers: frozenset[str] = frozenset()
        self._looked = -WORKERS_PERIOD
        self._emitter = Emitter(cluster or "local", path) if write_only else None
        self._take = {"emit": self._handle_emit, "disconnect": self._handle_disconnect, "enter_room": self._handle_enter_room,
                      "leave_room": self._handle_leave_room, "close_room": self._handle_close_room}

    def initialize(self) -> None:
        """Nothing: the messages of other workers are subscribed to when this one joins them."""

    def join(self, cluster: RoomCluster) -> None:
        """Reach the clients of the other workers from now on, and be reached by them."""
        self._cluster = cluster
        self.host_id = cluster.worker_id
        cluster.subscribe(TOPIC, self._receive)

    def emit(self, event: str, data: Value, namespace: Value = None,  # type: ignore[override]  # what is mixed in passes all on
             room: Value = None, skip_sid: Value = None, callback: Value = None, to: Value = None, volatile: bool = False,
             **kwargs: Value) -> None:
        """As python-socketio's. An event for a client of this worker goes to no other one."""
        room, namespace = to or room, namespace or "/"
        if kwargs.get("ignore_queue") or (type(room) is str and self.is_sid_room(namespace, room)):
            EmitOnce.emit(self, event, data, namespace, room=room, skip_sid=skip_sid, callback=callback, volatile=volatile)
        else:
            super().emit(event, data, namespace, room=room, skip_sid=skip_sid, callback=callback, volatile=volatile)

    def _publish(self, data: dict[str, Value]) -> None:
        text = dumps(with_volatile(data))
        if self._emitter is not None:
            self._emitter.publish(TOPIC, text)
        elif self._cluster is not None:
            worker = self._worker_of(data)
            if worker != self.host_id:
                self._cluster.publish(TOPIC, text, worker=worker)

    def _worker_of(self, data: dict[str, Value]) -> str | None:
        """The only worker that a message is for; ``None`` if it is for all."""
        if data["method"] == "callback":
            return str(data["host_id"])
        target = data.get("sid") or data.get("room")
        if not isinstance(target, str) or len(target) != ID_SIZE or self._cluster is None:
            return None
        worker = target[:WORKER_ID_SIZE]
        # a room may have any name, so a worker is only meant if there is one
        return worker if worker in self._known_workers(self._cluster) else None

    def _known_workers(self, cluster: RoomCluster) -> frozenset[str]:
        """The workers, as of `WORKERS_PERIOD` ago at most: what is for a client of a newer one goes to all."""
        now = monotonic()
        if now >= self._looked + WORKERS_PERIOD:
            self._looked = now
            self._workers = frozenset(cluster.workers())
        return self._workers

    def _receive(self, data: str | bytes) -> None:
        """Carry out what another worker has published."""
        message = loads(data if isinstance(data, str) else data.decode())
        if message["method"] == "callback":
            self._handle_callback(message)
        elif message["host_id"] != self.host_id:
            self._take[message["method"]](message)
