"""The hosts to which a request may be addressed: a defence against DNS rebinding (a page's name that resolves to this server).

Owns the check of the ``Host`` header. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engineio_wsgi.errors import Forbidden

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["HostPolicy", "without_port"]


class HostPolicy:
    """Checks requests against the ``allowed_hosts`` option.

    Args:
        hosts: names, with or without a port; a name that begins with a dot includes its subdomains. ``None`` allows all hosts.
    """

    def __init__(self, hosts: Iterable[str] | None) -> None:
        self._is_open = hosts is None
        names = [host.lower() for host in hosts or ()]
        self._names = frozenset(name.removeprefix(".") for name in names)
        self._suffixes = tuple(name for name in names if name.startswith("."))

    def check(self, environ: WSGIEnvironment) -> None:
        """Check one request.

        Raises:
            Forbidden: it is addressed to another host. The message names the option.
        """
        if self._is_open:
            return
        host = environ.get("HTTP_HOST", "").lower()
        name = without_port(host).removesuffix(".")
        if host in self._names or name in self._names or (self._suffixes and name.endswith(self._suffixes)):
            return
        raise Forbidden("Forbidden: this host is not served; the server's option allowed_hosts names those that are",
                        {"name": "HOST", "host": host[:120], "option": "allowed_hosts"})


def without_port(host: str) -> str:
    """A host without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
