"""The limits for one client address. No I/O; the clock is an argument.

Owns the counts behind the options ``max_sessions_per_address`` and ``max_handshakes_per_address``. Behind a proxy, the
address is the client's only if something like werkzeug's ``ProxyFix`` has put it into the environ.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import AddressValueError, IPv6Address

from engineio_wsgi.errors import Forbidden

__all__ = ["AddressQuota"]

#: seconds of the period in which handshakes are counted
PERIOD = 60.0
#: addresses whose handshakes are counted; with more, counting starts again, so that a flood costs no memory
MAX_ADDRESSES = 65_536
#: the bits of an IPv6 address that a provider leaves to one customer (RFC 6177)
HOST_BITS = 64


class AddressQuota:
    """The sessions and handshakes of each address.

    Args:
        max_sessions: sessions that one address may have at a time; ``None`` for any number.
        max_handshakes: handshakes of one address in a minute; ``None`` for any number.
    """

    __slots__ = ("_handshakes", "_max_handshakes", "_max_sessions", "_period_ends", "_sessions")

    def __init__(self, max_sessions: int | None, max_handshakes: int | None) -> None:
        self._max_sessions = max_sessions
        self._max_handshakes = max_handshakes
        self._sessions: Counter[str] = Counter()
        self._handshakes: Counter[str] = Counter()
        self._period_ends = 0.0

    def count_handshake(self, address: str | None, now: float) -> None:
        """Count a handshake.

        Raises:
            Forbidden: the address has sent too many in this minute.
        """
        limit = self._max_handshakes
        if limit is None:
            return
        if now >= self._period_ends or len(self._handshakes) >= MAX_ADDRESSES:
            self._handshakes.clear()
            self._period_ends = now + PERIOD
        key = _network(address)
        self._handshakes[key] += 1
        if self._handshakes[key] > limit:
            raise Forbidden(f"Forbidden: more than {limit} handshakes a minute from one address",
                            {"name": "HANDSHAKES_PER_ADDRESS", "address": address, "option": "max_handshakes_per_address"})

    def check(self, address: str | None) -> None:
        """Check that the address may open another session; this does not count it.

        Raises:
            Forbidden: the address has as many sessions as it may have.
        """
        limit = self._max_sessions
        if limit is not None and self._sessions[_network(address)] >= limit:
            raise Forbidden(f"Forbidden: more than {limit} sessions from one address",
                            {"name": "SESSIONS_PER_ADDRESS", "address": address, "option": "max_sessions_per_address"})

    def take(self, address: str | None) -> None:
        """Count a session that opens.

        Raises:
            Forbidden: the address has as many sessions as it may have.
        """
        self.check(address)
        if self._max_sessions is not None:
            self._sessions[_network(address)] += 1

    def add(self, address: str | None) -> None:
        """Count a session that comes from another worker, which has checked it."""
        if self._max_sessions is not None:
            self._sessions[_network(address)] += 1

    def give_back(self, address: str | None) -> None:
        """Count a session that has ended."""
        if self._max_sessions is None:
            return
        key = _network(address)
        self._sessions[key] -= 1
        if self._sessions[key] <= 0:
            del self._sessions[key]


def _network(address: str | None) -> str:
    """The key that addresses are counted under: an IPv4 address, or the /64 network of an IPv6 address."""
    if address is None or ":" not in address:
        return address or ""
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> HOST_BITS:x}"
