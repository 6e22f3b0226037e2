"""Which hosts a request may be addressed to: the defence against DNS rebinding, where a page makes its own name lead here.

Owns the check of the ``Host`` header. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engineio_wsgi.errors import Forbidden

__all__ = ["HostPolicy"]


class HostPolicy:
    """The ``allowed_hosts`` option, in force.

    Args:
        hosts: names, with or without a port; a name that begins with a dot stands for all below it, too. ``None``: any.
    """

    def __init__(self, hosts: Iterable[str] | None) -> None:
        self._is_open = hosts is None
        names = [host.lower() for host in hosts or ()]
        self._names = frozenset(name.removeprefix(".") for name in names)
        self._suffixes = tuple(name for name in names if name.startswith("."))

    def check(self, environ: Mapping[str, Any]) -> None:
        """Let a request pass, or not.

        Raises:
            Forbidden: it is addressed to another host; says which option allows it.
        """
        if self._is_open:
            return
        host = environ.get("HTTP_HOST", "").lower()
        name = _without_port(host).removesuffix(".")
        if host in self._names or name in self._names or (self._suffixes and name.endswith(self._suffixes)):
            return
        raise Forbidden("Forbidden: this host is not served; the server's option allowed_hosts names those that are",
                        {"name": "HOST", "host": host[:120], "option": "allowed_hosts"})


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
