"""A worker process that is replaced by another one: what its main loop calls.

Owns the moment at which a process counts as ready, and the order of what happens when it leaves. How sessions move is in
`cluster/handover`.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from struct import Struct

from engineio_wsgi.cluster.handover.process import process
from engineio_wsgi.http.http_server import HttpServer

__all__ = ["Generations", "Handover"]

_NUMBER = Struct("!Q")


class Generations:
    """A counter that a master process shares with its workers. Made in the master, before it forks.

    A worker that is told to stop cannot see from a signal whether other workers take its place. They do if its master has begun
    another generation since.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def latest(self) -> int:
        """The number of the generation that was begun last; 0 before the first one."""
        number: int = _NUMBER.unpack_from(self._shared)[0]
        return number

    def begin(self) -> int:
        """The master is about to start the workers of another generation, 1 for the first. Returns its number."""
        number = self.latest + 1
        _NUMBER.pack_into(self._shared, 0, number)
        return number


class Handover:
    """This process as a worker that takes the place of another one, and is replaced itself later. Made in the worker, once.

    Args:
        generations: the master's; ``None`` if there is no master that replaces workers.
        generation: the one that this worker belongs to, as :meth:`Generations.begin` has returned it.
        workers: how many workers a generation has.

    Example::

        handover = Handover(generations, generation, workers=4)
        server.start()
        handover.ready()
        stop.wait()
        deadline = monotonic() + graceful_timeout
        handover.leave(deadline, [server])
        server.stop_gracefully(deadline - monotonic(), close_servers)
    """

    def __init__(self, generations: Generations | None = None, generation: int = 0, workers: int = 1) -> None:
        self._generations = generations
        self._workers = workers
        process.begin(generation)

    def ready(self) -> None:
        """This process serves its listeners: workers that leave may move their sessions here. Does not block.

        Call it when the application has been imported, the clusters are joined and the servers accept.
        """
        process.become_ready()

    def leave(self, deadline: float, servers: Sequence[HttpServer] = ()) -> None:
        """Move the sessions of all servers with the option ``handover`` to workers that go on. Blocks until it is done.

        The ``servers`` accept and serve until a worker that takes the sessions is ready. Then they are closed, as by their method
        ``close``, and their connections that wait for a request move as well. If nothing can move, for example because all
        workers stop, it returns at once, or after some tenths of a second, and has changed nothing.

        What is still here afterwards has to be closed by the caller: ``close_servers`` closes the sessions.

        Args:
            deadline: of the monotonic clock (`clock.monotonic`). It returns a little before this in any case.
            servers: the HTTP servers of this process.
        """
        process.begin_to_leave()
