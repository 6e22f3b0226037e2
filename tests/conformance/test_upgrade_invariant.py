"""No message is lost, doubled or reordered in either direction, whatever the timing of the upgrade.

Both sides send from several greenlets before, during and after the switch. ``TEST_UPGRADE_SEED=17`` runs the
conversation of one seed alone, under each handler and revision.
"""

from __future__ import annotations

import os
from typing import Any

import gevent
import gevent.pool
import pytest
from support.wanderer import Books, Wanderer

pytestmark = pytest.mark.ours

ONLY = os.environ.get("TEST_UPGRADE_SEED")
#: conversations at a time: enough to have the greenlets of one disturb the timing of the others
AT_ONCE = 40
PER_BLOCK = 1 if ONLY else 400
BLOCKS = [int(ONLY)] if ONLY else [0, 1000]


def converse(served: Any, books: Books, seed: int, eio: int) -> str | None:
    """One conversation; returns what was wrong with it."""
    wanderer = Wanderer(served, seed, eio)
    books.totals[seed] = wanderer.total
    try:
        wanderer.run()
        if not wanderer.vanishes:
            books.heard[seed].complete.wait(60)
    except Exception as error:
        return f"seed {seed}: {error!r}"
    heard, received = books.heard[seed], wanderer.received
    faults = []
    for name, ledger in (("server", heard), ("client", received)):
        enough = wanderer.vanishes or len(ledger.numbers) == ledger.total
        if not (ledger.in_order and enough):
            faults.append(f"the {name} was sent {ledger.total} and heard {ledger.numbers}")
    return f"seed {seed}: {'; '.join(faults)}" if faults else None


@pytest.mark.deadline(600)
@pytest.mark.parametrize("first", BLOCKS)
def test_no_message_is_lost_doubled_or_reordered(serve: Any, eio: int, first: int) -> None:
    served = serve(app=None)
    books = Books(served.server)
    pool = gevent.pool.Pool(AT_ONCE)
    outcomes = pool.map(lambda seed: converse(served, books, seed, eio), range(first, first + PER_BLOCK))
    assert [outcome for outcome in outcomes if outcome] == []
    served.events.wait("close", PER_BLOCK)
    assert len(served.events.of("upgrade")) == PER_BLOCK
