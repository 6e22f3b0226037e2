"""The answers of one worker to the inspector: its sessions, its load, and the packets of a watched session.

Ids of sessions are credentials, and do not leave the worker: a page gets their first characters, and names a session by its
worker and a number. Everything here runs in the hub of the inspected server.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import platform
import resource
from collections.abc import Callable, Iterable

from engineio_wsgi.engine.registry import WORKER_ID_SIZE, Registry
from engineio_wsgi.inspector.question import Close, Look, read_question
from engineio_wsgi.inspector.recorder import Recorder, SessionRecord
from engineio_wsgi.inspector.watches import Watches
from engineio_wsgi.log import shorten
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["CLOSED_BY_INSPECTOR", "ROWS", "WorkerView"]

logger = logging.getLogger("engine")

#: sessions that are shown at once
ROWS = 100
#: characters of a user's name
MAX_USER = 80
#: keys of ``socket.data`` that may name the user
USER_KEYS = ("user", "username", "name")
#: the close reason of a session that was closed on the page
CLOSED_BY_INSPECTOR = "closed by the inspector"
#: the reason that is shown for a watched session that this worker does not have any more
GONE = "it has ended, or went to another worker"
#: the name of this worker where there is no cluster
ALONE = "this"

_SORTED: dict[str, Callable[[SessionRecord], float]] = {
    "newest": lambda record: record.number,
    "oldest": lambda record: -record.number,
    "traffic": lambda record: record.messages_in + record.messages_out,
    "buffered": lambda record: record.session.outbox.size,
    "slowest": lambda record: record.round_trip or 0.0,
    "quietest": lambda record: -record.session.inbox.last_seen,
}


class WorkerView:
    """Answers questions about the sessions of this worker.

    Args:
        registry: has the sessions.
        recorder: has their records.
        shows_payloads: whether the data of a watched session's packets is shown.
    """

    def __init__(self, registry: Registry, recorder: Recorder, shows_payloads: bool) -> None:
        self._registry = registry
        self._recorder = recorder
        self._watches = Watches(shows_payloads)
        self._pid = os.getpid()

    @property
    def name(self) -> str:
        """The worker's id."""
        return self._registry.worker_id or ALONE

    def answer(self, question: str | bytes) -> str:
        """Answer a question, which is JSON, in JSON.

        Raises:
            ValueError: it is no question.
        """
        asked = read_question(question)
        self._forget_parent()
        if isinstance(asked, Close):
            return json.dumps({"closed": self._close(asked.session)})
        return json.dumps(self._describe(asked))

    def _forget_parent(self) -> None:
        """In a forked child, forget the watches of the parent."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._watches.after_fork()

    # -- a look

    def _describe(self, look: Look) -> dict[str, object]:
        now = monotonic()
        self._recorder.look()
        records = self._recorder.records
        found = list(_matching(records, look.search)) if look.search else records
        shown = heapq.nlargest(ROWS, found, key=_SORTED[look.order])
        recorder = self._recorder
        return {
            "worker": self.name,
            # the cluster also knows it by the ids of the workers whose sessions it has taken over
            "names": sorted({record.session.id[:WORKER_ID_SIZE] for record in records}),
            "load": self._load(now),
            "transports": _count_transports(records),
            "buffered": sum([record.session.outbox.size for record in records]),
            "history": recorder.history.since(look.since.get(self.name, 0)),
            "totals": recorder.totals(),
            "moves": recorder.moves,
            "closes": recorder.reasons,
            "refusals": recorder.refusals.describe(now),
            "upgrades": {"won": recorder.upgrades_won, "failed": recorder.upgrades_failed,
                         "seconds": [round(seconds, 4) for seconds in recorder.upgrade_seconds]},
            "found": len(found),
            "sessions": [self._row(record, now) for record in shown],
            "watched": self._watched(look),
        }

    def _load(self, now: float) -> dict[str, object]:
        last = self._recorder.history.last
        return {"host": platform.node(), "pid": os.getpid(), "age": round(now - self._recorder.began_at),
                "memory": _resident_bytes(), "cpu": None if last is None else last.cpu, "lag": None if last is None else last.lag,
                "taken": not self._registry.closing}

    def _row(self, record: SessionRecord, now: float) -> dict[str, object]:
        session = record.session
        return {
            "handle": f"{self.name}.{record.number}",
            "id": shorten(session.id),
            "number": record.number,
            "state": "upgrading" if session.state.upgrading else session.state.ready,
            "transport": session.transport.name,
            "protocol": session.protocol,
            "address": session.remote_address,
            "user": _user(record),
            "age": round(now - record.opened_at, 1),
            "quiet": round(max(0.0, now - session.inbox.last_seen), 1),
            "roundTrip": record.round_trip,
            "upgradedIn": record.upgraded_in,
            "buffered": session.outbox.size,
            "in": record.messages_in,
            "out": record.messages_out,
        }

    # -- one session

    def _find(self, handle: str) -> tuple[int, SessionRecord | None] | None:
        """The number in a handle, and the record if the session is open; ``None`` if it is another worker's."""
        worker, _, number = handle.rpartition(".")
        if worker != self.name or not number.isdecimal():
            return None
        return int(number), self._recorder.find(int(number))

    def _watched(self, look: Look) -> dict[str, object] | None:
        found = self._find(look.watched)
        if found is None:
            return None
        number, record = found
        seen = self._watches.look(number, None if record is None else record.session, look.packet)
        if seen is None:
            return {"reason": GONE, "missed": 0, "packets": [], "row": None}
        if record is None:
            return {**seen, "reason": seen["reason"] or GONE, "row": None}
        return {**seen, "row": self._row(record, monotonic())}

    def _close(self, handle: str) -> bool:
        """Close a session when its client has received what is buffered. Returns whether it is here."""
        found = self._find(handle)
        record = None if found is None else found[1]
        if record is None:
            return False
        logger.info("= %s: closed by the inspector", shorten(record.session.id))
        record.session.end_when_drained(CLOSED_BY_INSPECTOR)
        return True


def _matching(records: Iterable[SessionRecord], search: str) -> Iterable[SessionRecord]:
    """The sessions in whose row a text appears."""
    text = search.lower()
    for record in records:
        session = record.session
        words = (shorten(session.id), f"#{record.number}", session.remote_address or "", _user(record) or "",
                 session.transport.name)
        if any(text in word.lower() for word in words):
            yield record


def _count_transports(records: Iterable[SessionRecord]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for record in records:
        name = record.session.transport.name
        counted[name] = counted.get(name, 0) + 1
    return counted


def _user(record: SessionRecord) -> str | None:
    """The user's name, if the application has put a text or a number into ``socket.data``."""
    socket = record.session.socket
    # not `data`, which makes a dict where there is none
    data = None if socket is None else socket._data
    for key in USER_KEYS if data else ():
        value = data.get(key) if data else None
        if isinstance(value, (str, int)):
            return str(value)[:MAX_USER]
    return None


def _resident_bytes() -> int | None:
    """The memory that this process occupies; ``None`` where Linux' ``/proc`` is missing."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None
