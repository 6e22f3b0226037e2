"""Sending from processes that serve nothing: a task queue's worker, a cron job, a shell."""

from __future__ import annotations

from collections.abc import Iterable

from engineio_wsgi.cluster.local.names import choose_names, is_worker_id
from engineio_wsgi.cluster.messages import Action, Call, Message
from engineio_wsgi.cluster.rpc import Caller, LocalCaller
from engineio_wsgi.engine.registry import WORKER_ID_SIZE
from engineio_wsgi.errors import ConfigurationError, OwnerGone
from engineio_wsgi.options.options import Options
from engineio_wsgi.options.redis_url import RedisLocation, group_of, names_redis
from engineio_wsgi.session.socket import as_message

__all__ = ["Emitter"]


class Emitter:
    """Reaches the sessions of a cluster's workers from another process. With gevent and without it.

    The workers of one machine (``"local"``) are reached by processes of the same user; those of several, by whoever reaches
    their Redis.

    Every method blocks until the workers concerned have answered, for 5 seconds at most: in a plain thread the thread, in a
    greenlet that greenlet only. Safe to use from any thread. Nothing is kept open between two calls.

    Args:
        cluster: what the servers have as their option ``cluster``.
        path: what they have as their option ``path``.

    Raises:
        ConfigurationError: ``cluster`` names none.

    Every method raises ``ConnectionError`` where Redis cannot be reached.

    Example::

        emitter = Emitter("local:shop")
        emitter.broadcast("the shop closes in ten minutes")
    """

    def __init__(self, cluster: str = "local", path: str = "/engine.io") -> None:
        options = Options.create(cluster=cluster, path=path)
        if options.cluster is None:
            raise ConfigurationError("cluster: expected what the servers have there; None serves nobody else's sessions")
        self._group = group_of(options.cluster, options.path)
        self._caller: Caller = LocalCaller(choose_names(self._group))
        if names_redis(options.cluster):
            # redis-py is there only where it is needed
            from engineio_wsgi.cluster.redis.one_shot import OneShotClient

            self._caller = OneShotClient(RedisLocation.parse(options.cluster), self._group)

    def workers(self) -> list[str]:
        """The ids of all workers: what their session ids begin with."""
        return self._caller.others()

    def count(self) -> int:
        """How many sessions there are; a worker that does not answer is left out."""
        return self._ask_all(Call(self._group, Action.COUNT).message())

    def send(self, sid: str, data: str | bytes, compress: bool = True) -> bool:
        """Send one message to a session.

        Returns:
            Whether its worker has queued it. ``False`` if there is no such session, its write buffer stays full, or the
            worker does not answer.

        Raises:
            TypeError: ``data`` is neither text nor binary.
        """
        return self._ask_owner(Call(self._group, Action.SEND, (sid,), compress=compress), as_message(data))

    def broadcast(self, data: str | bytes, exclude: Iterable[str] = (), compress: bool = True) -> int:
        """Send one message to every session, except to those whose ids are in ``exclude``.

        Returns:
            How many sessions the workers have that have taken it.

        Raises:
            TypeError: ``data`` is neither text nor binary.
        """
        call = Call(self._group, Action.BROADCAST, tuple(exclude), compress=compress)
        return self._ask_all(call.message(as_message(data)))

    def disconnect(self, sid: str) -> bool:
        """Close a session, after what waits for its client has been fetched. Returns whether there is such a session."""
        return self._ask_owner(Call(self._group, Action.DISCONNECT, (sid,)))

    @property
    def connected(self) -> bool:
        """Whether the workers can be reached. Blocks while Redis is asked; on one machine, they always can."""
        try:
            self.workers()
        except ConnectionError:
            return False
        return True

    def _ask_owner(self, call: Call, data: str | bytes = b"") -> bool:
        owner = call.sids[0][:WORKER_ID_SIZE]
        try:
            return is_worker_id(owner) and self._caller.ask(owner, call.message(data)) > 0
        except OwnerGone:
            return False

    def _ask_all(self, message: Message) -> int:
        return sum(self._caller.ask_all(message).values())
