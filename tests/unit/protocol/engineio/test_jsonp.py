"""JSONP: what a script and a form contain, and what is refused."""

from __future__ import annotations

import json
import re

import pytest

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.protocol.engineio.jsonp import decode_body, encode_response, parse_index

NASTY = [
    "\"quotes\" 'and' more",
    "back\\slash\\n",
    "\u2028\u2029",
    "</script><script>alert(1)</script>",
    "<!-- -->",
    "]]>",
    "&amp;",
    ");alert(1);//",
    "\x00\x1f\x7f\r\n\x1e",
    "\ufeff\U0001f600\u20ac",
]


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_a_response_is_one_call_with_one_plain_string(text: str) -> None:
    script = encode_response(text.encode(), 3)
    call = re.fullmatch(rb'___eio\[3\]\(("[ !#-%\'-;=?-~]*(?:\\"[ !#-%\'-;=?-~]*)*")\);', script)
    assert call, script
    assert json.loads(call[1]) == text


def test_a_response() -> None:
    assert encode_response(b"4hello", 0) == b'___eio[0]("4hello");'
    assert encode_response(b"<", 12) == b'___eio[12]("\\u003c");'


@pytest.mark.parametrize(("value", "index"), [("0", 0), ("3", 3), ("007", 7), ("999999999", 999_999_999)])
def test_indexes(value: str, index: int) -> None:
    assert parse_index(value) == index


@pytest.mark.parametrize(
    "value",
    [None, "", "-1", "+1", " 1", "1 ", "1.5", "1e3", "0x1", "1];alert(1);//", "\u0663", "\u00b2", "1" * 10, "1" * 5000],
)
def test_invalid_indexes(value: str | None) -> None:
    with pytest.raises(ProtocolError):
        parse_index(value)


#: the body of a form and what it carries
FORMS = [
    (b"d=4hello", b"4hello"),
    (b"d=", b""),
    (b"d", b""),
    (b"x=1&d=4a&y", b"4a"),
    (b"d=4a&d=4b", b"4a"),
    (b"d=4a+b%20c%26%3D%2B", b"4a b c&=+"),
    (b"d=4%E2%82%AC", b"4\xe2\x82\xac"),
    (b"d=4a=b", b"4a=b"),
    (b"d=4a\\nb", b"4a\nb"),
    (b"d=4a%5Cnb", b"4a\nb"),
    (b"d=4a\\\\nb", b"4a\\nb"),
    (b"d=4a\\\\\\nb", b"4a\\\\nb"),
    (b"d=4a\\\\b", b"4a\\\\b"),
    (b"d=4a\\n\\\\n\\n", b"4a\n\\n\n"),
    (b"d=100%", b"100%"),
    (b"d=%zz%FF", b"%zz\xff"),
]


@pytest.mark.parametrize(("form", "payload"), FORMS)
def test_forms(form: bytes, payload: bytes) -> None:
    assert decode_body(form) == payload


@pytest.mark.parametrize("form", [b"", b"4hello", b"x=4hello", b"D=4hello", b"dd=4"])
def test_forms_without_a_payload(form: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_body(form)
