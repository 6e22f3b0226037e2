"""The plain case of `Socket.send`, which is nearly every call: in C where that was built.

The function in Python is the reference for the one in ``c_batches.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engineio_wsgi.protocol.websocket.batches import accelerated
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.transports.base import Entry

__all__ = ["append_message"]


def append_in_python(entries: list[Entry], message: object, thread: int) -> int:
    """Append ``message`` to ``entries``, if it is exactly a ``bytes`` or an ASCII ``str``, and ``thread`` is the calling one.

    Returns:
        Its size in bytes; -1 if it was not appended.
    """
    if not (type(message) is bytes or (type(message) is str and message.isascii())) or thread != current_thread():
        return -1
    entries.append(message)
    return len(message)


if TYPE_CHECKING or not accelerated:
    append_message = append_in_python
else:
    from engineio_wsgi.protocol.websocket.c_batches import append_message
