"""Sends the same bytes to many connections, with one system call for each.

The function in Python is the reference for the one in C, which is used where it was built.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engineio_wsgi.protocol.websocket.batches import accelerated

__all__ = ["send_to_all", "send_to_all_in_python"]


def send_to_all_in_python(descriptors: Sequence[int], data: bytes) -> list[tuple[int, int]]:
    """Send ``data`` to the non-blocking sockets ``descriptors``, once to each.

    Returns the positions of those that did not accept all of it, with the number of bytes that each accepted, or the negative
    number of the error.
    """
    exceptions: list[tuple[int, int]] = []
    for position, descriptor in enumerate(descriptors):
        try:
            sent = os.write(descriptor, data)
        except OSError as error:
            sent = -(error.errno or 0)
        if sent != len(data):
            exceptions.append((position, sent))
    return exceptions


if TYPE_CHECKING or not accelerated:
    send_to_all = send_to_all_in_python
else:
    from engineio_wsgi.protocol.websocket.c_batches import send_to_all
