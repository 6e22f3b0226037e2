"""Random ids, made in batches: an id then costs a twentieth of one system call and one base64 encoding.

Owns the unused ids of this process. A forked child drops them: parent and child must not give out the same ids.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode

from engineio_wsgi.runtime.forks import call_in_child

__all__ = ["ID_SIZE", "random_id"]

#: random bytes of an id: 120 bits
ID_BYTES = 15
#: characters of an id: 6 bits each
ID_SIZE = ID_BYTES * 4 // 3
#: ids that are made at a time
BATCH = 64

_spare: list[str] = []


def random_id() -> str:
    """An id of 120 random bits in 20 characters, URL-safe. Any thread may call this."""
    try:
        return _spare.pop()
    except IndexError:
        text = urlsafe_b64encode(os.urandom(BATCH * ID_BYTES)).decode()
        first, *others = [text[start:start + ID_SIZE] for start in range(0, len(text), ID_SIZE)]
        _spare.extend(others)
        return first


def _drop_spare(served: bool) -> None:
    _spare.clear()


call_in_child(_drop_spare)
