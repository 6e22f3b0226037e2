"""An inbox whose listeners may release their turn: what a listener does after that no longer holds up the next message.

For frameworks that run the handlers of one client's messages beside each other. Everything here belongs to the hub's thread.
"""

from __future__ import annotations

import gevent

from engineio_wsgi.session.dispatcher import LISTENER_ERRORS, DispatchedSession, Dispatcher
from engineio_wsgi.session.events import Listener

__all__ = ["OverlappingDispatcher"]


class OverlappingDispatcher(Dispatcher):
    """See the module. The listeners begin in the order of the messages; none begins before the one before has released its turn.

    Args:
        session: the session whose listeners these are.
    """

    __slots__ = ("_submitted", "_turn")

    def __init__(self, session: DispatchedSession) -> None:
        super().__init__(session)
        # the first message is not looked at: a framework's listener knows what it is sent
        self._examined = True
        #: the number of the turn that is or was last taken
        self._turn = 0
        #: whether a greenlet of the pool will look at what is queued
        self._submitted = False

    def release_turn(self) -> None:
        """Let the next listeners run although this one has not returned. Called by the listener that runs."""
        if not self.busy:
            return
        self._turn += 1
        self.busy = False
        self.greenlet = None
        if self.messages or self.calls or self.closed:
            self.submit_turn()

    def submit_turn(self) -> None:
        """Run what is queued soon, in a greenlet of the pool."""
        if not self._submitted:
            self._submitted = True
            self._session.registry.greenlets.submit(self._run_submitted)

    def _run_submitted(self) -> None:
        self._submitted = False
        self.run_turn()

    def deliver(self, data: str | bytes, now: float) -> None:
        """Call the listeners with one message, in this greenlet of the pool, unless others are running."""
        self.last_seen = now
        listeners = self.direct_listeners
        if self.busy or self.messages or not listeners or self._transport.meter is not None:
            self._queue((data,))
            self.run_turn()
            return
        self.busy = True
        turn = self._turn = self._turn + 1
        try:
            self._call(listeners, data)
        finally:
            if turn == self._turn:
                self.busy = False
        if self.messages or self.calls or self.closed:
            self.run_turn()

    def run_turn(self) -> None:
        """Run what is queued, in this greenlet, until nothing is left or another greenlet has taken over."""
        while not self.busy and self._take_turn():
            pass
        if self.closed and not self.busy:
            self._session.on_last_turn()

    def _take_turn(self) -> bool:
        """Run what is queued. Returns whether there may be more, because the turn was released."""
        self.busy = True
        self.greenlet = gevent.getcurrent()
        turn = self._turn = self._turn + 1
        meter = self._transport.meter
        try:
            if meter is None:
                self._run_queued()
            else:
                self._run_timed(meter)
        finally:
            if turn == self._turn:
                self.busy = False
                self.greenlet = None
        return turn != self._turn and bool(self.calls or (self.messages and self.message_listeners))

    def _run_queued(self) -> None:
        turn = self._turn
        while turn == self._turn:
            if self.calls:
                self._run_call()
            elif self.messages and self.message_listeners and not self._session.state.told:
                self._run_message(turn)
            else:
                break
        if self._size and not self.messages:
            self._on_emptied()

    def _run_message(self, turn: int) -> None:
        """Call the listeners with the message that has waited longest."""
        data = self.messages.popleft()
        if not self.messages:
            self._on_emptied()
        self._call(self.message_listeners, data)

    def _call(self, listeners: tuple[Listener, ...], data: str | bytes) -> None:
        try:
            for listener in listeners:
                listener(data)
        except LISTENER_ERRORS as error:
            self._on_listener_failed("message", error)
