"""JSONP: a payload as a script that cannot do harm, and out of a form. No I/O, no state.

Source: the reference server's behaviour; ECMA-262 for what may stand in a string literal, HTML for what in a script.
"""

from __future__ import annotations

import json
import re
from urllib.parse import unquote_to_bytes

from engineio_wsgi.errors import ProtocolError

__all__ = ["decode_body", "encode_response", "parse_index"]

#: digits of a callback's index; a page opens a handful of sessions, not billions
MAX_INDEX_DIGITS = 9

_ESCAPED_NEWLINE = re.compile(rb"(\\)?\\n")

#: what JSON leaves as it is, and HTML or older JavaScript would understand otherwise
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def parse_index(value: str | None) -> int:
    """The number in ``j``.

    Raises:
        ProtocolError: it has anything but ASCII digits, so that nothing can be injected through it.
    """
    if value and value.isascii() and value.isdigit() and len(value) <= MAX_INDEX_DIGITS:
        return int(value)
    raise ProtocolError("the JSONP index (j) must be a number")


def encode_response(payload: bytes, index: int) -> bytes:
    """The script that hands ``payload`` (UTF-8) to the page's function number ``index``."""
    literal = json.dumps(payload.decode()).translate(_ESCAPES)
    return f"___eio[{index}]({literal});".encode()


def decode_body(form: bytes) -> bytes:
    r"""The payload in the field ``d`` of a form.

    A form turns every newline into CR LF, so clients escape theirs: ``\n`` stands for a newline, ``\\n`` for a backslash
    and an n.

    Raises:
        ProtocolError: there is no such field.
    """
    for field in form.split(b"&"):
        name, _, value = field.partition(b"=")
        if name == b"d":
            return _unescape(unquote_to_bytes(value.replace(b"+", b" ")))
    raise ProtocolError("the form has no field d")


def _unescape(data: bytes) -> bytes:
    return _ESCAPED_NEWLINE.sub(lambda found: b"\\n" if found[1] else b"\n", data)
