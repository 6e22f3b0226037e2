"""How a broadcast is delivered: what an application may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from engineio_wsgi.session.delivery import Delivery, OnSlow


def create(**given: Any) -> Delivery:
    """What becomes of an application's arguments."""
    arguments: dict[str, Any] = {"to": None, "exclude": (), "compress": True, "on_slow": "close", "key": None, **given}
    return Delivery.create(**arguments)


def test_the_defaults() -> None:
    assert create() == Delivery()


def test_everything() -> None:
    delivery = create(to="news", exclude=["a", "b"], compress=False, on_slow="latest", key="price")
    assert delivery == Delivery("news", frozenset("ab"), False, OnSlow.LATEST, "price")


@pytest.mark.parametrize(("given", "error", "text"), [
    ({"to": 1}, TypeError, "the name of a group is a str, not int"),
    ({"to": ""}, ValueError, "must not be empty"),
    ({"on_slow": "wait"}, ValueError, "on_slow: expected one of 'close', 'drop', 'latest'; got 'wait'"),
    ({"on_slow": "latest"}, ValueError, "on_slow='latest' needs a key"),
    ({"key": "price"}, ValueError, "other values of on_slow take none"),
    ({"key": "price", "on_slow": "drop"}, ValueError, "other values of on_slow take none"),
    ({"key": 1, "on_slow": "latest"}, TypeError, "key: expected a str, got int"),
])
def test_what_is_refused(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        create(**given)
