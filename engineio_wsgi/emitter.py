"""`Emitter`: sends to the sessions of a cluster from a process that serves none, such as a cron job or a task queue's worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from engineio_wsgi.cluster.local.calls import LocalCaller
from engineio_wsgi.cluster.local.names import choose_names, is_worker_id
from engineio_wsgi.cluster.local.running import AUTOMATIC, running_clusters
from engineio_wsgi.cluster.messages import Action, Call, Message
from engineio_wsgi.cluster.publisher import Post, PostKind, check_session, unknown_session
from engineio_wsgi.cluster.rpc import Caller
from engineio_wsgi.cluster.topics import Reply, Subscriber, Topics, check_data, check_topic
from engineio_wsgi.engine.registry import WORKER_ID_SIZE
from engineio_wsgi.errors import ConfigurationError, NoWorkers, OwnerGone, UsageError
from engineio_wsgi.options.options import Options
from engineio_wsgi.options.redis_url import RedisLocation, group_of, names_redis
from engineio_wsgi.session.delivery import Delivery
from engineio_wsgi.session.outgoing import Bundle, Data, Outgoing, as_outgoing

__all__ = ["Bystander", "Emitter"]

#: the cluster of a user's workers that have given it no name
UNNAMED = "local"


class Emitter:
    """Reaches the sessions of a cluster's workers from another process, with gevent or without it.

    The workers of one machine (``"local"``) can be reached by processes of the same user; the workers of several machines, by
    every process that can reach their Redis.

    Every method blocks until the workers have answered, for 5 seconds at most: in a plain thread it blocks the thread, in a
    greenlet only the greenlet. Any thread may call it. No connection is kept open between two calls.

    Every method raises ``ConnectionError`` if Redis cannot be reached. All but :meth:`workers` raise ``NoWorkers``, which is a
    ``ConnectionError``, if there are no workers. ``"local"`` without a name also finds the workers of gunicorn that serve each
    other's sessions by themselves, as long as there is one such application of this user under ``path``.

    Args:
        cluster: the servers' option ``cluster``.
        path: the servers' option ``path``.

    Raises:
        ConfigurationError: ``cluster`` does not name a cluster.

    Example::

        emitter = Emitter("local:shop")
        emitter.broadcast("the shop closes in ten minutes")
    """

    def __init__(self, cluster: str = "local", path: str = "/engine.io") -> None:
        options = Options.create(cluster=cluster, path=path)
        if options.cluster is None:
            raise ConfigurationError("cluster: expected the value of the servers' option; got None")
        self._cluster, self._path = options.cluster, options.path
        self._group = group_of(options.cluster, options.path)
        self._caller: Caller = LocalCaller(choose_names(self._group))
        if names_redis(options.cluster):
            # redis-py is an optional dependency
            from engineio_wsgi.cluster.redis.one_shot import OneShotClient

            self._caller = OneShotClient(RedisLocation.parse(options.cluster), self._group)

    #: whether it is an error if there are no workers
    _needs_workers = True

    def workers(self) -> list[str]:
        """The ids of all workers."""
        self._find_cluster()
        return self._caller.others()

    def _find_cluster(self) -> None:
        """Use the cluster that gunicorn's workers have made by themselves, if it is the only one and the own one has no name."""
        if self._cluster != UNNAMED:
            return
        group = group_of(UNNAMED, self._path)
        if not choose_names(group).workers():
            automatic = [each for each in running_clusters(self._path) if each.here and each.cluster.startswith(AUTOMATIC)]
            group = group_of(automatic[0].cluster, self._path) if len(automatic) == 1 else group
        self._group = group
        self._caller = LocalCaller(choose_names(group))

    def _check_reached(self) -> None:
        """No session was reached: check that the reason is not that there are no workers.

        Raises:
            NoWorkers: it is.
        """
        if self._needs_workers and not self.workers():
            where = f"the cluster {self._shown_cluster()} under the path {self._path!r} has no workers"
            others = ", ".join(map(str, running_clusters(self._path))) or "no other"
            raise NoWorkers(where if names_redis(self._cluster) else f"{where}; of this user, there is {others} on this machine")

    def _shown_cluster(self) -> str:
        """The option, without a password."""
        return str(RedisLocation.parse(self._cluster)) if names_redis(self._cluster) else repr(self._cluster)

    def count(self) -> int:
        """The number of sessions of all workers; a worker that does not answer is left out."""
        self._find_cluster()
        return self._ask_all(Call(self._group, Action.COUNT).message())

    def send(self, sid: str, data: Data | Bundle, compress: bool = True) -> bool:
        """Send one message, or a bundle, to a session.

        Returns:
            Whether its worker has queued it. ``False`` if there is no such session, its write buffer stays full, or the
            worker does not answer.

        Raises:
            TypeError: ``data`` is neither text nor binary, nor a bundle.
        """
        message = as_outgoing(data)
        self._find_cluster()
        return self._ask_owner(Call(self._group, Action.SEND, (sid,), compress=compress), message)

    def broadcast(self, data: Data | Bundle, *, to: str | None = None, exclude: Iterable[str] = (), compress: bool = True,
                  on_slow: str = "close", key: str | None = None) -> int:
        """Send one message, or a bundle, to every session, or to those of a group, except to those whose ids are in ``exclude``.

        Args:
            to, exclude, compress, on_slow, key: as :meth:`Server.broadcast` has them.

        Returns:
            The number of sessions that the message is for, those in ``exclude`` included, of the workers that have taken it.

        Raises:
            TypeError, ValueError: an argument has a wrong type or value.
        """
        return self._deliver(data, Delivery.create(to, exclude, compress, on_slow, key))

    def _deliver(self, data: object, delivery: Delivery) -> int:
        message = as_outgoing(data)
        self._find_cluster()
        return self._ask_all(Call.broadcast(self._group, delivery).message(message))

    def publish(self, topic: str, data: str | bytes, *, session: str | None = None, worker: str | None = None) -> int:
        """Call the subscribers of a topic in all workers with a message: see ``server.cluster.publish``.

        Args:
            topic: 1 to 255 characters.
            data: text or binary, 8 MB at most.
            session: the id of a session: only the worker of this session gets the message.
            worker: the id of a worker: only this one gets the message.

        Returns:
            The number of workers that have taken it.

        Raises:
            TypeError, ValueError: an argument has a wrong type or value.
            UnknownSession: no worker has the session, or its worker does not answer.
        """
        post = Post(PostKind.PUBLISH, check_topic(topic), check_data(data), session=check_session(session))
        self._find_cluster()
        if worker is not None:
            return int(self._ask_worker(worker, post.message(self._group)))
        if not post.session:
            return self._ask_all(post.message(self._group))
        if not self._ask_worker(post.session[:WORKER_ID_SIZE], post.message(self._group)):
            raise unknown_session(post.session)
        return 1

    def disconnect(self, sid: str) -> bool:
        """Close a session after its client has fetched what waits for it. Returns whether there is such a session."""
        self._find_cluster()
        return self._ask_owner(Call(self._group, Action.DISCONNECT, (sid,)))

    @property
    def connected(self) -> bool:
        """Whether the workers can be reached. Blocks until Redis has answered; on one machine, this is always true."""
        try:
            self.workers()
        except ConnectionError:
            return False
        return True

    def _ask_owner(self, call: Call, data: Outgoing = b"") -> bool:
        return self._ask_worker(call.sids[0][:WORKER_ID_SIZE], call.message(data))

    def _ask_worker(self, worker: str, message: Message) -> bool:
        with suppress(OwnerGone):
            if is_worker_id(worker) and self._caller.ask(worker, message) > 0:
                return True
        self._check_reached()
        return False

    def _ask_all(self, message: Message) -> int:
        sessions = sum(self._caller.ask_all(message).values())
        if not sessions:
            self._check_reached()
        return sessions


class Bystander(Emitter):
    """The emitter of a server in a process that is none of the workers. It is no error if there are no workers yet.

    Args:
        cluster, path: the server's options.
        topics: with the subscribers of this process, which may become a worker.
    """

    _needs_workers = False

    def __init__(self, cluster: str, path: str, topics: Topics) -> None:
        super().__init__(cluster, path)
        self._topics = topics

    def subscribe(self, topic: str, callback: Subscriber) -> Callable[[], None]:
        """See :meth:`Cluster.subscribe`. The callback is called once this process is a worker, and in workers forked from it."""
        return self._topics.subscribe(topic, callback)

    def ask(self, topic: str, data: str | bytes, *, timeout: float = 1.0, session: str | None = None) -> dict[str, Reply]:
        """Only a worker gets replies.

        Raises:
            UsageError: always.
        """
        raise UsageError("ask: this process is no worker of the cluster, and replies do not reach it: ask in a worker, such as "
                         "in a handler, or publish() here")

    def deliver(self, data: Outgoing, delivery: Delivery) -> int:
        """Send a message or a bundle to sessions of the workers. Returns the number of sessions that it is for."""
        return self._deliver(data, delivery)
