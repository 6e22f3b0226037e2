"""Options: what each accepts and becomes, what is refused and how that reads, and the ways in by text."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi import Server
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.environment import from_environ, parse_option, simple_options
from engineio_wsgi.options.options import Options, option_defaults, option_table
from engineio_wsgi.options.redis_url import RedisLocation
from engineio_wsgi.options.values import Cookie, Cors, Deflate, HttpCompression

NAMES = [declared.name for declared in dataclasses.fields(Options)]
DEFAULTS = {
    "path": "/engine.io",
    "add_trailing_slash": True,
    "transports": ("polling", "websocket"),
    "ping_interval": 25.0,
    "ping_timeout": 20.0,
    "upgrade_timeout": 10.0,
    "max_http_buffer_size": 1_000_000,
    "allow_upgrades": True,
    "allow_request": None,
    "allow_eio3": False,
    "jsonp": False,
    "cors": None,
    "allowed_hosts": None,
    "cookie": None,
    "initial_packet": None,
    "http_compression": HttpCompression(threshold=1024),
    "per_message_deflate": None,
    "subprotocols": None,
    "max_buffered": 2_000_000,
    "max_inbox": 1_000_000,
    "max_sessions_per_address": None,
    "max_handshakes_per_address": None,
    "generate_id": None,
    "policy_file": False,
    "cluster": None,
}


def refusal(**given: object) -> str:
    """What is said about options that cannot be."""
    with pytest.raises(ConfigurationError) as caught:
        Options.create(**given)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def ask(request: object) -> bool:
    return True


def test_defaults():
    options = Options()
    assert {name: getattr(options, name) for name in NAMES} == DEFAULTS


def test_options_are_frozen_copies_of_what_was_given():
    origins = ["https://a.example"]
    options = Options(cors=origins)
    origins.append("https://b.example")
    assert options.cors == Cors(origins=("https://a.example",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.path = "/other"  # type: ignore[misc]


BECOMES = [
    ("path", "engine.io", "/engine.io"),
    ("path", "//a/b//", "/a/b"),
    ("ping_interval", 5, 5.0),
    ("ping_timeout", 0.001, 0.001),
    ("upgrade_timeout", 1_000_000, 1_000_000.0),
    ("max_inbox", 1, 1),
    ("transports", ["websocket"], ("websocket",)),
    ("transports", ("polling", "flashsocket", "polling"), ("polling", "flashsocket")),
    ("cookie", True, Cookie()),
    ("cookie", False, None),
    ("cookie", "sid", Cookie(name="sid")),
    ("cookie", {"name": "sid", "secure": True, "max_age": 60}, Cookie(name="sid", secure=True, max_age=60)),
    ("cookie", Cookie(samesite=None), Cookie(samesite=None)),
    ("per_message_deflate", True, Deflate()),
    ("per_message_deflate", {"level": 9}, Deflate(level=9)),
    ("per_message_deflate", None, None),
    ("http_compression", False, None),
    ("http_compression", HttpCompression(level=1), HttpCompression(level=1)),
    ("cors", "*", Cors(origins="*")),
    ("cors", "https://a.example:8443", Cors(origins="https://a.example:8443")),
    ("cors", "https://a.example/", Cors(origins="https://a.example/")),
    ("cors", "null", Cors(origins="null")),
    ("cors", "capacitor://localhost", Cors(origins="capacitor://localhost")),
    ("cors", "file://", Cors(origins="file://")),
    ("cors", "http://[::1]:3000", Cors(origins="http://[::1]:3000")),
    ("cors", re.compile("https://.*"), Cors(origins=re.compile("https://.*"))),
    ("cors", ask, Cors(origins=ask)),
    ("cors", ["null", re.compile("x"), ask], Cors(origins=("null", re.compile("x"), ask))),
    ("cors", {"origins": "*", "credentials": True}, Cors(origins="*", credentials=True)),
    ("cors", Cors(methods=["GET"], headers=["X-A"], expose=["X-B"]), Cors(methods=("GET",), headers=("X-A",), expose=("X-B",))),
    ("allowed_hosts", "example.org", ("example.org",)),
    ("allowed_hosts", [".a.example", "localhost:80", "[::1]:80"], (".a.example", "localhost:80", "[::1]:80")),
    ("max_sessions_per_address", 1, 1),
    ("max_handshakes_per_address", 60, 60),
    ("initial_packet", b"\x00", b"\x00"),
    ("initial_packet", "", ""),
    ("allow_request", ask, ask),
    ("generate_id", ask, ask),
    ("subprotocols", ["v2.chat", "chat"], ("v2.chat", "chat")),
    ("subprotocols", (), ()),
    ("subprotocols", ask, ask),
]


@pytest.mark.parametrize(("name", "value", "becomes"), BECOMES)
def test_accepted(name: str, value: object, becomes: object):
    options = Options.create(**{name: value})
    assert getattr(options, name) == becomes
    assert Options.create(**{name: becomes}) == options


REFUSED = {
    "path": [None, 5, "", "/", "///", "/a?b", "/a#b", "/a%20b", "/a b", "/é", "/a\n", b"/a"],
    "add_trailing_slash": [None, 0, 1, "yes"],
    "transports": [None, (), "polling", 5, [1], [[]], ["web-socket"], ["polling", "webtransport"]],
    "ping_interval": [None, True, "25", 0, -1, 0.0001, 1_000_001, float("nan"), float("inf"), 10**400],
    "ping_timeout": [0, "x"],
    "upgrade_timeout": [0, "x"],
    "max_http_buffer_size": [None, True, 0, -1, 1.5, "1000"],
    "allowed_hosts": ["", [], 5, ["a b"], ["*"], ["https://a.example"], ["a.example:x"], [None]],
    "max_sessions_per_address": [0, True, "5", 1.5],
    "max_handshakes_per_address": [0, -1],
    "max_buffered": [0],
    "max_inbox": [0],
    "allow_upgrades": ["false"],
    "allow_eio3": [1],
    "jsonp": [1],
    "policy_file": [1],
    "allow_request": [True, "x"],
    "generate_id": ["x"],
    "subprotocols": ["chat", ["a", "a"], ["a b"], [""], ["a,b"], [5], [[]], 5, True, {"a"}],
    "cors": [True, 5, "", "example.org", "https://a.example/app", "https://*.a.example", "https://bücher.example", " *",
             "https://a.example ", re.compile(b"x"), ["*", 5], iter(["*"]), b"*"],
    "cookie": [5, "", "a b", "a;b", "a=b", "ü", {"name": 5}],
    "per_message_deflate": [5, "yes", HttpCompression(), {"level": 10}],
    "http_compression": [5, Deflate(), {"threshold": -1}],
    "initial_packet": [5, {}],
    "cluster": ["elsewhere", "local:", "redis:/x", "http://redis", True, "redis://", "redis://host:port", "redis://host/x", "redis://h/0/1",
                "redis+sentinel://host", "redis+cluster://host/1", "redis://host/?group=a b", "redis://h?relay_websockets=2"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_refused_with_the_name_and_what_was_given(name: str, value: object):
    text = refusal(**{name: value})
    assert text.startswith(f"{name}: expected ")
    assert "; got " in text
    assert "\n" not in text


def test_every_option_is_refused_something():
    assert set(REFUSED) == set(NAMES)


PARTS = [
    (Cookie, {"name": "a b"}),
    (Cookie, {"path": 5}),
    (Cookie, {"path": "/; Domain=evil.example"}),
    (Cookie, {"domain": "a\r\nX: y"}),
    (Cookie, {"domain": 5}),
    (Cookie, {"samesite": "lax"}),
    (Cookie, {"httponly": "false"}),
    (Cookie, {"secure": 1}),
    (Cookie, {"max_age": "60"}),
    (Cookie, {"max_age": -1}),
    (Deflate, {"threshold": -1}),
    (Deflate, {"threshold": True}),
    (Deflate, {"level": 10}),
    (Deflate, {"memory_level": 0}),
    (Deflate, {"context_takeover": None}),
    (HttpCompression, {"threshold": "1024"}),
    (HttpCompression, {"level": -1}),
    (Cors, {"origins": None}),
    (Cors, {"methods": "GET"}),
    (Cors, {"methods": None}),
    (Cors, {"headers": "X-A"}),
    (Cors, {"headers": ("X-A\r\nX-B: c",)}),
    (Cors, {"expose": ("",)}),
    (Cors, {"expose": (5,)}),
    (Cors, {"credentials": "no"}),
    (Cors, {"max_age": 1.5}),
]


@pytest.mark.parametrize(("kind", "arguments"), PARTS)
def test_parts_are_checked_too(kind: type, arguments: dict[str, object]):
    option = {Cookie: "cookie", Cors: "cors", Deflate: "per_message_deflate", HttpCompression: "http_compression"}[kind]
    with pytest.raises(ConfigurationError, match=rf"^{option}: expected .*; got "):
        kind(**arguments)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("ping_intervall", "did you mean ping_interval?"),
        ("pingInterval", "did you mean ping_interval?"),
        ("transport", "did you mean transports?"),
        ("zzz", f"there are {', '.join(NAMES)}"),
    ],
)
def test_an_unknown_option(given: str, hint: str):
    assert refusal(**{given: 1}) == f"{given} is not an option; {hint}"


def test_an_unknown_part():
    assert refusal(cookie={"http_only": True}) == "http_only is not a part of cookie; did you mean httponly?"


def test_webtransport_says_why():
    assert "HTTP/3" in refusal(transports=["polling", "webtransport"])


REDIS_URLS = {
    "redis://host": "redis://host:6379/0",
    "rediss://user:secret@host:1/2": "rediss://host:1/2",
    "redis+sentinel://:secret@a,b:5/service/3": "redis+sentinel://a:26379,b:5/service/3",
    "redis+cluster://[::1]:7000,b:7001?group=shop&ssl_ca_certs=x": "redis+cluster://::1:7000,b:7001/0?group=shop",
}


@pytest.mark.parametrize("url", REDIS_URLS)
def test_urls_of_redis(url: str):
    assert Options(cluster=url).cluster == url
    assert str(RedisLocation.parse(url)) == REDIS_URLS[url]


def test_a_refused_url_shows_no_password():
    for url in ("redis://:secret@host/x", "redis+sentinel://u:secret@host", "rediss://u:secret@h:port"):
        assert "secret" not in refusal(cluster=url)


def test_redis_needs_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engineio_wsgi.options.redis_url.find_spec", lambda name: None)
    assert refusal(cluster="redis://host") == "cluster: redis-py is missing; pip install engineio-wsgi[redis]"


@pytest.mark.parametrize(("slash", "resource"), [(True, "/live/"), (False, "/live")])
def test_resource(slash: bool, resource: str):
    assert Options(path="live/", add_trailing_slash=slash).resource == resource


TEXTS = [
    ("PATH", "/live", "path", "/live"),
    ("ADD_TRAILING_SLASH", "no", "add_trailing_slash", False),
    ("TRANSPORTS", "polling, websocket,", "transports", ("polling", "websocket")),
    ("PING_INTERVAL", "2.5", "ping_interval", 2.5),
    ("MAX_BUFFERED", "1_000", "max_buffered", 1000),
    ("ALLOW_EIO3", "TRUE", "allow_eio3", True),
    ("JSONP", "1", "jsonp", True),
    ("CORS", "*", "cors", Cors(origins="*")),
    ("CORS", "https://a.example,https://b.example", "cors", Cors(origins=("https://a.example", "https://b.example"))),
    ("CORS", "", "cors", Cors(origins=())),
    ("COOKIE", "on", "cookie", Cookie()),
    ("COOKIE", "sid", "cookie", Cookie(name="sid")),
    ("COOKIE", "off", "cookie", None),
    ("HTTP_COMPRESSION", "off", "http_compression", None),
    ("PER_MESSAGE_DEFLATE", "yes", "per_message_deflate", Deflate()),
    ("INITIAL_PACKET", "hello", "initial_packet", "hello"),
    ("SUBPROTOCOLS", "v2.chat, chat", "subprotocols", ("v2.chat", "chat")),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), TEXTS)
def test_from_environ(variable: str, text: str, name: str, value: object):
    given = from_environ({f"ENGINEIO_{variable}": text, "OTHER": "x"})
    assert given == {name: value}
    assert getattr(Options.create(**given), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("PING_INTERVAL", "abc", "ping_interval: expected a number of seconds; got 'abc'"),
        ("PING_INTERVAL", "", "ping_interval: expected a number of seconds; got ''"),
        ("PING_INTERVAL", "nan", "ping_interval: expected a number of seconds from 0.001 to 1000000; got nan"),
        ("MAX_INBOX", "1.5", "max_inbox: expected a whole number of bytes; got '1.5'"),
        ("JSONP", "maybe", "jsonp: expected true or false; got 'maybe'"),
        ("TRANSPORTS", "", "transports: expected a list of polling, websocket, flashsocket; got ()"),
        ("PING_INTERVALL", "5",
         "ENGINEIO_PING_INTERVALL is not an option that the environment can set; did you mean ENGINEIO_PING_INTERVAL?"),
    ],
)
def test_from_environ_refuses(variable: str, text: str, says: str):
    with pytest.raises(ConfigurationError) as caught:
        from_environ({f"ENGINEIO_{variable}": text})
    assert str(caught.value) == says


@pytest.mark.parametrize("name", ["allow_request", "generate_id"])
def test_the_environment_cannot_set_what_text_cannot_say(name: str):
    assert name not in simple_options()
    with pytest.raises(ConfigurationError, match=f"^ENGINEIO_{name.upper()} is not an option that the environment can set"):
        from_environ({f"ENGINEIO_{name.upper()}": "x"})


@given(st.sampled_from(sorted(simple_options())), st.text())
def test_any_text_is_a_value_or_refused(name: str, text: str):
    try:
        value = parse_option(name, text)
    except ConfigurationError as error:
        assert str(error).startswith(f"{name}: ")
    else:
        assert getattr(Options.create(**{name: value}), name) == value


def test_option_defaults_hold_for_servers_that_are_not_given_the_option():
    with option_defaults({"ping_interval": 3.0, "path": "/from-outside"}):
        server = Server(path="/own")
        assert (server.options.ping_interval, server.options.path) == (3.0, "/own")
    assert Server().options.ping_interval == 25.0


def test_option_defaults_end_with_an_exception():
    with pytest.raises(RuntimeError), option_defaults({"ping_interval": 3.0}):
        raise RuntimeError
    assert Server().options.ping_interval == 25.0


def test_a_subclass_of_server_can_be_made_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    class Mine(Server):
        pass

    monkeypatch.setenv("ENGINEIO_PING_INTERVAL", "4")
    server = Mine.from_environ(ping_interval=9, ping_timeout=8)
    assert type(server) is Mine
    assert (server.options.ping_interval, server.options.ping_timeout) == (4.0, 8.0)


def test_the_table_has_every_option_once():
    table = option_table()
    assert [name for name, _, _ in table] == NAMES
    assert all(default and meaning for _, default, meaning in table)
