"""The clusters of this user that run on this machine, for an emitter whose own cluster has no workers.

Knows the abstract names of Linux only; on other platforms, it finds nothing.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from socket import socket as Socket
from typing import NamedTuple

from engineio_wsgi.cluster.local.names import listening_names, short_mark, user_prefix

__all__ = ["AUTOMATIC", "Running", "automatic_cluster", "running_clusters"]

#: the beginning of the name of the cluster that the workers of one server make by themselves
AUTOMATIC = "local:gunicorn-"


def automatic_cluster(listeners: Iterable[Socket]) -> str:
    """The cluster of the workers that accept connections on the same sockets.

    Their addresses are compared, and not those of the settings: with port 0, several servers have the same setting.
    """
    names = [listener.getsockname() for listener in listeners]
    addresses = sorted(repr(os.path.abspath(name) if name and isinstance(name, str) else name) for name in names)
    return f"{AUTOMATIC}{sha256(''.join(addresses).encode()).hexdigest()[:12]}"


class Running(NamedTuple):
    """A cluster that has workers.

    Attributes:
        cluster: the option ``cluster`` of its servers.
        workers: their number.
        here: whether its servers have the given path.
    """

    cluster: str
    workers: int
    here: bool

    def __str__(self) -> str:
        count = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return f"{self.cluster!r} ({count}{'' if self.here else ', under another path'})"


def running_clusters(path: str) -> list[Running]:
    """The clusters that have a name, and the one without a name if it has this path.

    Args:
        path: the servers' option ``path``.
    """
    if sys.platform != "linux":
        return []
    found = Counter(name.rpartition("/")[0] for name in listening_names(user_prefix()))
    clusters: list[Running] = []
    for mark, workers in found.items():
        name, _, short = mark.rpartition("~")
        cluster = f"local:{name}" if name else "local"
        here = short == short_mark(f"{cluster}{path}")
        if name or here:
            clusters.append(Running(cluster, workers, here))
    return clusters
