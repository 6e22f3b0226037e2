"""Which transports write the same frame for a message that is sent to many sessions."""

from __future__ import annotations

import functools

from engineio_wsgi.protocol.websocket.deflate import Deflater

__all__ = ["shared_form"]


def shared_form(binary: bool, binary_prefix: int, deflater: Deflater | None, threshold: int) -> tuple[object, ...] | None:
    """What the frame of a broadcast depends on besides its message; ``None`` if on the messages before it.

    Args:
        binary: whether the client accepts binary frames.
        binary_prefix: bytes before a binary message.
        deflater: compresses messages of ``threshold`` bytes and more; ``None`` if none is compressed.
    """
    if deflater is None:
        return _one_tuple(binary, binary_prefix)
    settings = deflater.settings
    return None if settings is None else _one_tuple(binary, binary_prefix, threshold, *settings)


@functools.cache
def _one_tuple(*parts: object) -> tuple[object, ...]:
    """The parts, in one tuple that all sessions share."""
    return parts
