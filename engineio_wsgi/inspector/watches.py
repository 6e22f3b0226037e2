"""The packets of watched sessions.

A watch ends a few seconds after the last question about it, so it needs no sign that a page was closed. For the hub's thread
only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import gevent

from engineio_wsgi.packet import Packet
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Watcher
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import size_of

__all__ = ["Watches"]

#: packets of a session that are kept for the next question
KEPT = 300
#: seconds without a question after which a watch ends
PATIENCE = 10.0
#: characters of a payload that are shown; bytes of a binary one, as hexadecimal digits
MAX_PAYLOAD = 400
MAX_BINARY = 64


class Seen(NamedTuple):
    """A packet that was received or sent.

    Attributes:
        number: one more than that of the session's packet before it.
        at: when its listener was called, on the monotonic clock.
        is_out: whether the server has sent it.
        size: bytes of its data.
        payload: the beginning of its data; ``None`` unless payloads are shown.
    """

    number: int
    at: float
    is_out: bool
    type: str
    is_binary: bool
    size: int
    payload: str | None


class Watch:
    """The packets of one session. Adds listeners to the session, which :meth:`stop` removes.

    Args:
        session: the session.
        shows_payloads: whether the beginning of each packet's data is kept.
        after: the number after which the packets are counted.
    """

    def __init__(self, session: Session, shows_payloads: bool, after: int) -> None:
        self.session = session
        self._shows_payloads = shows_payloads
        self._seen: deque[Seen] = deque(maxlen=KEPT)
        self._after = after
        #: the number of the latest packet
        self.count = after
        self.looked_at = monotonic()
        #: kept, because a listener is removed by its identity
        self._listeners: dict[str, Callable[..., object]] = {"packet": self._on_received, "flush": self._on_written}
        for event, listener in self._listeners.items():
            session.inbox.add(event, listener, False)

    def stop(self) -> None:
        """Remove the listeners."""
        for event, listener in self._listeners.items():
            self.session.inbox.off(event, listener)

    def _on_received(self, packet: Packet) -> None:
        self._add(packet, False)

    def _on_written(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._add(packet, True)

    def _add(self, packet: Packet, is_out: bool) -> None:
        self.count += 1
        data = packet.data
        payload = _shown(data) if self._shows_payloads else None
        self._seen.append(Seen(self.count, monotonic(), is_out, packet.type.name.lower(), isinstance(data, bytes), size_of(data),
                               payload))

    def look(self, number: int, now: float) -> dict[str, object]:
        """The packets after the one with a number, as the page gets them."""
        self.looked_at = now
        packets = [seen for seen in self._seen if seen.number > number]
        return {
            "reason": self.session.close_reason,
            "missed": self.count - max(number, self._after) - len(packets),
            "packets": [[seen.number, round(now - seen.at, 2), seen.is_out, seen.type, seen.is_binary, seen.size, seen.payload]
                        for seen in packets],
        }


class Watches:
    """The watches of one worker, by the number of the session."""

    def __init__(self, shows_payloads: bool) -> None:
        self._shows_payloads = shows_payloads
        self._watches: dict[int, Watch] = {}
        self._timer: Watcher | None = None
        #: the highest number of a packet in the watches that have ended. A page may still have the packets of one of them, so
        #: the numbers of the next watch are higher
        self._last = 0

    def look(self, number: int, session: Session | None, packet: int) -> dict[str, object] | None:
        """The packets after the one with a number. The first look begins a watch.

        Args:
            number: the session's.
            session: the session, if it is open.
            packet: the number of the last packet that the page has.

        Returns:
            As :meth:`Watch.look`; ``None`` if there is no such session any more.
        """
        watch = self._watches.get(number)
        if watch is None:
            if session is None:
                return None
            watch = self._watches[number] = Watch(session, self._shows_payloads, self._last)
            if self._timer is None:
                self._timer = gevent.get_hub().loop.timer(PATIENCE / 2, PATIENCE / 2, ref=False)
                self._timer.start(self._expire)
        return watch.look(packet, monotonic())

    def _expire(self) -> None:
        now = monotonic()
        for number, watch in list(self._watches.items()):
            if now - watch.looked_at > PATIENCE:
                watch.stop()
                self._last = max(self._last, watch.count)
                del self._watches[number]
        if not self._watches:
            self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def after_fork(self) -> None:
        """In a forked child: forget the parent's sessions."""
        self._last = max([self._last, *(watch.count for watch in self._watches.values())])
        self._watches.clear()
        self._stop_timer()


def _shown(data: str | bytes) -> str:
    if isinstance(data, str):
        return data[:MAX_PAYLOAD]
    return data[:MAX_BINARY].hex(" ")
