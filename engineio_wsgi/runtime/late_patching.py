"""Finds modules that have imported functions of the standard library before gevent patched them.

After ``from time import sleep`` above ``monkey.patch_all()``, the module's ``sleep`` blocks every greenlet.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType

from gevent import events, monkey

__all__ = ["early_users", "warn_of_late_patching"]

logger = logging.getLogger("engine")

#: functions and classes that block, and that are commonly imported by name
BLOCKING = {
    "time": ("sleep",), "socket": ("socket", "create_connection"), "ssl": ("SSLContext", "SSLSocket"),
    "select": ("select", "poll"), "subprocess": ("Popen",), "queue": ("SimpleQueue",),
}  # fmt: skip
#: packages that use the original functions on purpose, or only before the server starts
KNOWING = frozenset({
    "gevent", "greenlet", "engineio_wsgi", "gunicorn", "pytest", "_pytest", "pluggy", "pydevd", "debugpy", "coverage",
})
#: modules that one line names
MAX_NAMED = 3

_watching: list[Callable[[object], None]] = []


def warn_of_late_patching() -> None:
    """Log a warning if modules have functions that gevent has patched since, and from now on when gevent patches later."""
    users = list(early_users())
    if users:
        more = f" and {len(users) - MAX_NAMED} more" if len(users) > MAX_NAMED else ""
        logger.warning("gevent has patched the standard library too late for %s%s: what was imported before blocks every "
                       "session; call monkey.patch_all() before any other import", ", ".join(users[:MAX_NAMED]), more)
    if not _watching:
        _watching.append(_on_event)
        events.subscribers.append(_on_event)


def early_users() -> Iterator[str]:
    """The modules that imported a function before it was patched, with that function: ``shop.orders (time.sleep)``."""
    originals = dict(_originals())
    if not originals:
        return
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not _is_knowing(name.partition(".")[0]):
            taken = [originals[id(value)] for value in list(vars(module).values()) if id(value) in originals]
            if taken:
                yield f"{name} ({', '.join(taken)})"


def _is_knowing(package: str) -> bool:
    return package in KNOWING or (package in sys.stdlib_module_names and package != "__main__")


def _originals() -> Iterator[tuple[int, str]]:
    """The functions that gevent has replaced, by their identity."""
    for module, names in BLOCKING.items():
        if not monkey.is_module_patched(module):
            continue
        for name in names:
            with suppress(AttributeError):
                original = monkey.get_original(module, name)
                if original is not getattr(sys.modules[module], name):
                    yield id(original), f"{module}.{name}"


def _on_event(event: object) -> None:
    if isinstance(event, events.GeventDidPatchAllEvent):
        logger.warning("gevent has patched the standard library after the server had begun to serve: what was created before "
                       "blocks every session; call monkey.patch_all() before any other import")
