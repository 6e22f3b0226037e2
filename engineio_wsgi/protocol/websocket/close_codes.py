"""Close codes: which there are, which may be on the wire, and the way a wrong frame leads to one.

Owns RFC 6455 section 7.4 and the registry of codes that grew out of it. Knows nothing of frames.
"""

from __future__ import annotations

import enum

from engineio_wsgi.errors import FrameError

__all__ = ["CloseCode", "FrameError", "is_sendable"]


class CloseCode(enum.IntEnum):
    """The codes that the protocol itself gives a meaning, and this package uses."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011


#: 1004 is reserved; 1005, 1006 and 1015 say that there was no close frame; 1012 to 1014 were registered later
_REGISTERED = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


def is_sendable(code: int) -> bool:
    """Whether a close frame may carry ``code``: those of the protocol, of the registry (3000 on), and private ones."""
    return code in _REGISTERED or 3000 <= code <= 4999
