"""OS threads, whether or not gevent has monkey-patched the standard library."""

from __future__ import annotations

from collections.abc import Callable

from gevent import monkey

__all__ = ["current_thread", "half_patched", "wait_in_thread"]

#: modules that ``monkey.patch_all()`` patches, and that listeners commonly wait with
PATCHABLE = ("socket", "ssl", "threading", "time", "select", "queue")

#: the id of the running OS thread; the patched function returns that of the greenlet
current_thread: Callable[[], int] = monkey.get_original("_thread", "get_ident")

_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")

#: seconds between two checks of a thread that waits for a session's buffer to drain
PERIOD = 0.005


def half_patched() -> list[str]:
    """The modules that gevent has not patched although it has patched others; empty if it has patched all or none."""
    missing = [name for name in PATCHABLE if not monkey.is_module_patched(name)]
    return missing if len(missing) < len(PATCHABLE) else []


def wait_in_thread() -> None:
    """Sleep for a moment in the calling OS thread; greenlets of other threads go on."""
    _sleep(PERIOD)
