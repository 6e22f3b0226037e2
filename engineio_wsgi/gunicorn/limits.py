"""Warns when a worker is close to a limit beyond which new clients get no answer."""

from __future__ import annotations

import logging
import os
import resource
import sys

from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["LimitWatch"]

logger = logging.getLogger("engine")

#: share of a limit from which on a warning is logged
NEAR = 0.9


class LimitWatch:
    """Compares what is in use with its limits.

    Args:
        clients: the limit of clients; ``None`` if it is not known.
    """

    def __init__(self, clients: int | None) -> None:
        self._clients = clients
        self._throttle = Throttle()

    def look(self, clients: int) -> None:
        """Log a warning if there are nearly too many clients or open files. Does not block.

        Args:
            clients: their number now.
        """
        self._compare("worker_connections", clients, self._clients)
        soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._compare("open files (ulimit -n)", _count_files(), soft_limit)

    def _compare(self, name: str, used: int, limit: int | None) -> None:
        if limit is None or limit < 0 or used < NEAR * limit or not self._throttle.passes(name, monotonic()):
            return
        logger.warning("%d of %d %s are in use: raise the limit, or start more workers; beyond it new clients get no answer",
                       used, limit, name)


def _count_files() -> int:
    """The lowest number that is free for a file: at most the number of open files, and close to it when the limit is near."""
    try:
        number = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return sys.maxsize
    os.close(number)
    return number
