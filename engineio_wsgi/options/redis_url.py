"""The URL of a cluster's Redis: its parts, its checks, and its form without the password.

Does not know sockets, and does not need redis-py.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import NamedTuple, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from engineio_wsgi.errors import ConfigurationError

__all__ = ["REDIS_URLS", "RedisLocation", "group_of", "names_redis"]

#: by scheme: whether TLS is used, and which service knows the address of the server
SCHEMES = {
    "redis": (False, ""), "rediss": (True, ""),
    "redis+sentinel": (False, "sentinel"), "rediss+sentinel": (True, "sentinel"),
    "redis+cluster": (False, "cluster"), "rediss+cluster": (True, "cluster"),
    "valkey": (False, ""), "valkeys": (True, ""), "unix": (False, ""),
}  # fmt: skip
PORTS = {"": 6379, "sentinel": 26379, "cluster": 6379}
#: characters of the path of a Unix socket
MIN_PATH = 2
GROUP = re.compile(r"[0-9A-Za-z._-]{1,64}")
FLAGS = {"yes": True, "no": False}
REDIS_URLS = ('redis://HOST:PORT/DB, rediss://… (TLS), unix:///PATH?db=DB, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB or '
            'redis+cluster://HOST:PORT,HOST:PORT')


def names_redis(text: str) -> bool:
    """Whether an option's value has the scheme of a Redis URL."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def group_of(cluster: str, path: str) -> str:
    """The name of the group of workers that serve each other's sessions.

    Args:
        cluster: the option ``cluster``.
        path: the option ``path``: engines under different paths are different applications, even in one process.
    """
    return (RedisLocation.parse(cluster).mark if names_redis(cluster) else cluster) + path


class RedisLocation(NamedTuple):
    """The address of a Redis server, or of the services that know its address.

    Attributes:
        secure: whether TLS is used.
        finder: ``"sentinel"`` or ``"cluster"``; empty if ``addresses`` is the server's own.
        addresses: hosts and ports; none for a Unix socket.
        service: the name that Sentinel has for the server.
        db: the number of the database. It is only a part of the group's name: publish and subscribe do not depend on databases.
        username: empty for the default user.
        password: empty for none.
        group: the name of a group of workers that serve each other's sessions, if several groups use the same Redis.
        relay_websockets: whether a WebSocket that arrives at another machine than its session's is relayed; if not, the session
            keeps polling.
        settings: the other parameters of the URL, for redis-py's connection: ``ssl_ca_certs``, for example.
        socket_path: of the server's Unix socket; empty for TCP.
    """

    secure: bool
    finder: str
    addresses: tuple[tuple[str, int], ...]
    service: str
    db: int
    username: str
    password: str
    group: str
    relay_websockets: bool
    settings: tuple[tuple[str, str], ...]
    socket_path: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL.

        Raises:
            ConfigurationError: the URL is not valid, or redis-py is missing. The text does not contain the password.
        """
        try:
            parts = urlsplit(url)
            secure, finder = SCHEMES[parts.scheme]
            user, _, hosts = parts.netloc.rpartition("@")
            is_unix = parts.scheme == "unix"
            addresses = () if is_unix else tuple(_address(host, PORTS[finder]) for host in hosts.split(","))
        except (ValueError, KeyError) as error:
            raise _wrong(str(error)) from None
        username, _, password = map(unquote, user.partition(":"))
        settings = dict(parse_qsl(parts.query))
        if is_unix:
            service, socket_path, db = "", _socket_path(hosts, parts.path), _database(settings.pop("db", "0"), finder)
            # as redis-py reads them
            username, password = settings.pop("username", "") or username, settings.pop("password", "") or password
        else:
            socket_path, (service, db) = "", _path(parts, finder)
        group, relays = _group(settings.pop("group", "")), _flag("relay_websockets", settings.pop("relay_websockets", "yes"))
        if find_spec("redis") is None:
            raise ConfigurationError("cluster: redis-py is missing; pip install engineio-wsgi[redis]")
        return cls(secure, finder, addresses, service, db, username, password, group, relays, tuple(settings.items()),
                   socket_path)

    @property
    def mark(self) -> str:
        """The part of the URL that is the same for all workers of a group. Hosts may have other names on other machines."""
        return f"redis:{self.service}:{self.db}:{self.group}"

    def __str__(self) -> str:
        """The URL without the password."""
        if self.socket_path:
            query = urlencode({"db": self.db} | ({"group": self.group} if self.group else {}))
            return f"unix://{self.socket_path}?{query}"
        scheme = ("rediss" if self.secure else "redis") + (f"+{self.finder}" if self.finder else "")
        hosts = ",".join(f"{host}:{port}" for host, port in self.addresses)
        path = "/".join(["", *([self.service] if self.service else []), str(self.db)])
        query = urlencode({"group": self.group}) if self.group else ""
        return f"{scheme}://{hosts}{path}" + (f"?{query}" if query else "")


def _group(name: str) -> str:
    if name and not GROUP.fullmatch(name):
        raise _wrong("group may have letters, digits and ._- only")
    return name


def _flag(name: str, text: str) -> bool:
    if text not in FLAGS:
        raise _wrong(f"{name} is yes or no")
    return FLAGS[text]


def _address(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or default_port


def _path(parts: SplitResult, finder: str) -> tuple[str, int]:
    names = [unquote(name) for name in parts.path.split("/") if name]
    service = ""
    if finder == "sentinel":
        if not names:
            raise _wrong("the service that Sentinel shall be asked for is missing")
        service = names.pop(0)
    return service, _database("/".join(names) or "0", finder)


def _database(text: str, finder: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or (finder == "cluster" and text != "0"):
        raise _wrong("a database is a number, and a Redis Cluster has only 0")
    return int(text)


def _socket_path(host: str, path: str) -> str:
    """The path of a Unix socket. What stands where other URLs have a host is most likely its beginning."""
    if host or len(path) < MIN_PATH or path.endswith("/"):
        raise _wrong("the path of a Unix socket begins with a slash, and is that of a file: unix:///run/redis/redis.sock")
    return unquote(path)


def _wrong(why: str) -> ConfigurationError:
    # the URL itself is not shown, because it may contain a password
    return ConfigurationError(f"cluster: expected {REDIS_URLS}; got a URL that cannot be used: {why}")
