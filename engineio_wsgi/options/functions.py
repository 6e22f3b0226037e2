"""What an application gives to be called: functions whose body would never run are refused when they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from engineio_wsgi.errors import ConfigurationError

__all__ = ["check_function"]

#: by the kind of function: why none is called as a listener is
_NEVER_RUN: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (inspect.iscoroutinefunction, "a coroutine function (async def), and nothing awaits it"),
    (inspect.isasyncgenfunction, "an asynchronous generator function, and nothing iterates over it"),
    (inspect.isgeneratorfunction, "a generator function (it has a yield), and nothing iterates over it"),
)


def check_function(what: str, function: object) -> None:
    """Refuse a function whose body would never run when it is called.

    Args:
        what: it is to be: begins the text.

    Raises:
        ConfigurationError: it is a coroutine function, or one that makes a generator.
    """
    call = inspect.getattr_static(type(function), "__call__", None)
    for is_kind, why in _NEVER_RUN:
        if is_kind(function) or is_kind(call):
            name = getattr(function, "__qualname__", type(function).__qualname__)
            raise ConfigurationError(f"{what} must be a plain function, which may block; {name} is {why}")
