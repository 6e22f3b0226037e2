"""A pool of idle channels to other workers: a new channel costs both sides more than a small request.

Owns the number of channels that are kept. The caller connects new ones; either side may close one.
"""

from __future__ import annotations

from collections import deque

from engineio_wsgi.cluster.local.channel import Channel

__all__ = ["ChannelPool"]

#: channels that are kept for one worker, and for all together
MAX_PER_WORKER = 4
MAX_KEPT = 64


class ChannelPool:
    """The idle channels of one worker. Only the hub's greenlets may use it."""

    def __init__(self) -> None:
        self._channels: dict[str, deque[Channel]] = {}
        self._closed = False

    def take(self, worker: str) -> Channel | None:
        """An idle channel to a worker, or ``None``. The other side may have closed it meanwhile."""
        try:
            return self._channels[worker].pop()
        except (KeyError, IndexError):
            return None

    def keep(self, worker: str, channel: Channel) -> None:
        """Keep a channel whose request has been answered, or close it if there are too many."""
        kept = self._channels.setdefault(worker, deque())
        if self._closed or len(kept) >= MAX_PER_WORKER:
            channel.close()
            return
        kept.append(channel)
        if sum(map(len, self._channels.values())) > MAX_KEPT:
            # channels to workers that have ended are among them
            self._close_all()

    def close(self) -> None:
        """Close all channels, and keep none from now on."""
        self._closed = True
        self._close_all()

    def _close_all(self) -> None:
        for channels in self._channels.values():
            for channel in channels:
                channel.close()
        self._channels.clear()
