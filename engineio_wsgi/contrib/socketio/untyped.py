"""Names for what has no types: python-socketio's objects, and what applications pass to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Environ", "Foreign", "Handler", "Value"]

#: an object of python-socketio, which has no types
Foreign: TypeAlias = Any  # as all of the package's attributes
#: an argument or a result of an application's, or of a client's: JSON with bytes in it, or whatever the application likes
Value: TypeAlias = Any  # no type is narrower
#: an application's handler of an event
Handler: TypeAlias = Callable[..., Value]
#: of a session: one dict, which python-socketio and Flask-SocketIO add to
Environ: TypeAlias = dict[str, Value]
