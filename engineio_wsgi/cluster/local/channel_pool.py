"""Channels to other workers that wait for their next conversation: a new one costs both sides more than a small request.

Owns how many are kept. They are made by who needs one, and end when either side closes them.
"""

from __future__ import annotations

from collections import deque

from engineio_wsgi.cluster.local.channel import Channel

__all__ = ["ChannelPool"]

#: channels that are kept for one worker, and for all. With many workers a few each are left
MAX_PER_WORKER = 4
MAX_KEPT = 64


class ChannelPool:
    """What a worker keeps. Everything here is the hub's."""

    def __init__(self) -> None:
        self._channels: dict[str, deque[Channel]] = {}
        self._closed = False

    def take(self, worker: str) -> Channel | None:
        """A channel for a conversation with a worker, if there is one. It may have ended meanwhile."""
        try:
            return self._channels[worker].pop()
        except (KeyError, IndexError):
            return None

    def keep(self, worker: str, channel: Channel) -> None:
        """Keep a channel on which nothing is under way."""
        kept = self._channels.setdefault(worker, deque())
        if self._closed or len(kept) >= MAX_PER_WORKER:
            channel.close()
            return
        kept.append(channel)
        if sum(map(len, self._channels.values())) > MAX_KEPT:
            # those to workers that have ended are among them
            self._close_all()

    def close(self) -> None:
        """Keep none any more."""
        self._closed = True
        self._close_all()

    def _close_all(self) -> None:
        for channels in self._channels.values():
            for channel in channels:
                channel.close()
        self._channels.clear()
