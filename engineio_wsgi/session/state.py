"""The states of a session, the causes of its moves, and the table of legal moves.

Whether a session is closed, closing, upgraded or upgrading is derived from its state.
"""

from __future__ import annotations

import enum

__all__ = ["MOVES", "Cause", "SessionState"]


class SessionState(enum.Enum):
    """Where a session is in its life; the value is what the documentation calls it.

    ``ready``: the value of `Socket.ready_state`. ``closing``: the session ends when its client has received what is buffered.
    ``closed``: it has ended. ``told``: its ``close`` listeners have been called, and no more messages are delivered.
    ``over``: they have returned, or will not be called. ``moved``: it goes on in another process.
    """

    OPENING = "opening"
    OPEN = "open"
    UPGRADING = "open, upgrading"
    UPGRADED = "open, upgraded"
    CLOSING = "closing"
    CLOSING_UPGRADING = "closing, upgrading"
    CLOSING_UPGRADED = "closing, upgraded"
    #: the ``close`` listeners have not been called yet
    CLOSED = "closed"
    CLOSED_UPGRADED = "closed, upgraded"
    #: the ``close`` listeners are running
    TELLING = "closed, telling"
    TELLING_UPGRADED = "closed, telling, upgraded"
    OVER = "closed, over"
    OVER_UPGRADED = "closed, over, upgraded"
    #: the session goes on in another process
    MOVED = "closed, over, moved"
    MOVED_UPGRADED = "closed, over, moved, upgraded"

    # Enum's own is a function in Python, and each move would call it twice
    __hash__ = object.__hash__

    ready: str
    is_open: bool
    closing: bool
    closed: bool
    told: bool
    over: bool
    moved: bool
    upgrading: bool
    upgraded: bool

    def __init__(self, text: str) -> None:
        self.ready, *rest = text.split(", ")
        self.is_open = self.ready == "open"
        self.closing = self.ready == "closing"
        self.closed = self.ready == "closed"
        self.over = "over" in rest
        self.moved = "moved" in rest
        self.told = self.over or "telling" in rest
        self.upgrading = "upgrading" in rest
        self.upgraded = "upgraded" in rest


class Cause(enum.Enum):
    """Causes of a move from one state to another."""

    __hash__ = object.__hash__

    #: the handshake was admitted
    OPEN = "open"
    #: a candidate connection for an upgrade has arrived
    UPGRADE = "upgrade"
    #: the upgrade was abandoned
    ABANDON = "abandon"
    #: the upgrade was completed
    SWITCH = "switch"
    #: the session ends when its client has received what is buffered
    CLOSE = "close"
    #: the session ends now
    END = "end"
    #: the ``close`` listeners are called
    TELL = "tell"
    #: the ``close`` listeners have returned
    RELEASE = "release"
    #: the session goes on in another process
    MOVE = "move"


#: the legal moves; any other cause leaves a session in its state
MOVES: dict[tuple[SessionState, Cause], SessionState] = {
    (SessionState.OPENING, Cause.OPEN): SessionState.OPEN,

    (SessionState.OPEN, Cause.UPGRADE): SessionState.UPGRADING,
    (SessionState.UPGRADING, Cause.ABANDON): SessionState.OPEN,
    (SessionState.UPGRADING, Cause.SWITCH): SessionState.UPGRADED,
    (SessionState.CLOSING, Cause.UPGRADE): SessionState.CLOSING_UPGRADING,
    (SessionState.CLOSING_UPGRADING, Cause.ABANDON): SessionState.CLOSING,
    (SessionState.CLOSING_UPGRADING, Cause.SWITCH): SessionState.CLOSING_UPGRADED,

    (SessionState.OPEN, Cause.CLOSE): SessionState.CLOSING,
    (SessionState.UPGRADING, Cause.CLOSE): SessionState.CLOSING_UPGRADING,
    (SessionState.UPGRADED, Cause.CLOSE): SessionState.CLOSING_UPGRADED,

    (SessionState.OPEN, Cause.END): SessionState.CLOSED,
    (SessionState.UPGRADING, Cause.END): SessionState.CLOSED,
    (SessionState.UPGRADED, Cause.END): SessionState.CLOSED_UPGRADED,
    (SessionState.CLOSING, Cause.END): SessionState.CLOSED,
    (SessionState.CLOSING_UPGRADING, Cause.END): SessionState.CLOSED,
    (SessionState.CLOSING_UPGRADED, Cause.END): SessionState.CLOSED_UPGRADED,

    (SessionState.CLOSED, Cause.TELL): SessionState.TELLING,
    (SessionState.CLOSED_UPGRADED, Cause.TELL): SessionState.TELLING_UPGRADED,
    (SessionState.TELLING, Cause.RELEASE): SessionState.OVER,
    (SessionState.TELLING_UPGRADED, Cause.RELEASE): SessionState.OVER_UPGRADED,

    (SessionState.OPEN, Cause.MOVE): SessionState.MOVED,
    (SessionState.UPGRADED, Cause.MOVE): SessionState.MOVED_UPGRADED,
}
