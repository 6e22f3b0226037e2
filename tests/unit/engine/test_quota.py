"""What one address may take: sessions at a time, handshakes a minute."""

from __future__ import annotations

import pytest

from engineio_wsgi.engine.quota import MAX_ADDRESSES, AddressQuota
from engineio_wsgi.errors import Forbidden


def test_sessions_at_a_time():
    quota = AddressQuota(2, None)
    quota.take("192.0.2.1")
    quota.take("192.0.2.1")
    quota.take("192.0.2.2")
    with pytest.raises(Forbidden, match="more than 2 sessions"):
        quota.take("192.0.2.1")
    quota.give_back("192.0.2.1")
    quota.take("192.0.2.1")


def test_handshakes_a_minute():
    quota = AddressQuota(None, 2)
    for now in (100.0, 130.0):
        quota.count_handshake("192.0.2.1", now)
    quota.count_handshake("192.0.2.2", 130.0)
    with pytest.raises(Forbidden, match="more than 2 handshakes a minute"):
        quota.count_handshake("192.0.2.1", 159.0)
    quota.count_handshake("192.0.2.1", 160.0)


def test_no_limits():
    quota = AddressQuota(None, None)
    for _ in range(1000):
        quota.count_handshake("192.0.2.1", 0.0)
        quota.take("192.0.2.1")


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
    ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ("::ffff:192.0.2.1", "192.0.2.1", True),
    ("fe80::1%eth0", "fe80::2%eth0", True),
    ("not:an:address", "not:an:other", False),
    (None, "", True),
])
def test_what_is_counted_together(one: str | None, other: str | None, same: bool):
    quota = AddressQuota(1, None)
    quota.take(one)
    if same:
        with pytest.raises(Forbidden):
            quota.take(other)
    else:
        quota.take(other)


def test_a_flood_from_many_addresses_costs_no_memory():
    quota = AddressQuota(None, 1)
    for number in range(MAX_ADDRESSES + 10):
        quota.count_handshake(str(number), 1.0)
    assert len(quota._handshakes) <= MAX_ADDRESSES
