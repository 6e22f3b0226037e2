"""Remembers which function has blocked the event loop, for the warning about it.

Costs nothing as long as nothing blocks. A function that blocks after it has waited for the event loop is not found.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from gevent import monkey

from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import TimedLoop

__all__ = ["LONG", "Blame", "calling_function", "describe_function", "stood_still"]

#: seconds for which a function has to block the event loop to be remembered
LONG = 1.0
#: the folder of the engine's own code
PACKAGE = str(Path(__file__).parents[1])

IN_PATCHED = "run what computes in gevent.get_hub().threadpool, or in another process"
IN_UNPATCHED = ("if it waits in the standard library, call gevent.monkey.patch_all() before any other import, as engineio-wsgi "
                "serve does; if it computes, run it in gevent.get_hub().threadpool")


class Blame:
    """The last function that has kept the event loop of a hub from going on."""

    __slots__ = ("_until", "_what")

    def __init__(self) -> None:
        self._until = 0.0
        self._what = ""

    def note(self, since: float, now: float, what: str) -> None:
        """Remember ``what``, which has run from ``since`` to ``now`` without a pause, if that was long."""
        if now - since >= LONG:
            self._until, self._what = now, what

    def of_last(self, seconds: float) -> str:
        """The function that blocked the loop within the last ``seconds``, as a part of a sentence; empty if it is not known."""
        return f" by {self._what}" if self._what and monotonic() - self._until < seconds else ""

    @staticmethod
    def cure() -> str:
        """The advice against it, as a part of a sentence."""
        return IN_PATCHED if monkey.is_module_patched("time") else IN_UNPATCHED


def stood_still(loop: TimedLoop, seconds: float) -> bool:
    """Whether the present turn of the loop has lasted for so many seconds."""
    before = loop.now()
    loop.update_now()
    return loop.now() - before >= seconds


def calling_function() -> str:
    """The function of the application that has called the engine, and where it is."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"


def describe_function(function: Any) -> str:  # it is looked into without knowing its type
    """The name of a listener, and the file and line where it begins."""
    while (wrapped := getattr(function, "listener", None)) is not None:
        function = wrapped
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
