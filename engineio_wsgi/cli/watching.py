"""The files whose changes restart the workers: looks at their times of modification, again and again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import gevent

__all__ = ["WatchedFiles", "short_name"]

#: seconds between two looks; 1,500 files take 3 ms each time
PERIOD = 0.3


class WatchedFiles:
    """Files that workers have loaded, and when each was modified."""

    def __init__(self) -> None:
        self._modified: dict[str, int] = {}

    def add(self, names: Iterable[object]) -> None:
        """Watch more files."""
        for name in names:
            if isinstance(name, str) and name not in self._modified:
                self._modified[name] = _modified(name)

    def changed(self) -> list[str]:
        """The files that were modified since the last call. A file that was removed has changed when it is there again."""
        found = []
        for name, before in list(self._modified.items()):
            now = _modified(name)
            if now != before and now:
                self._modified[name] = now
                found.append(name)
        return found

    def watch(self, on_changed: Callable[[str], object]) -> None:
        """Call ``on_changed`` with a file that was modified, once no file is modified any more. Never returns."""
        found: list[str] = []
        while True:
            gevent.sleep(PERIOD)
            more = self.changed()
            if found and not more:
                on_changed(short_name(found[0]))
                found = []
            found += more


def short_name(name: str) -> str:
    """The name of a file, relative to the current folder if that still exists."""
    try:
        return os.path.relpath(name)
    except OSError:
        return name


def _modified(name: str) -> int:
    """The time of a file's modification in nanoseconds; 0 without the file."""
    try:
        return os.stat(name).st_mtime_ns
    except OSError:
        return 0
