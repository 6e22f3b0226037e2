"""The throttle of log lines."""

from __future__ import annotations

from engineio_wsgi.log import MAX_KEYS, Throttle


def test_a_key_passes_once_a_period():
    throttle = Throttle()
    assert [throttle.passes("a", now) for now in (0.0, 1.0, 59.9, 60.0, 60.1)] == [True, False, False, True, False]


def test_keys_are_independent():
    throttle = Throttle()
    assert throttle.passes("a", 0.0)
    assert throttle.passes("b", 1.0)


def test_memory_is_bounded():
    throttle = Throttle()
    assert all(throttle.passes(number, 0.0) for number in range(3 * MAX_KEYS))
    assert len(throttle._until) <= MAX_KEYS


def test_a_key_that_does_not_pass_does_not_start_a_period():
    throttle = Throttle()
    assert throttle.passes("a", 0.0)
    assert not throttle.passes("a", 59.0)
    assert throttle.passes("a", 60.0)
    assert not throttle.passes("a", 119.9)


def test_equal_keys_are_one_key():
    throttle = Throttle()
    assert throttle.passes(("192.0.2.7", 1), 0.0)
    assert not throttle.passes(("192.0.2.7", 1), 1.0)
    assert throttle.passes(("192.0.2.7", 2), 1.0)
    assert throttle.passes(("192.0.2.8", 1), 1.0)


def test_negative_times():
    """A monotonic clock starts anywhere."""
    throttle = Throttle()
    assert [throttle.passes("a", now) for now in (-100.0, -50.0, -40.0)] == [True, False, True]


def test_keys_are_remembered_up_to_the_bound():
    throttle = Throttle()
    for number in range(MAX_KEYS):
        throttle.passes(number, 0.0)
    assert not any(throttle.passes(number, 1.0) for number in range(MAX_KEYS))
