"""Batches of plain Engine.IO messages (revision 4) to and from WebSocket frames: in C where that was built.

Owns the plain case, which is nearly all traffic: whole, final, masked and uncompressed frames of less than 64 KiB from a
client, and ``str`` and ``bytes`` for it. Everything else is left to `FrameDecoder`, and to the encoders next to it.

``receive_messages`` and ``send_messages`` do one ``recv`` or one ``send`` as well, so that the bytes need no object of their own:
`Connection` says on which descriptors they may. They never wait, and know nothing else of connections.

What is written here in Python is the reference for ``c_batches.c``. It is used where no C compiler was there when the package
was installed, and where the environment has ``ENGINEIO_PURE=1``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from engineio_wsgi.protocol.websocket.frames import apply_mask, encode_binary, encode_text

__all__ = ["accelerated", "decode_messages", "encode_messages", "receive_messages", "send_messages"]

T = TypeVar("T")

FINAL_TEXT = 0x81
FINAL_BINARY = 0x82
MASKED = 0x80
#: the packet type of a message
MESSAGE = b"4"
#: bytes of one ``recv``
RECV_SIZE = 65536


def decode_in_python(data: bytes, limit: int, messages: list[str | bytes]) -> int:
    """Take the plain messages that ``data`` begins with, and append them to ``messages``: text without its packet type.

    Args:
        data: what a client has sent, from the beginning of a frame on.
        limit: bytes of payload that a frame may have.

    Returns:
        The position of the first frame that is anything else, is not complete, is too large, or is not UTF-8.
    """
    position, end = 0, len(data)
    while position + 6 <= end:
        first, size = data[position], data[position + 1] - MASKED
        start = position + 6
        if size == 126:
            start = position + 8
            size = int.from_bytes(data[position + 2 : position + 4], "big")
        elif not 0 <= size < 126:
            break
        stop = start + size
        if stop > end or size > limit:
            break
        message = _message(first, apply_mask(data[start:stop], data[start - 4 : start]))
        if message is None:
            break
        messages.append(message)
        position = stop
    return position


def _message(first: int, payload: bytes) -> str | bytes | None:
    """The message of a frame; ``None`` if it is none, or not UTF-8."""
    if first == FINAL_BINARY:
        return payload
    if first != FINAL_TEXT or payload[:1] != MESSAGE:
        return None
    try:
        return payload[1:].decode()
    except UnicodeDecodeError:
        return None


def encode_in_python(messages: Iterable[object]) -> bytes | None:
    """The frames of ``messages``, joined; ``None`` if one is neither ``str`` nor ``bytes``, or has no UTF-8."""
    frames: list[bytes] = []
    for message in messages:
        if type(message) is bytes:
            frames.append(encode_binary(message))
        elif type(message) is str and _has_utf8(message):
            frames.append(encode_text("4" + message))
        else:
            return None
    return b"".join(frames)


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def receive_in_python(fd: int, limit: int, messages: list[str | bytes], begun: bytes) -> tuple[int, bytes]:
    """Receive once from a socket, and do with the bytes what ``decode_messages`` does.

    Args:
        fd: the descriptor of a socket.
        limit, messages: as of ``decode_messages``.
        begun: what was received before, and comes before these bytes: less than 64 KiB.

    Returns:
        How many bytes were received (0 at the end of the stream), and those of all from the first frame on that was not taken.

    Raises:
        BlockingIOError: there is nothing to read now.
        OSError: the connection is lost.
    """
    received = _borrow(fd, lambda sock: sock.recv(RECV_SIZE - len(begun), socket.MSG_DONTWAIT))
    data = begun + received
    return len(received), data[decode_in_python(data, limit, messages) :]


def send_in_python(fd: int, messages: Sequence[object]) -> tuple[int, bytes] | None:
    """Send the frames of ``messages``, as ``encode_messages`` makes them, with one ``send``.

    Returns:
        The size of the frames, and the bytes that the kernel has not taken; ``None`` if ``encode_messages`` returns that.

    Raises:
        OSError: the connection is lost.
    """
    frames = encode_in_python(messages)
    if frames is None:
        return None
    try:
        sent = _borrow(fd, lambda sock: sock.send(frames, socket.MSG_DONTWAIT))
    except BlockingIOError:
        sent = 0
    return len(frames), frames[sent:]


def _borrow(fd: int, use: Callable[[socket.SocketType], T]) -> T:
    """Use a descriptor as a socket, without closing it."""
    sock = socket.SocketType(fileno=fd)
    try:
        return use(sock)
    finally:
        sock.detach()


accelerated: bool
if TYPE_CHECKING or os.environ.get("ENGINEIO_PURE", "") not in ("", "0"):
    decode_messages, encode_messages, accelerated = decode_in_python, encode_in_python, False
    receive_messages, send_messages = receive_in_python, send_in_python
else:
    try:
        from engineio_wsgi.protocol.websocket.c_batches import (
            decode_messages,
            encode_messages,
            receive_messages,
            send_messages,
        )
    except ImportError:  # there was no compiler
        decode_messages, encode_messages, accelerated = decode_in_python, encode_in_python, False
        receive_messages, send_messages = receive_in_python, send_in_python
    else:
        accelerated = True
