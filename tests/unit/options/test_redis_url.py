"""The URLs of a Redis: what they mean, what is refused, and that no password is shown."""

from __future__ import annotations

import pytest

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.redis_url import RedisLocation, group_of, names_redis

REDIS_URLS = {
    "redis://host": "redis://host:6379/0",
    "rediss://user:secret@host:1/2": "rediss://host:1/2",
    "redis+sentinel://:secret@a,b:5/service/3": "redis+sentinel://a:26379,b:5/service/3",
    "valkey://host": "redis://host:6379/0",
    "valkeys://user:secret@host:1/2": "rediss://host:1/2",
    "unix:///run/redis.sock": "unix:///run/redis.sock?db=0",
    "unix://user:secret@/run/redis.sock?db=2&group=shop": "unix:///run/redis.sock?db=2&group=shop",
    "unix:///run/redis.sock?db=2&username=user&password=secret": "unix:///run/redis.sock?db=2",
    "redis+cluster://[::1]:7000,b:7001?group=shop&ssl_ca_certs=x": "redis+cluster://::1:7000,b:7001/0?group=shop",
}


@pytest.mark.parametrize("url", REDIS_URLS)
def test_urls_of_redis(url: str):
    assert names_redis(url)
    assert str(RedisLocation.parse(url)) == REDIS_URLS[url]


def test_a_refused_url_shows_no_password():
    for url in ("redis://:secret@host/x", "redis+sentinel://u:secret@host", "rediss://u:secret@h:port"):
        with pytest.raises(ConfigurationError) as caught:
            RedisLocation.parse(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["unix://us%40er:s%2Fecret@/run/a%20b", "unix:///run/a%20b?username=us%40er&password=s%2Fecret"])
def test_the_parts_of_a_unix_socket(url: str):
    parsed = RedisLocation.parse(url)
    assert (parsed.socket_path, parsed.username, parsed.password) == ("/run/a b", "us@er", "s/ecret")
    assert (parsed.addresses, parsed.settings) == ((), ())


@pytest.mark.parametrize("url", ["unix://run/redis.sock", "unix://", "unix:///", "unix:///run/", "unix://:secret@run/redis.sock"])
def test_the_path_of_a_unix_socket_is_absolute(url: str):
    with pytest.raises(ConfigurationError, match=r"begins with a slash.*: unix:///run/redis/redis\.sock$") as caught:
        RedisLocation.parse(url)
    assert "secret" not in str(caught.value)


def test_redis_needs_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engineio_wsgi.options.redis_url.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError) as caught:
        RedisLocation.parse("redis://host")
    assert str(caught.value) == "cluster: redis-py is missing; pip install engineio-wsgi[redis]"


@pytest.mark.parametrize("url", [
    "redis://", "redis://host:port", "redis://host/x", "redis://h/0/1", "redis+sentinel://host", "redis+cluster://host/1",
    "redis://host/?group=a b", "redis://h?relay_websockets=2", "http://redis", "unix:///run/redis.sock?db=x",
])
def test_refused_urls(url: str):
    with pytest.raises(ConfigurationError, match=r"^cluster: expected redis://.*; got a URL that cannot be used: "):
        RedisLocation.parse(url)


@pytest.mark.parametrize("name", ["local", "redis", "redis:/x", "http://redis"])
def test_other_values_are_no_urls(name: str):
    assert not names_redis(name)


def test_a_group_does_not_depend_on_the_names_of_hosts():
    assert group_of("redis://a/1?group=shop", "/x") == group_of("rediss://b/1?group=shop", "/x")
    assert group_of("redis://a/1?group=shop", "/x") == group_of("unix:///run/redis.sock?group=shop&db=1", "/x")
    assert group_of("redis://a/1", "/x") != group_of("redis://a/2", "/x")
    assert group_of("local", "/x") == "local/x"
