"""Refusals by kind: their counts, their texts, and that a flood of them costs no memory."""

from __future__ import annotations

from typing import Any

import pytest

from engineio_wsgi.errors import ErrorCode, Forbidden, PayloadTooLarge, RequestRefused
from engineio_wsgi.inspector.refusals import ADVICE, MAX_KINDS, MAX_TEXT, TEXT_PERIOD, RefusalLog

ENVIRON = {"REMOTE_ADDR": "10.0.0.1", "HTTP_HOST": "example.org", "PATH_INFO": "/engine.io/"}


def kinds(log: RefusalLog, now: float = 100.0) -> list[dict[str, Any]]:
    return log.describe(now)


def test_equal_refusals_are_one_kind() -> None:
    log = RefusalLog()
    for at in (1.0, 2.0, 5.0):
        log.add(RequestRefused(ErrorCode.SESSION_UNKNOWN, context={"sid": "x"}), ENVIRON, at)
    log.add(RequestRefused(ErrorCode.TRANSPORT_UNKNOWN), ENVIRON, 3.0)
    assert [(kind["code"], kind["count"], kind["age"], kind["address"]) for kind in kinds(log)] == [
        (1, 3, 95.0, "10.0.0.1"), (0, 1, 97.0, "10.0.0.1")]
    assert log.count == 4


@pytest.mark.parametrize("code", ErrorCode)
def test_every_line_of_the_error_table_has_advice(code: ErrorCode) -> None:
    log = RefusalLog()
    log.add(RequestRefused(code), ENVIRON, 1.0)
    assert len(kinds(log)[0]["advice"]) > 20


@pytest.mark.parametrize("name", sorted(ADVICE.keys() - {"TOO_LARGE"}))
def test_a_name_has_its_own_advice(name: str) -> None:
    log = RefusalLog()
    log.add(RequestRefused(ErrorCode.BAD_REQUEST, context={"name": name}), ENVIRON, 1.0)
    assert kinds(log)[0]["advice"] == ADVICE[name]


def test_advice_that_depends_on_the_request() -> None:
    log = RefusalLog()
    log.add(Forbidden(context={"name": "ORIGIN", "origin": "https://shop.example", "wanted": "this one"}), ENVIRON, 1.0)
    assert "cors='https://shop.example'" in kinds(log)[0]["advice"]


def test_a_message_that_is_too_large() -> None:
    log = RefusalLog()
    log.add(PayloadTooLarge(2000, 1000), ENVIRON, 1.0)
    assert "max_http_buffer_size" in kinds(log)[0]["advice"]
    assert "2000 bytes" in kinds(log)[0]["message"]


def test_the_texts_are_those_of_the_latest_second() -> None:
    log = RefusalLog()
    for at, why in ((1.0, "first"), (1.0 + TEXT_PERIOD / 2, "second"), (1.0 + TEXT_PERIOD, "third")):
        log.add(Forbidden(why), ENVIRON, at)
        assert kinds(log)[0]["message"] == {"second": "first"}.get(why, why)


def test_made_up_names_do_not_fill_the_memory() -> None:
    log = RefusalLog()
    for number in range(10 * MAX_KINDS):
        log.add(Forbidden("x" * 10_000, {"name": f"N{number}"}), {"REMOTE_ADDR": "y" * 10_000}, float(number))
    found = kinds(log)
    assert len(found) <= MAX_KINDS + 1
    assert sum(kind["count"] for kind in found) == 10 * MAX_KINDS
    assert all(len(kind["message"]) <= MAX_TEXT and len(kind["address"]) <= MAX_TEXT for kind in found)
