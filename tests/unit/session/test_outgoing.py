"""Bundles, and the check of what an application sends."""

from __future__ import annotations

from typing import Any

import pytest

from engineio_wsgi import Bundle
from engineio_wsgi.errors import BundleTooLarge
from engineio_wsgi.session.outgoing import as_outgoing, check_fits, prepare


def test_a_bundle_has_its_messages_in_order() -> None:
    bundle = Bundle("ä", bytearray(b"1"), memoryview(b"23"))
    assert list(bundle) == list(bundle.messages) == ["ä", b"1", b"23"]
    assert (len(bundle), bundle.size, repr(bundle)) == (3, 5, "<Bundle of 3, 5 bytes>")
    assert as_outgoing(bundle) is bundle


def test_an_empty_bundle_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one message"):
        Bundle()


@pytest.mark.parametrize("wrong", [None, 1, {"a": 1}, ["a"], Bundle("a")], ids=repr)
def test_other_types_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a message is str"):
        Bundle("a", wrong)


def test_a_bundle_must_fit_into_an_empty_write_buffer_and_a_message_need_not() -> None:
    check_fits(Bundle("ab", "cd"), 4)
    check_fits("abcde", 4)
    with pytest.raises(BundleTooLarge, match="a bundle of 5 bytes is larger than max_buffered, which is 4 bytes"):
        check_fits(Bundle("ab", "cde"), 4)


def test_a_bundle_is_prepared_once_for_all_that_send_it() -> None:
    bundle = Bundle("a", "b")
    assert prepare(bundle, True) is prepare(bundle, True)
    assert prepare(bundle, True, "price").forms is prepare(bundle, True).forms
    assert prepare(bundle, False).forms is not prepare(bundle, True).forms
