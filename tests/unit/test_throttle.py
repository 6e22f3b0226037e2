"""The throttle of log lines."""

from __future__ import annotations

from engineio_wsgi.throttle import MAX_KEYS, Throttle


def test_a_key_passes_once_a_period():
    throttle = Throttle(60.0)
    assert [throttle.passes("a", now) for now in (0.0, 1.0, 59.9, 60.0, 60.1)] == [True, False, False, True, False]


def test_keys_do_not_disturb_one_another():
    throttle = Throttle(60.0)
    assert throttle.passes("a", 0.0)
    assert throttle.passes("b", 1.0)


def test_memory_is_bounded():
    throttle = Throttle(60.0)
    assert all(throttle.passes(number, 0.0) for number in range(3 * MAX_KEYS))
    assert len(throttle._until) <= MAX_KEYS
