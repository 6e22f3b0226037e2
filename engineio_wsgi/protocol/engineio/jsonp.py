"""JSONP: encodes a payload as a script that is safe to load, and decodes it from a form. No I/O, no state.

Source: the reference server's behaviour; ECMA-262 for string literals, HTML for the contents of scripts.
"""

from __future__ import annotations

import json
import re
from urllib.parse import unquote_to_bytes

from engineio_wsgi.errors import ProtocolError

__all__ = ["decode_body", "encode_response", "parse_index"]

#: the maximum number of digits of a callback's index; a page opens few sessions
MAX_INDEX_DIGITS = 9

_ESCAPED_NEWLINE = re.compile(rb"(\\)?\\n")

#: characters that JSON does not escape, and that have a meaning in HTML
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def parse_index(value: str | None) -> int:
    """Convert the query parameter ``j`` to a number.

    Raises:
        ProtocolError: it contains anything but ASCII digits, which could inject a script.
    """
    if value and value.isascii() and value.isdigit() and len(value) <= MAX_INDEX_DIGITS:
        return int(value)
    raise ProtocolError("the JSONP index (j) must be a number")


def encode_response(payload: bytes, index: int) -> bytes:
    """The script that calls the page's function number ``index`` with ``payload`` (UTF-8)."""
    literal = json.dumps(payload.decode()).translate(_ESCAPES)
    return f"___eio[{index}]({literal});".encode()


def decode_body(form: bytes) -> bytes:
    r"""Decode the payload in the field ``d`` of a form.

    Forms convert newlines to CR LF, so clients escape them: ``\n`` means a newline, ``\\n`` a backslash and an n.

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
