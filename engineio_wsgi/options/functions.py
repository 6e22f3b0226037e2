"""Checks the functions that an application passes: one whose body would never run is refused at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType

from engineio_wsgi.errors import ConfigurationError

__all__ = ["check_function"]

#: for each kind of function whose body a call does not run: what it is
_NEVER_RUN: tuple[tuple[Callable[[object], bool], str], ...] = (
    (inspect.iscoroutinefunction, "a coroutine function (async def), and nothing awaits it"),
    (inspect.isasyncgenfunction, "an asynchronous generator function, and nothing iterates over it"),
    (inspect.isgeneratorfunction, "a generator function (it has a yield), and nothing iterates over it"),
)
#: of the code of such functions
_FLAGS = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR


def check_function(what: str, function: object) -> None:
    """Refuse a function whose body would never run when it is called.

    Args:
        what: the purpose of the function, with which the error's text begins.

    Raises:
        ConfigurationError: it is a coroutine function, or one that makes a generator.
    """
    if isinstance(function, FunctionType) and not function.__code__.co_flags & _FLAGS and not function.__dict__:
        # the usual case, for each listener of each session: looking at everything takes 10 times as long
        return
    call = inspect.getattr_static(type(function), "__call__", None)
    for is_kind, why in _NEVER_RUN:
        if is_kind(function) or is_kind(call):
            name = getattr(function, "__qualname__", type(function).__qualname__)
            raise ConfigurationError(f"{what} must be a plain function, which may block; {name} is {why}")
