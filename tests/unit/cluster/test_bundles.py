"""The bytes of a message or bundle that another worker has to send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi import Bundle
from engineio_wsgi.cluster.bundles import BUNDLE, TEXT, pack, unpack
from engineio_wsgi.errors import BadMessage

#: lone surrogates included
MESSAGES = st.text(st.characters(exclude_categories=())) | st.binary()


@given(MESSAGES)
def test_a_message_comes_back(message: str | bytes) -> None:
    assert unpack(*pack(message)) == message


@given(st.lists(MESSAGES, min_size=1, max_size=5))
def test_a_bundle_comes_back(messages: list[str | bytes]) -> None:
    bundle = unpack(*pack(Bundle(*messages)))
    assert isinstance(bundle, Bundle)
    assert list(bundle) == messages


@given(st.binary())
def test_anything_is_a_bundle_or_refused(body: bytes) -> None:
    try:
        bundle = unpack(BUNDLE, body)
    except BadMessage:
        return
    assert isinstance(bundle, Bundle)


@pytest.mark.parametrize(("form", "body"), [
    ("", b""), ("Text", b""), (TEXT, b"\xff"), (BUNDLE, b""), (BUNDLE, b"\1"), (BUNDLE, b"\0\0\0\0\2x"),
    (BUNDLE, b"\1\0\0\0\1\xff"),
], ids=repr)
def test_what_has_another_form_is_refused(form: str, body: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack(form, body)
