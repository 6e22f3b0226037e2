"""A worker process that is replaced by another one: what its main loop calls.

Owns the moment at which a process counts as ready, and the order of what happens when it leaves. How sessions move is in
`cluster/handover`.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Sequence
from struct import Struct

import gevent
from gevent.server import StreamServer

from engineio_wsgi.cluster.handover.messages import Candidate
from engineio_wsgi.cluster.handover.process import process
from engineio_wsgi.cluster.handover.succession import Plan, Succession
from engineio_wsgi.cluster.router import Cluster
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.server import servers as servers_here

__all__ = ["Generations", "Handover"]

logger = logging.getLogger("engine.cluster")

#: seconds before the deadline at which the move ends, so that what stays can be closed
MARGIN = 1.0
#: seconds in which all workers have heard that all have to stop
MOMENT = 0.1
#: seconds in which a worker that is not replaced looks for another one that goes on
SIBLING_TIMEOUT = 1.0
#: seconds after which a later worker is claimed although not all of them are ready
PATIENCE = 2.0

_NUMBER = Struct("!Q")
#: where the numbers of a `Generations` are
_LATEST, _SERVING, _SERVING_PROCESS = range(0, 3 * _NUMBER.size, _NUMBER.size)


class Generations:
    """A counter that a master process shares with its workers. Made in the master, before it forks.

    A worker that is told to stop cannot see from a signal whether other workers take its place. They do if its master has begun
    another generation since.

    Args:
        latest: the number of the generation that was begun last. A master that starts its workers with another program does not
            share memory with them: each worker then has a counter of its own, which it moves when its master says so.
    """

    def __init__(self, latest: int = 0) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        _NUMBER.pack_into(self._shared, _LATEST, latest)

    @property
    def latest(self) -> int:
        """The number of the generation that was begun last; 0 before the first one."""
        number: int = _NUMBER.unpack_from(self._shared, _LATEST)[0]
        return number

    @property
    def serving(self) -> int:
        """The generation of the worker that has begun to serve last; 0 if that process has ended."""
        number: int = _NUMBER.unpack_from(self._shared, _SERVING)[0]
        return number if number and _is_alive(_NUMBER.unpack_from(self._shared, _SERVING_PROCESS)[0]) else 0

    def begin(self) -> int:
        """The master is about to start the workers of another generation, 1 for the first. Returns its number."""
        number = self.latest + 1
        _NUMBER.pack_into(self._shared, _LATEST, number)
        return number

    def serve(self, number: int) -> None:
        """This process is a worker of the generation with this number, and begins to serve."""
        _NUMBER.pack_into(self._shared, _SERVING, number)
        _NUMBER.pack_into(self._shared, _SERVING_PROCESS, os.getpid())


class Handover:
    """This process as a worker that takes the place of another one, and is replaced itself later. Made in the worker, once.

    Args:
        generations: the master's; ``None`` if there is no master that replaces workers.
        generation: the one that this worker belongs to, as :meth:`Generations.begin` has returned it.
        workers: how many workers a generation has.

    Example::

        handover = Handover(generations, generation, workers=4)
        server.start()
        handover.ready([server])
        stop.wait()
        deadline = monotonic() + graceful_timeout
        handover.leave(deadline, [server])
        server.stop_gracefully(deadline - monotonic(), close_servers)
    """

    def __init__(self, generations: Generations | None = None, generation: int = 0, workers: int = 1) -> None:
        self._generations = generations
        self._generation = generation
        self._workers = workers
        process.begin(generation)

    def ready(self, servers: Sequence[StreamServer]) -> None:
        """This process serves: workers that leave may move their sessions here. Does not block.

        Call it when the application has been imported, the clusters are joined and the servers accept.

        Args:
            servers: the HTTP servers of this process. Connections to the same addresses may move here.
        """
        for cluster in _clusters():
            for server in servers:
                cluster._receiver.listeners.learn(server)
        process.become_ready()
        if self._generations is not None:
            self._generations.serve(self._generation)

    def leave(self, deadline: float, servers: Sequence[StreamServer], settle: Callable[[], object] = int) -> None:
        """Move the sessions of all servers with the option ``handover`` to workers that go on. Blocks until it is done.

        The HTTP ``servers`` accept and serve until a worker that takes the sessions is ready. Then they are closed, as by their
        method ``close``, and their connections that wait for a request move as well. If nothing can move, for example because all
        workers stop, it returns after some tenths of a second, and has changed nothing.

        What is still here afterwards has to be closed by the caller: ``close_servers`` closes the sessions.

        Args:
            deadline: of the monotonic clock (`clock.monotonic`). It returns a little before this in any case.
            servers: the HTTP servers of this process.
            settle: blocks until no more connections are accepted, if the caller closes other servers than these. Sessions that
                have been opened by then move as well.
        """
        process.begin_to_leave()
        movable = _movable()
        if not movable or not (self._is_replaced or any(len(server.clients) for server in list(servers_here))):
            return
        plan = self._plan(deadline, servers, settle)
        gevent.joinall([gevent.spawn(succession.leave, plan) for succession in movable])

    def _plan(self, deadline: float, servers: Sequence[StreamServer], settle: Callable[[], object]) -> Plan:
        def close() -> None:
            for server in servers:
                server.close()

        replacements = _Replacements(self._generations, self._generation, self._workers)
        ends = deadline - MARGIN

        def heirs(candidates: list[Candidate]) -> list[Candidate]:
            return replacements.among(candidates) if self._is_replaced else candidates

        def searches_on(began: float, is_hopeful: bool) -> bool:
            if self._is_replaced:
                return monotonic() < ends and (is_hopeful or not replacements.are_elsewhere())
            return is_hopeful and monotonic() < min(ends, began + SIBLING_TIMEOUT)

        if not self._is_replaced:
            # the others may have been told to stop as well, and not know it yet
            gevent.sleep(MOMENT)
        return Plan(heirs, self._workers, searches_on, ends, close, settle)

    @property
    def _is_replaced(self) -> bool:
        """Whether other workers take the place of this one."""
        return self._generations is not None and self._generations.latest > self._generation


class _Replacements:
    """Chooses among the workers of later generations, when as many are ready as there will be.

    One that is claimed before the others are ready would get the sessions of several workers.

    Args:
        generations: the master's; ``None`` if there is no master that replaces workers.
        generation: of the worker that leaves.
        workers: how many there will be.
    """

    def __init__(self, generations: Generations | None, generation: int, workers: int) -> None:
        self._generations = generations
        self._generation = generation
        self._workers = workers
        self._first_seen = 0.0
        #: when one of them was first known to serve
        self._served_since = 0.0

    def among(self, candidates: list[Candidate]) -> list[Candidate]:
        """Those that may be claimed now."""
        later = [candidate for candidate in candidates if candidate.generation > self._generation]
        if not later:
            return []
        self._first_seen = self._first_seen or monotonic()
        are_all = len(later) >= self._workers
        return later if are_all or monotonic() - self._first_seen > PATIENCE else []

    def are_elsewhere(self) -> bool:
        """Whether one has served for a while. If none has been found then, they are in no cluster, or in another one."""
        if self._generations is None or self._generations.serving <= self._generation:
            return False
        self._served_since = self._served_since or monotonic()
        return monotonic() - self._served_since > PATIENCE


def _is_alive(number: int) -> bool:
    """Whether there is a process with this number."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _movable() -> list[Succession]:
    """By what sessions of this process can move, one for each server. Logs why others cannot, although they have the option."""
    movable: list[Succession] = []
    for server in list(servers_here):
        router = server._worker.router
        succession = router._succession if isinstance(router, Cluster) else None
        if not server.options.handover:
            continue
        if succession is not None and server._worker.resumes:
            movable.append(succession)
        elif server.clients:
            reason = "there is no listener of 'resume'" if succession is not None else "the workers are in no local cluster"
            logger.warning("%d sessions do not move, and will be closed: %s", len(server.clients), reason)
    return movable


def _clusters() -> list[Cluster]:
    """The clusters that the servers of this process have joined."""
    found = [server._worker.router for server in list(servers_here)]
    return [router for router in found if isinstance(router, Cluster)]
