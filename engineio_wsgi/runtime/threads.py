"""OS threads, seen through whatever monkey-patching has done to the standard library's view of them."""

from __future__ import annotations

from collections.abc import Callable

from gevent import monkey

__all__ = ["current_thread", "half_patched", "wait_in_thread"]

#: what ``monkey.patch_all()`` patches and listeners commonly wait with
PATCHABLE = ("socket", "ssl", "threading", "time", "select", "queue")

#: the id of the OS thread that runs; the patched function would tell greenlets apart
current_thread: Callable[[], int] = monkey.get_original("_thread", "get_ident")

_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")

#: seconds between two looks of a thread that waits for a session's buffer to drain
PERIOD = 0.005


def half_patched() -> list[str]:
    """The modules that gevent has left alone although it has patched others; empty if it has patched all or none."""
    missing = [name for name in PATCHABLE if not monkey.is_module_patched(name)]
    return missing if len(missing) < len(PATCHABLE) else []


def wait_in_thread() -> None:
    """Let the calling OS thread sleep for a moment; greenlets of other threads go on."""
    _sleep(PERIOD)
