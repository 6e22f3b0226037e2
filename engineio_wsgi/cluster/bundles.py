"""The body of a call that sends something to sessions: one message, or a bundle of messages.

Owns this format, and the checks of a body that arrives. Knows nothing of the call around it.
"""

from __future__ import annotations

from struct import Struct

from engineio_wsgi.errors import BadMessage
from engineio_wsgi.session.outgoing import Bundle, Outgoing

__all__ = ["BINARY", "BUNDLE", "TEXT", "pack", "unpack"]

#: the forms of a body
TEXT, BINARY, BUNDLE = "text", "binary", "bundle"
#: in a bundle, before each message: whether it is text, and its bytes
_HEAD = Struct("!?I")


def pack(data: Outgoing) -> tuple[str, bytes]:
    """The form of a body, and the body."""
    if isinstance(data, Bundle):
        return BUNDLE, b"".join(map(_pack_one, data))
    return (TEXT, _encode(data)) if isinstance(data, str) else (BINARY, data)


def unpack(form: str, body: bytes) -> Outgoing:
    """The message or bundle in a body.

    Raises:
        BadMessage: the body does not have the form.
    """
    if form == BINARY:
        return body
    if form == TEXT:
        return _decode(body)
    if form != BUNDLE:
        raise BadMessage(f"a body of an unknown form: {form!r}")
    messages: list[str | bytes] = []
    position = 0
    while position < len(body):
        start = position + _HEAD.size
        if start > len(body):
            raise BadMessage("a bundle ends in the middle of a message")
        is_text, size = _HEAD.unpack_from(body, position)
        position = start + size
        if position > len(body):
            raise BadMessage("a bundle ends in the middle of a message")
        content = body[start:position]
        messages.append(_decode(content) if is_text else content)
    if not messages:
        raise BadMessage("a bundle without messages")
    return Bundle(*messages)


def _pack_one(message: str | bytes) -> bytes:
    content = _encode(message) if isinstance(message, str) else message
    return _HEAD.pack(isinstance(message, str), len(content)) + content


def _encode(text: str) -> bytes:
    # the session will replace a lone surrogate
    return text.encode("utf-8", "surrogatepass")


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise BadMessage("the text of a call is not UTF-8") from None
